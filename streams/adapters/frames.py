"""Frames of readings: Arrow IPC streams, the form in which readings travel (see docs/wire.md).

Labels are dictionary columns, all-absent columns are left out, and the body is compressed
with LZ4. ``hw.version`` in the schema's metadata says which columns to expect.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streams.core.readings import ABSENT, Labels, Readings
from streams.errors import DecodeError

VERSION = b"1"
_LABELS = ("tenant", "site", "device", "metric")
# Frames are small: handing their buffers to Arrow's thread pool takes four times as long.
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READ_OPTIONS = pa.ipc.IpcReadOptions(use_threads=False)
CONTENT_TYPE = b"application/vnd.apache.arrow.stream"


def encode(readings: Readings) -> bytes:
    """Return *readings* as one Arrow IPC stream of one batch."""
    return write_stream(frame_columns(readings), {b"hw.version": VERSION})


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
    table = read_stream(payload)
    n = len(table)
    if n == 0:
        raise DecodeError("empty-frame", "the frame holds no rows; expected at least one reading")
    try:
        labels = {name: column_labels(table.column(name)) for name in _LABELS}
        t_ms = numbers(table, "t_ms", np.int64)
        received_ms = numbers(table, "received_ms", np.int64)
        value = numbers(table, "value", np.float64)
        quality = optional(table, "quality", n, 0, np.uint8)
        boot = optional(table, "boot", n, ABSENT, np.int64)
        seq = optional(table, "seq", n, ABSENT, np.int64)
    except (KeyError, pa.ArrowException, TypeError, ValueError) as error:
        raise DecodeError(
            "frame-schema", f"{error}; columns are described in docs/wire.md"
        ) from error
    return Readings(
        **labels,
        t_ms=t_ms,
        received_ms=received_ms,
        value=value,
        quality=quality,
        boot=boot,
        seq=seq,
        exact_int=_sparse(table, "int"),
        text=_sparse(table, "text"),
    )


def write_stream(columns: dict[str, pa.Array], metadata: dict[bytes, bytes]) -> bytes:
    """Return columns of equal length as one Arrow IPC stream."""
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    batch = batch.replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_OPTIONS) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def read_stream(payload: bytes) -> pa.Table:
    """Read an Arrow IPC stream and check that it is whole and of a version we know.

    :raises DecodeError: as :func:`decode`.
    """
    if not payload:
        raise DecodeError("empty-frame", "the payload has no bytes; expected an Arrow IPC stream")
    try:
        with pa.ipc.open_stream(pa.BufferReader(payload), options=_READ_OPTIONS) as reader:
            table = reader.read_all()
        # Offsets and dictionary indices of a damaged frame can point outside its buffers.
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = "truncated-frame" if _looks_cut(error) else "malformed-frame"
        raise DecodeError(
            reason, f"{len(payload)} bytes are not a whole Arrow IPC stream: {error}"
        ) from error
    metadata = table.schema.metadata or {}
    if metadata.get(b"hw.version") != VERSION:
        found = metadata.get(b"hw.version", b"none").decode(errors="replace")
        raise DecodeError("frame-version", f"hw.version is {found}; this reader knows 1")
    return table.combine_chunks()


def _looks_cut(error: Exception) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("expected to", "truncat", "eof", "end of", "to read"))


def labels_column(labels: Labels) -> pa.Array:
    """Return labels as a dictionary column."""
    return pa.DictionaryArray.from_arrays(
        pa.array(labels.codes, pa.int32()), pa.array(labels.values, pa.string())
    )


def column_labels(column: pa.ChunkedArray) -> Labels:
    """Return a dictionary or string column as labels; null is an error."""
    if column.null_count:
        raise ValueError("a label is null; tenant, site, device and metric are required")
    array: Any = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], pa.string())
    if not pa.types.is_dictionary(array.type):
        array = array.cast(pa.string()).dictionary_encode()
    return Labels(
        array.indices.cast(pa.int32()).to_numpy(zero_copy_only=False),
        tuple(array.dictionary.cast(pa.string()).to_pylist()),
    )


def numbers(table: pa.Table, name: str, dtype: Any) -> NDArray[Any]:
    """Return a required numeric column without nulls as numpy."""
    column = table.column(name)
    if column.null_count:
        raise ValueError(f"column {name} has nulls")
    return np.asarray(column.cast(pa.from_numpy_dtype(dtype)).to_numpy(), dtype=dtype)


def optional(table: pa.Table, name: str, n: int, absent: int, dtype: Any) -> NDArray[Any]:
    """Return a numeric column as numpy, ``absent`` where it is null or missing."""
    if name not in table.column_names:
        return np.full(n, absent, dtype=dtype)
    column = table.column(name).cast(pa.from_numpy_dtype(dtype)).fill_null(absent)
    return np.asarray(column.to_numpy(), dtype=dtype)


def _sparse(table: pa.Table, name: str) -> dict[int, Any]:
    if name not in table.column_names:
        return {}
    values = table.column(name).to_pylist()
    return {row: value for row, value in enumerate(values) if value is not None}
