"""Frames of results: window results and scores as Arrow IPC, with their lineage.

The schema's metadata carries ``hw.code`` (version of Headwater) and ``hw.settings`` (the
fingerprint of the settings that decided them): determinism is promised for equal ones.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from streams.adapters.frames import (
    VERSION,
    column_labels,
    labels_column,
    numbers,
    read_stream,
    write_stream,
)
from streams.core.readings import Labels
from streams.core.results import RollupResults, Scores, WindowResults
from streams.errors import DecodeError

T = TypeVar("T", WindowResults, Scores, RollupResults)

_EXTRA = "extra"
_LINEAGE = (b"hw.code", b"hw.settings")
_LATER = ("why",)
"""Columns of text that frames of earlier versions do not have: they are read as empty."""
_DTYPES: dict[str, Any] = {"Int64": np.int64, "Int32": np.int32, "Float64": np.float64}


def encode(results: WindowResults | Scores | RollupResults, *, code: str, settings: str) -> bytes:
    """Return results as one Arrow IPC stream of one batch.

    :param code: version of Headwater that computed them.
    :param settings: :meth:`streams.settings.Settings.fingerprint`.
    """
    columns = {field.name: getattr(results, field.name) for field in fields(results)}
    # Further aggregates are columns of their own name.
    columns |= columns.pop(_EXTRA, {})
    return write_stream(
        {
            name: labels_column(column) if isinstance(column, Labels) else pa.array(column)
            for name, column in columns.items()
        },
        {b"hw.version": VERSION, b"hw.code": code.encode(), b"hw.settings": settings.encode()},
    )


def read_table(payload: bytes) -> pa.Table:
    """Read a result frame as a table, with its lineage in the schema's metadata.

    :raises DecodeError: if it is not a whole frame of a known version.
    """
    return read_stream(payload)


@dataclass(frozen=True, slots=True)
class Lineage:
    """What decided the results of a frame."""

    code: str
    settings: str


def lineage(payload: bytes) -> Lineage:
    """Read by what a result frame was computed.

    :raises DecodeError: if it is not a whole frame of a known version.
    """
    said = read_stream(payload).schema.metadata or {}
    return Lineage(*(said.get(name, b"").decode(errors="replace")[:64] for name in _LINEAGE))


def split(payload: bytes, max_frames: int) -> list[bytes]:
    """Return the frames of a payload that has them one after the other, at least one.

    :raises DecodeError: if it is no such payload, or has too many.
    """
    source = pa.BufferReader(payload)
    found: list[bytes] = []
    while not found or source.tell() < len(payload):
        if len(found) == max_frames:
            raise DecodeError("too-many-frames", f"more than {max_frames} frames in one payload")
        begin = source.tell()
        try:
            for _ in pa.ipc.open_stream(source):
                pass
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DecodeError("malformed-frame", f"frame {len(found) + 1}: {error}") from error
        found.append(payload[begin : source.tell()])
    return found


def decode_windows(payload: bytes) -> WindowResults:
    """Read a frame of ``aggregates``.

    :raises DecodeError: if it is not one.
    """
    return _decode(WindowResults, payload)


def decode_rollups(payload: bytes) -> RollupResults:
    """Read a frame of ``rollups`` or ``rollups.partial``.

    :raises DecodeError: if it is not one.
    """
    return _decode(RollupResults, payload)


def decode_scores(payload: bytes) -> Scores:
    """Read a frame of ``anomalies``.

    :raises DecodeError: if it is not one.
    """
    return _decode(Scores, payload)


def _decode(kind: type[T], payload: bytes) -> T:
    table = read_stream(payload)
    try:
        columns: dict[str, Any] = {
            field.name: _labels(table, field.name)
            if field.type == "Labels"
            else numbers(table, field.name, _DTYPES[str(field.type)])
            for field in fields(kind)
            if field.name != _EXTRA
        }
        if kind is WindowResults:
            more = [name for name in table.column_names if name not in columns]
            columns[_EXTRA] = {name: numbers(table, name, np.float64) for name in more}
    except (KeyError, pa.ArrowException, TypeError, ValueError) as error:
        raise DecodeError("frame-schema", f"{error}; not a frame of {kind.__name__}") from error
    return kind(**columns)


def _labels(table: pa.Table, name: str) -> Labels:
    if name in _LATER and name not in table.column_names:
        return Labels.constant("", len(table))
    return column_labels(table.column(name))
