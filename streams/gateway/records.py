"""From decoded batches to Kafka records: frames by partition, and what was refused. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from streams.adapters import frames
from streams.adapters.rejected import rejected_record
from streams.core.placement import partition_of
from streams.core.readings import ABSENT, Int32, Int64, Labels, Readings
from streams.errors import DecodeError
from streams.intake.decode import Message, Refused
from streams.ports import Produce
from streams.topics import READINGS

MAX_RECORD_BYTES = 1_900_000
"""A frame over this is split further; topics take records of up to 2 MiB."""


def frame_records(
    readings: Readings, partitions: int, max_rows: int, topic: str = READINGS
) -> list[Produce]:
    """Return *readings* as frames, each with the rows of one partition, in order.

    :param partitions: partition count of the topic.
    :param max_rows: rows of a frame; a message is not split, so a frame may have more by one.
    """
    headers = {"hw-partitions": b"%d" % partitions, "content-type": frames.CONTENT_TYPE}
    produced: list[Produce] = []
    placed = partitions_of(readings.tenant, readings.device, partitions)
    for partition, rows in by_partition(placed):
        mine = readings.take(rows)
        produced.extend(
            Produce(topic, value, None, partition, headers)
            for value in _encode(mine, 0, len(mine), max_rows)
        )
    return produced


def refused_records(
    messages: Sequence[Message], refused: Sequence[Refused], max_bytes: int
) -> list[Produce]:
    """Return the records of ``rejected`` for refused messages.

    :param max_bytes: bytes of each payload that are kept.
    """
    produced = []
    for one in refused:
        message, source = messages[one.index], one.source
        produced.append(
            rejected_record(
                message.payload,
                DecodeError(one.reason, one.detail),
                source=f"mqtt:{message.topic}",
                received_ms=message.received_ms,
                max_bytes=max_bytes,
                tenant=source.tenant if source else None,
                site=source.site if source else None,
                device=source.device if source else None,
            )
        )
    return produced


def partitions_of(tenant: Labels, device: Labels, partitions: int) -> Int32:
    """Return the partition of each row, computed once per distinct tenant and device."""
    devices = len(device.values)
    pair = tenant.codes.astype(np.int64) * devices + device.codes
    unique, inverse = np.unique(pair, return_inverse=True)
    tenants, names = tenant.values, device.values
    of_pair = np.fromiter(
        (
            partition_of(tenants[code // devices], names[code % devices], partitions)
            for code in unique.tolist()
        ),
        dtype=np.int32,
        count=len(unique),
    )
    return of_pair[inverse]


def by_partition(partition: Int32) -> Iterator[tuple[int, Int64]]:
    """Give each partition with its rows, in order."""
    if not len(partition):
        return
    order = np.argsort(partition, kind="stable").astype(np.int64)
    ordered = partition[order]
    cuts = np.flatnonzero(np.diff(ordered)) + 1
    for rows in np.split(order, cuts):
        yield int(partition[rows[0]]), rows


def _encode(readings: Readings, begin: int, end: int, max_rows: int) -> Iterator[bytes]:
    """Encode rows [begin, end) as one frame, or as several where they are too many or too long."""
    whole = begin == 0 and end == len(readings)
    if end - begin <= max_rows:
        part = readings if whole else readings.take(np.arange(begin, end, dtype=np.int64))
        value = frames.encode(_compact(part))
        if len(value) <= MAX_RECORD_BYTES:
            yield value
            return
    middle = _boundary(readings, begin, end)
    if middle in (begin, end):
        # One message alone: payloads are limited to less than a record may have.
        part = readings.take(np.arange(begin, end, dtype=np.int64))
        yield frames.encode(_compact(part))
        return
    yield from _encode(readings, begin, middle, max_rows)
    yield from _encode(readings, middle, end, max_rows)


def _boundary(readings: Readings, begin: int, end: int) -> int:
    """The row nearest before the middle (else after) where a message begins."""
    middle = (begin + end) // 2
    back = middle
    while back > begin and _same_message(readings, back):
        back -= 1
    if back > begin:
        return back
    while middle < end and _same_message(readings, middle):
        middle += 1
    return middle


def _same_message(readings: Readings, row: int) -> bool:
    """Whether *row* belongs to the numbered message of the row before it."""
    return bool(
        readings.seq[row] != ABSENT
        and readings.seq[row] == readings.seq[row - 1]
        and readings.boot[row] == readings.boot[row - 1]
        and readings.device.codes[row] == readings.device.codes[row - 1]
        and readings.tenant.codes[row] == readings.tenant.codes[row - 1]
    )


def _compact(readings: Readings) -> Readings:
    """Leave out of the dictionaries what no row uses."""
    return replace(
        readings,
        tenant=_used(readings.tenant),
        site=_used(readings.site),
        device=_used(readings.device),
        metric=_used(readings.metric),
    )


def _used(labels: Labels) -> Labels:
    seen = np.zeros(len(labels.values), dtype=np.bool_)
    seen[labels.codes] = True
    if seen.all():
        return labels
    new_code = np.cumsum(seen, dtype=np.int32) - 1
    values = labels.values
    return Labels(
        new_code[labels.codes].astype(np.int32),
        tuple(values[at] for at in np.flatnonzero(seen).tolist()),
    )
