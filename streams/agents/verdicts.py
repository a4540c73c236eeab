"""Readings that were not accepted, each as a record that says why."""

from __future__ import annotations

import numpy as np

from streams.adapters import frames
from streams.adapters.rejected import rejected_record
from streams.core.classes import Class
from streams.core.engine import TOO_MANY_DEVICES, TOO_MANY_METRICS, Folded
from streams.core.readings import Readings
from streams.core.segments import TIME_LIMIT_MS
from streams.errors import DecodeError
from streams.ports import Produce
from streams.topics import LATE, QUARANTINE, READINGS


def explain_rows(folded: Folded, partition: int, max_bytes: int) -> list[Produce]:
    """Return one record for each reading that is rejected, quarantined, unverifiable or late.

    Duplicates leave no record: they say nothing new.
    """
    wanted = (folded.verdict != Class.ACCEPTED) & (folded.verdict != Class.DUPLICATE)
    return [_record(folded, row, partition, max_bytes) for row in np.flatnonzero(wanted).tolist()]


def _record(folded: Folded, row: int, partition: int, max_bytes: int) -> Produce:
    rows = folded.rows
    one = rows.readings.take(np.asarray([row]))
    kind = Class(int(folded.verdict[row]))
    source = f"kafka:{READINGS}/{partition}/{rows.offset[row]}/{rows.row[row]}"
    reason, detail = _beyond(folded, row, one) or _why(kind, one)
    frame = frames.encode(one)
    if kind is Class.REJECTED:
        return rejected_record(
            frame,
            DecodeError(reason, detail),
            source=source,
            received_ms=int(one.received_ms[0]),
            max_bytes=max_bytes,
            partition=partition,
            tenant=one.tenant[0],
            site=one.site[0],
            device=one.device[0],
        )
    return Produce(
        LATE if kind is Class.LATE else QUARANTINE,
        frame,
        None,
        partition,
        {
            "content-type": frames.CONTENT_TYPE,
            "hw-reason": reason.encode(),
            "hw-detail": detail.encode(),
            "hw-source": source.encode(),
            "hw-tenant": one.tenant[0].encode(),
            "hw-site": one.site[0].encode(),
            "hw-device": one.device[0].encode(),
        },
    )


def _beyond(folded: Folded, row: int, one: Readings) -> tuple[str, str] | None:
    reason = folded.beyond.get(row)
    if reason == TOO_MANY_DEVICES:
        return reason, (
            f"{one.device[0]} is new, and its shard holds as many devices as devices.max_devices "
            "allows"
        )
    if reason == TOO_MANY_METRICS:
        return reason, (
            f"{one.device[0]}/{one.metric[0]} is new, and the device has as many metrics as "
            "devices.max_metrics allows"
        )
    return None


def _why(kind: Class, one: Readings) -> tuple[str, str]:
    t_ms, received_ms = int(one.t_ms[0]), int(one.received_ms[0])
    who = f"{one.device[0]}/{one.metric[0]}"
    if kind is Class.QUARANTINED:
        ahead_s = (t_ms - received_ms) / 1000
        return "clock-ahead", (
            f"{who}: its time lies {ahead_s:.0f} s after its receipt; is the device's clock wrong?"
        )
    if kind is Class.UNVERIFIABLE:
        return "unverifiable", (
            f"{who}: seq {one.seq[0]} lies in a gap that was given up, so it cannot be told "
            "whether it was counted before"
        )
    if kind is Class.LATE:
        return "late", f"{who}: older than the correction horizon of every window of its device"
    if not 0 <= t_ms < TIME_LIMIT_MS:
        return "bad-time", (
            f"{who}: t_ms is {t_ms}, expected milliseconds since 1970 below {TIME_LIMIT_MS}"
        )
    return "not-a-number", f"{who}: the value is {one.value[0]}, expected a finite number"
