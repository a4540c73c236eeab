"""What is to be written for a held record, or why it cannot be put back. Pure.

A reading that was judged before has its number marked as seen, or its (metric, time): put back
as it was, it would be a duplicate of itself. So it goes back without a number and with quality
bits that say so; that it goes back once is what the ledger sees to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import numpy as np

from streams.adapters import frames
from streams.adapters.reading_records import RecordDecoder
from streams.adapters.record_names import SITE
from streams.core.readings import ABSENT, TIME_OF_RECEIPT, Readings
from streams.core.segments import TIME_LIMIT_MS
from streams.errors import DecodeError
from streams.gateway.records import frame_records
from streams.history import names_a_reading
from streams.intake.decode import BatchDecoder, Message
from streams.ports import Produce
from streams.recovery.held import Held
from streams.testing import Record
from streams.topics import LATE, QUARANTINE, READINGS

REDRIVEN_HEADER = "hw-redriven"
"""``IDENTITY#NUMBER`` of what a record of ``readings`` puts back."""
PUT_BACK = 8
"""Quality flag: an operator has put the reading back."""
_UNNUMBERED = PUT_BACK | TIME_OF_RECEIPT
"""Neither number nor (metric, time) identifies it any more."""
_CLOCK_AHEAD = "clock-ahead"


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of one held record: ``records`` to write, or none and ``why_not``."""

    held: Held
    records: Sequence[Produce] = ()
    why_not: str = ""
    readings: int = 0
    """Readings that the records bring."""

    @property
    def can_go(self) -> bool:
        """Whether it can be carried out."""
        return not self.why_not


@dataclass(frozen=True, slots=True)
class Judge:
    """Makes plans after today's settings.

    :param decoder: makes the decoder of the mappings and the metric catalogue, as a gateway's.
    :param reader: makes the decoder of records of ``readings``, as a worker's.
    :param now_ms: the clock, milliseconds since the epoch.
    """

    skew_ms: int
    partitions: int
    max_rows: int
    now_ms: int
    decoder: Callable[[], BatchDecoder] = field(repr=False)
    reader: Callable[[], RecordDecoder] = field(repr=False)

    def release(self, held: Held, shift_ms: int = 0) -> Plan:
        """Put a quarantined reading back on an operator's word, its time moved by *shift_ms*.

        The release counts as its receipt. A time that is still ahead of now is refused: the
        watermark of the device would run ahead with it, and all that follows would be late.
        """
        return self._put_back(held, shift_ms, vouched=True)

    def drop(self, held: Held) -> Plan:
        """Leave a quarantined reading out for good."""
        return Plan(held)

    def redrive(self, held: Held) -> Plan:
        """Judge a held record again, as far as today's settings can change its verdict."""
        if held.topic == QUARANTINE:
            return self._put_back(held, 0, vouched=False)
        if held.is_cut:
            kept, whole = len(held.value), held.length
            return Plan(
                held,
                why_not=f"only the first {kept:,} of {whole:,} bytes were kept "
                "(gateway.max_rejected_bytes): it cannot be sent again",
            )
        kind, _, place = held.source.partition(":")
        if kind == "mqtt":
            return self._decode_again(held, place)
        topic = place.partition("/")[0]
        if topic != READINGS:
            return Plan(held, why_not=f"it was refused on {topic}, which is not read again")
        if names_a_reading(held.source):
            return self._put_back(held, 0, vouched=False)
        return self._read_again(held)

    def _put_back(self, held: Held, shift_ms: int, *, vouched: bool) -> Plan:
        try:
            one = frames.decode(held.value)
        except DecodeError as error:
            return Plan(held, why_not=str(error))
        received_ms = max(self.now_ms, int(one.received_ms.max())) if vouched else None
        moved = _unnumbered(one, shift_ms, received_ms)
        why_not = self._implausible(moved)
        if not vouched and held.topic == QUARANTINE and held.reason != _CLOCK_AHEAD:
            why_not = "no setting changes that; headwater quarantine release puts it back"
        if why_not:
            return Plan(held, why_not=why_not)
        return self._plan(held, moved)

    def _implausible(self, one: Readings) -> str:
        t_ms, received_ms = int(one.t_ms.max()), int(one.received_ms.max())
        if not 0 <= int(one.t_ms.min()) <= t_ms < TIME_LIMIT_MS:
            return f"its time is {t_ms}; expected milliseconds since 1970 below {TIME_LIMIT_MS}"
        is_number = np.isfinite(one.value)
        is_number[list(one.text)] = True
        if not is_number.all():
            return f"its value is {one.value[0]}; expected a finite number"
        ahead_ms = t_ms - received_ms
        if ahead_ms > self.skew_ms:
            ahead = timedelta(seconds=ahead_ms // 1000)
            return (
                f"its time is {ahead} ahead of its receipt, devices.skew_ms allows "
                f"{self.skew_ms / 1000:g} s; headwater quarantine release --shift-ms corrects it"
            )
        return ""

    def _decode_again(self, held: Held, topic: str) -> Plan:
        decoded = self.decoder().decode([Message(topic, held.value, held.received_ms)])
        if decoded.refused:
            refused = decoded.refused[0]
            return Plan(held, why_not=f"{refused.reason}: {refused.detail}")
        if not len(decoded.readings):
            return Plan(held, why_not="it has no readings: its topic belongs to another process")
        return self._plan(held, decoded.readings)

    def _read_again(self, held: Held) -> Plan:
        """A record that some producer wrote into ``readings``, read as the worker reads it."""
        owner = held.headers.get("hw-tenant"), held.device
        key = "/".join(map(str, owner)).encode() if all(owner) else None
        site = held.headers.get("hw-site")
        headers = [(SITE, site.encode())] if site else []
        record = Record(0, held.received_ms, key, held.value, headers)
        decoded = self.reader().decode([record])
        if decoded.refused:
            return Plan(held, why_not=str(decoded.refused[0].error))
        return self._plan(held, decoded.readings)

    def _plan(self, held: Held, readings: Readings) -> Plan:
        records = [
            replace(record, headers={**record.headers, **_mark(held, number)})
            for number, record in enumerate(frame_records(readings, self.partitions, self.max_rows))
        ]
        return Plan(held, records, readings=len(readings))


def reading_of(held: Held) -> dict[str, object]:
    """Return metric, time and value of a held reading; empty where it is none."""
    if held.topic not in (LATE, QUARANTINE):
        return {}
    try:
        one = frames.decode(held.value)
    except DecodeError:
        return {}
    value = one.exact_int.get(0, one.text.get(0, float(one.value[0])))
    return {"metric": one.metric[0], "t_ms": int(one.t_ms[0]), "value": value}


def _unnumbered(readings: Readings, shift_ms: int, received_ms: int | None) -> Readings:
    absent = np.full(len(readings), ABSENT, np.int64)
    received = readings.received_ms
    return replace(
        readings,
        t_ms=readings.t_ms + shift_ms,
        received_ms=received if received_ms is None else np.full_like(received, received_ms),
        quality=(readings.quality | _UNNUMBERED).astype(np.uint8),
        boot=absent,
        seq=absent,
    )


def _mark(held: Held, number: int) -> dict[str, bytes]:
    return {REDRIVEN_HEADER: f"{held.identity}#{number}".encode(errors="replace")}
