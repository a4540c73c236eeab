"""What is in the spool's records of readings and windows, as they travel: frames. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edge.spool.records import Record
from streams.adapters import frames, results, zstd
from streams.core.readings import Bool, Labels, Readings, concat_readings
from streams.core.results import WindowResults, concat_windows
from streams.version import VERSION

MAX_INFLATED_BYTES = 1 << 26
MAX_RESULTS = 1_000
"""Results in one payload."""


def pack(readings: Readings) -> bytes:
    """Return readings as a payload."""
    return zstd.compress(frames.encode_packed(readings))


def unpack(payload: bytes) -> Readings:
    """Read a payload.

    :raises DecodeError: if it is none; a record's checksum makes that a defect.
    """
    return frames.decode(zstd.inflate(payload, MAX_INFLATED_BYTES))


def join(payloads: Sequence[bytes]) -> bytes:
    """Return several payloads as one, devices together; each keeps its order."""
    if len(payloads) == 1:
        return payloads[0]
    readings = concat_readings([unpack(payload) for payload in payloads])
    # The rows of one message are of one device, so they stay beside each other.
    order = np.argsort(readings.device.codes, kind="stable").astype(np.int64)
    return pack(readings.take(order))


def pack_windows(parts: Sequence[WindowResults], settings: str) -> list[tuple[bytes, int]]:
    """Return results as payloads, each with how many are in it.

    :param settings: the fingerprint of the settings that decided them.
    """
    groups: dict[tuple[str, ...], list[WindowResults]] = {}
    for part in parts:
        for code in np.unique(part.window.codes).tolist():
            rows = np.flatnonzero(part.window.codes == code)
            group = (part.window.values[code], *part.extra)
            groups.setdefault(group, []).append(part.take(rows))
    found: list[tuple[bytes, int]] = []
    for each in groups.values():
        whole = concat_windows(each)
        for first in range(0, len(whole), MAX_RESULTS):
            some = whole.take(np.arange(first, min(first + MAX_RESULTS, len(whole))))
            frame = results.encode(some, code=VERSION, settings=settings)
            found.append((zstd.compress(frame), len(some)))
    return found


def join_windows(payloads: Sequence[bytes]) -> bytes:
    """Return several payloads of results as one: their frames, one after the other."""
    if len(payloads) == 1:
        return payloads[0]
    frames_of = (zstd.inflate(payload, MAX_INFLATED_BYTES) for payload in payloads)
    return zstd.compress(b"".join(frames_of))


def count_devices(payload: bytes) -> Mapping[str, int]:
    """Return ``tenant/device`` -> readings of a payload."""
    readings = unpack(payload)
    names = readings.device.values
    pairs = readings.tenant.codes.astype(np.int64) * len(names) + readings.device.codes
    found, counts = np.unique(pairs, return_counts=True)
    return {
        f"{readings.tenant.values[pair // len(names)]}/{names[pair % len(names)]}": count
        for pair, count in zip(found.tolist(), counts.tolist(), strict=True)
    }


def thinner(window_ms: int) -> Callable[[Sequence[Record]], list[Record]]:
    """Return a function that thins records of readings into one.

    Of each series and window of *window_ms* it keeps the first, last, least and greatest reading
    (M4: Jugel et al., VLDB 2014), and all that are no numbers. Their windows have the same first,
    last, least and greatest then, but not the same count, mean or quantiles.
    """

    def thin(records: Sequence[Record]) -> list[Record]:
        if not records:
            return []
        readings = concat_readings([unpack(record.payload) for record in records])
        kept = readings.take(_extremes(readings, window_ms))
        oldest_ms = min(record.oldest_ms for record in records)
        written_ms = max(record.written_ms for record in records)
        return [Record(pack(kept), len(kept), oldest_ms, written_ms)]

    return thin


def _extremes(readings: Readings, window_ms: int) -> Bool:
    """Return which rows stay."""
    cell = _group(readings.tenant, readings.device, readings.metric)
    window = readings.t_ms // window_ms
    keep = ~np.isfinite(readings.value)
    value = np.where(keep, 0.0, readings.value)
    for by in (readings.t_ms, value):
        order = np.lexsort((by, window, cell))
        new = np.diff(cell[order]).astype(bool) | np.diff(window[order]).astype(bool)
        keep[order[np.concatenate(([True], new))]] = True
        keep[order[np.concatenate((new, [True]))]] = True
    return keep


def _group(*labels: Labels) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    group = np.zeros(len(labels[0]), np.int64)
    for each in labels:
        group = group * max(1, len(each.values)) + each.codes
    return group
