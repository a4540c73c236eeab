"""Frames of readings: Arrow IPC streams, the form in which readings travel (see docs/wire.md).

Labels are dictionary columns, all-absent columns are left out, and the body is compressed
with LZ4. ``hw.version`` in the schema's metadata says which columns to expect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streams.adapters import packed_frames
from streams.core.readings import ABSENT, Labels, Readings
from streams.errors import DecodeError

VERSION = b"1"
_TYPES = {kind: pa.from_numpy_dtype(kind) for kind in (np.int64, np.int32, np.float64, np.uint8)}
_LABELS = ("tenant", "site", "device", "metric")
# Frames are small: handing their buffers to Arrow's thread pool takes four times as long.
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READ_OPTIONS = pa.ipc.IpcReadOptions(use_threads=False)
CONTENT_TYPE = b"application/vnd.apache.arrow.stream"


def encode(readings: Readings) -> bytes:
    """Return *readings* as one Arrow IPC stream of one batch."""
    return write_stream(frame_columns(readings), {b"hw.version": VERSION})


def encode_packed(readings: Readings) -> bytes:
    """Return *readings* as a frame for thin links, to be compressed as a whole."""
    return packed_frames.encode(readings, frame_columns(readings))


def frame_columns(readings: Readings) -> dict[str, pa.Array]:
    """Return the columns of a frame; those that say nothing are left out."""
    columns: dict[str, pa.Array] = {
        name: labels_column(getattr(readings, name)) for name in _LABELS
    }
    columns["t_ms"] = pa.array(readings.t_ms)
    columns["received_ms"] = pa.array(readings.received_ms)
    columns["value"] = pa.array(readings.value)
    if readings.quality.any():
        columns["quality"] = pa.array(readings.quality)
    for name in ("boot", "seq"):
        numbers: NDArray[np.int64] = getattr(readings, name)
        absent = numbers == ABSENT
        if not absent.all():
            columns[name] = pa.array(numbers, mask=absent)
    n = len(readings)
    if readings.exact_int:
        columns["int"] = pa.array([readings.exact_int.get(i) for i in range(n)], pa.int64())
    if readings.text:
        columns["text"] = pa.array([readings.text.get(i) for i in range(n)], pa.string())
    return columns


def decode(payload: bytes) -> Readings:
    """Read one frame.

    :raises DecodeError: ``empty-frame`` if there are no bytes or rows, ``truncated-frame`` or
        ``malformed-frame`` if it is not whole, ``frame-schema`` if a column is missing or of
        another type, ``frame-version`` if it was written by a later version.
    """
    batch = read_batch(payload)
    n = len(batch)
    if n == 0:
        raise DecodeError("empty-frame", "the frame holds no rows; expected at least one reading")
    try:
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        labels = {name: array_labels(columns[name]) for name in _LABELS}
        if batch.schema.metadata[b"hw.version"] == packed_frames.VERSION:
            both = labels["device"], labels["metric"]
            columns = packed_frames.unpacked(columns, batch.schema, *both)
        return Readings(
            **labels,
            t_ms=required(columns, "t_ms", np.int64),
            received_ms=required(columns, "received_ms", np.int64),
            value=required(columns, "value", np.float64),
            quality=_optional(columns, "quality", n, 0, np.uint8),
            boot=_optional(columns, "boot", n, ABSENT, np.int64),
            seq=_optional(columns, "seq", n, ABSENT, np.int64),
            exact_int=_sparse(columns, "int"),
            text=_sparse(columns, "text"),
        )
    except KeyError as error:
        raise DecodeError(
            "frame-schema", f"there is no column {error}; columns are described in docs/wire.md"
        ) from error
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DecodeError(
            "frame-schema", f"{error}; columns are described in docs/wire.md"
        ) from error


def write_stream(columns: dict[str, pa.Array], metadata: dict[bytes, bytes]) -> bytes:
    """Return columns of equal length as one Arrow IPC stream."""
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    batch = batch.replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_OPTIONS) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def read_stream(payload: bytes) -> pa.Table:
    """Read an Arrow IPC stream as a table of one chunk; errors as :func:`read_batch`."""
    return pa.Table.from_batches([read_batch(payload)])


def read_batch(payload: bytes) -> pa.RecordBatch:
    """Read an Arrow IPC stream as one batch, and check that it is whole and of a version we know.

    :raises DecodeError: as :func:`decode`.
    """
    if not payload:
        raise DecodeError("empty-frame", "the payload has no bytes; expected an Arrow IPC stream")
    try:
        with pa.ipc.open_stream(payload, options=_READ_OPTIONS) as reader:
            batches = list(reader)
            schema = reader.schema
        if len(batches) != 1:
            table = pa.Table.from_batches(batches, schema).unify_dictionaries().combine_chunks()
            batches = table.to_batches() or [pa.RecordBatch.from_pylist([], schema)]
        batch = batches[0]
        # Offsets and dictionary indices of a damaged frame can point outside its buffers.
        batch.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = "truncated-frame" if _looks_cut(error) else "malformed-frame"
        raise DecodeError(
            reason, f"{len(payload)} bytes are not a whole Arrow IPC stream: {error}"
        ) from error
    metadata = batch.schema.metadata or {}
    if metadata.get(b"hw.version") not in (VERSION, packed_frames.VERSION):
        found = metadata.get(b"hw.version", b"none").decode(errors="replace")
        raise DecodeError("frame-version", f"hw.version is {found}; this reader knows 1 and 2")
    return batch


def _looks_cut(error: Exception) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("expected to", "truncat", "eof", "end of", "to read"))


def labels_column(labels: Labels) -> pa.Array:
    """Return labels as a dictionary column; a dictionary with more names than rows is shortened."""
    if len(labels.values) > len(labels.codes):
        labels = labels.compact()
    return pa.DictionaryArray.from_arrays(
        pa.array(labels.codes, pa.int32()), pa.array(labels.values, pa.string())
    )


def column_labels(column: pa.ChunkedArray) -> Labels:
    """Return a dictionary or string column of one chunk as labels; null is an error."""
    return array_labels(column.chunk(0) if column.num_chunks else pa.array([], pa.string()))


def array_labels(array: pa.Array) -> Labels:
    """Return a dictionary or string array as labels; null is an error."""
    if array.null_count:
        raise ValueError("a label is null; tenant, site, device and metric are required")
    if not isinstance(array, pa.DictionaryArray):
        array = array.cast(pa.string()).dictionary_encode()
    indices, names = array.indices, array.dictionary
    if indices.type != pa.int32():
        indices = indices.cast(pa.int32())
    if names.type != pa.string():
        names = names.cast(pa.string())
    return Labels(indices.to_numpy(), tuple(names.to_pylist()))


def numbers(table: pa.Table, name: str, dtype: Any) -> NDArray[Any]:
    """Return a required numeric column of one chunk, without nulls, as numpy."""
    column = table.column(name)
    return required({name: column.chunk(0) if column.num_chunks else column}, name, dtype)


def required(columns: Mapping[str, pa.Array], name: str, dtype: Any) -> NDArray[Any]:
    """Return a numeric column without nulls as numpy.

    :raises KeyError: if there is none of that name.
    :raises ValueError: if it has nulls.
    """
    column = columns[name]
    if column.null_count:
        raise ValueError(f"column {name} has nulls")
    return _as_numpy(column, dtype)


def _optional(
    columns: Mapping[str, pa.Array], name: str, n: int, absent: int, dtype: Any
) -> NDArray[Any]:
    """Return a numeric column as numpy, ``absent`` where it is null or missing."""
    column = columns.get(name)
    if column is None:
        return np.full(n, absent, dtype=dtype)
    return _as_numpy(column.fill_null(absent) if column.null_count else column, dtype)


def _as_numpy(column: pa.Array, dtype: Any) -> NDArray[Any]:
    wanted = _TYPES[dtype]
    if column.type != wanted:
        column = column.cast(wanted)
    array: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return array


def _sparse(columns: Mapping[str, pa.Array], name: str) -> dict[int, Any]:
    if name not in columns:
        return {}
    values = columns[name].to_pylist()
    return {row: value for row, value in enumerate(values) if value is not None}
