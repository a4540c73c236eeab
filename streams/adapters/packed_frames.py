"""Frames for thin links: the columns of :mod:`streams.adapters.frames`, made small before zstd.

Columns of numbers lie in the order of their series (stable by device, then metric), as differences
to the one before, decimals as integers, in the narrowest type: a series at a steady rate becomes
zeros and small numbers, which zstd makes next to nothing. Each field's metadata says how it was
packed, so a reader needs no more than the frame; ``hw.version`` is 2. Values come back to the bit.

The idea is that of Gorilla (Pelkonen et al., VLDB 2015) and Parquet's DELTA_BINARY_PACKED, with
Arrow's types and zstd in place of bit streams.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streams.core.readings import Float64, Int64, Labels, Readings

VERSION = b"2"
BASE, DELTA, SCALE = b"hw.base", b"hw.delta", b"hw.scale"
_MAX_SCALE = 6
_EXACT = 2.0**53
_INT64 = re.compile(rb"-?[0-9]{1,19}")
_NARROW = (np.int8, np.int16, np.int32)
_OPTIONS = pa.ipc.IpcWriteOptions(use_threads=False)


def encode(readings: Readings, columns: Mapping[str, pa.Array]) -> bytes:
    """Return a frame, not compressed yet.

    :param columns: those of :func:`streams.adapters.frames.frame_columns`.
    """
    order = series_order(readings.device, readings.metric)
    arrays, schema = [], []
    for name, column in columns.items():
        metadata: dict[bytes, bytes] | None = None
        packed = column
        if isinstance(column, pa.DictionaryArray):
            packed = pa.DictionaryArray.from_arrays(
                pa.array(_narrowed(column.indices.to_numpy())), column.dictionary
            )
        elif column.null_count == 0 and name in ("t_ms", "boot", "seq"):
            packed, metadata = _packed_ints(getattr(readings, name)[order])
        elif name == "received_ms":
            packed, metadata = _packed_ints((readings.received_ms - readings.t_ms)[order])
        elif name == "value":
            packed, metadata = _packed_value(readings.value, order)
        arrays.append(packed)
        schema.append(pa.field(name, packed.type, metadata=metadata))
    batch = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(schema, {b"hw.version": VERSION}))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_OPTIONS) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def unpacked(
    columns: Mapping[str, pa.Array], schema: pa.Schema, device: Labels, metric: Labels
) -> dict[str, pa.Array]:
    """Return the columns of a packed frame as those of a plain one.

    :raises ValueError: if a field's metadata is not what an encoder writes.
    """
    order = series_order(device, metric)
    found: dict[str, Any] = dict(columns)
    for name in columns:
        metadata = schema.field(name).metadata
        if not metadata or BASE not in metadata:
            continue
        if columns[name].null_count:
            raise ValueError(f"column {name} is packed and has nulls")
        numbers = columns[name].to_numpy().astype(np.int64)
        if metadata.get(DELTA) == b"1":
            numbers = np.cumsum(numbers, dtype=np.int64)
        numbers = numbers + _number(metadata[BASE], name)
        plain = np.empty(len(order), np.int64)
        plain[order] = numbers
        if SCALE not in metadata:
            found[name] = pa.array(plain)
            continue
        scale = _number(metadata[SCALE], name)
        if not 0 <= scale <= _MAX_SCALE:
            raise ValueError(f"column {name} has the scale {scale}; expected 0 to {_MAX_SCALE}")
        found[name] = pa.array(plain / 10.0**scale)
    if "received_ms" in found and "t_ms" in found:
        found["received_ms"] = pa.array(found["received_ms"].to_numpy() + found["t_ms"].to_numpy())
    return found


def series_order(device: Labels, metric: Labels) -> Int64:
    """Return rows by series, those of one in order of arrival."""
    series = device.codes.astype(np.int64) * max(1, len(metric.values)) + metric.codes
    return np.argsort(series, kind="stable").astype(np.int64)


def _packed_value(value: Float64, order: Int64) -> tuple[pa.Array, dict[bytes, bytes] | None]:
    found = _as_decimals(value)
    if found is None:
        return pa.array(value), None
    scaled, scale = found
    packed, metadata = _packed_ints(scaled[order])
    return packed, {**metadata, SCALE: b"%d" % scale}


def _as_decimals(value: Float64) -> tuple[Int64, int] | None:
    """Return integers and the power of ten that gives the values back to the bit, if any does."""
    if not np.isfinite(value).all() or (np.signbit(value) & (value == 0)).any():
        return None
    for scale in range(_MAX_SCALE + 1):
        scaled = np.rint(value * 10.0**scale)
        if np.abs(scaled).max(initial=0.0) >= _EXACT:
            return None
        if (scaled / 10.0**scale == value).all():
            return scaled.astype(np.int64), scale
    return None


def _packed_ints(numbers: Int64) -> tuple[pa.Array, dict[bytes, bytes]]:
    """Pack as differences, or as they are where that is narrower (noise has no trend)."""
    base = int(numbers[0]) if len(numbers) else 0
    deltas = np.diff(numbers, prepend=numbers[:1])
    shifted = numbers - base
    as_deltas = np.abs(deltas).sum() < np.abs(shifted).sum()
    chosen = deltas if as_deltas else shifted
    return pa.array(_narrowed(chosen)), {BASE: b"%d" % base, DELTA: b"%d" % as_deltas}


def _narrowed(numbers: NDArray[Any]) -> NDArray[Any]:
    low, high = int(numbers.min(initial=0)), int(numbers.max(initial=0))
    for kind in _NARROW:
        bounds = np.iinfo(kind)
        if bounds.min <= low and high <= bounds.max:
            return numbers.astype(kind)
    return numbers


def _number(text: bytes, name: str) -> int:
    if not _INT64.fullmatch(text) or abs(int(text)) >= 1 << 63:
        raise ValueError(f"column {name} is packed from {text[:40]!r}; expected an int64")
    return int(text)
