"""One lane on disk: segments of records, and which of them are confirmed.

A segment ``NUMBER.seg`` is only appended to; the places (offsets) of its confirmed records are
appended to ``NUMBER.ack``. That file is not flushed for every entry: what a power cut takes from it
is sent once more, and dropped as a duplicate. A segment whose records are all done is removed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edge.spool.disk import Disk
from edge.spool.plan import LaneSpec, SegmentFacts
from edge.spool.records import Damage, Record, encode, scan

THIN = 1
"""Flag of records that were thinned."""
_PLACE = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored record and where it lies."""

    lane: str
    segment: int
    place: int
    record: Record


@dataclass(slots=True)
class _Segment:
    number: int
    size: int = 0
    records: int = 0
    rows: int = 0
    """Of the records that are not done."""
    oldest_ms: int = 0
    newest_ms: int = 0
    done: set[int] = field(default_factory=set)
    claimed: set[int] = field(default_factory=set)
    active: bool = False
    thin: bool = False

    @property
    def waiting(self) -> int:
        return self.records - len(self.done) - len(self.claimed)

    def note(self, record: Record) -> None:
        self.oldest_ms = min(self.oldest_ms, record.oldest_ms) if self.records else record.oldest_ms
        self.newest_ms = max(self.newest_ms, record.written_ms)
        self.records += 1
        self.rows += record.rows
        self.size += record.size
        self.thin |= bool(record.flags & THIN)

    def facts(self) -> SegmentFacts:
        return SegmentFacts(
            self.number,
            self.size,
            self.waiting,
            len(self.claimed),
            self.newest_ms,
            self.active,
            self.thin,
        )


class Lane:
    """The segments of one lane. Used from one thread."""

    def __init__(self, disk: Disk, spec: LaneSpec, first_number: int, segment_bytes: int) -> None:
        """Read all segments that are there.

        :param first_number: of the next segment; greater than that of any before.
        :raises OSError: if the folder cannot be read.
        """
        self.spec = spec
        self.damage: list[tuple[int, Damage]] = []
        """(segment, what is not whole in it): to be entered in the ledger, then forgotten."""
        self._disk = disk
        self._next = first_number
        self._segment_bytes = segment_bytes
        self._segments: dict[int, _Segment] = {}
        self._read: tuple[int, list[Entry]] = (-1, [])
        """The segment that is being sent, parsed."""
        self.size = 0
        disk.make_folder(spec.name)
        for name in disk.names(spec.name):
            if name.endswith(".seg"):
                self._load(int(name.removesuffix(".seg")))

    # -- what is there ------------------------------------------------------------------------

    def facts(self) -> list[SegmentFacts]:
        """Return what a plan needs to know, the oldest segment first."""
        return [segment.facts() for segment in self._segments.values()]

    @property
    def records(self) -> int:
        """Records that are not done."""
        return sum(s.records - len(s.done) for s in self._segments.values())

    @property
    def rows(self) -> int:
        """Rows of them."""
        return sum(s.rows for s in self._segments.values())

    @property
    def oldest_ms(self) -> int | None:
        """The earliest receipt among segments with records that are not done."""
        return min((s.oldest_ms for s in self._segments.values()), default=None)

    def waiting(self, number: int) -> list[Entry]:
        """Return the records of a segment that are neither done nor claimed."""
        segment = self._segments[number]
        busy = segment.done | segment.claimed
        return [entry for entry in self._entries(number) if entry.place not in busy]

    def has(self, number: int) -> bool:
        """Whether there is such a segment."""
        return number in self._segments

    # -- in -----------------------------------------------------------------------------------

    def append(self, records: Sequence[Record], *, claim: bool) -> list[Entry]:
        """Store records: on disk when this returns.

        :param claim: whether whoever calls takes them on at once.
        :raises OSError: if it could not be written; then nothing of it is stored.
        """
        segment = self._active()
        place, entries = segment.size, []
        parts = []
        for record in records:
            entries.append(Entry(self.spec.name, segment.number, place, record))
            parts.append(encode(record))
            place += record.size
        self._disk.append(self._name(segment.number), b"".join(parts))
        for entry in entries:
            segment.note(entry.record)
            self.size += entry.record.size
            if claim:
                segment.claimed.add(entry.place)
        return entries

    def seal(self) -> None:
        """Write no more to the segment that is written to."""
        for segment in self._segments.values():
            if segment.active:
                segment.active = False
                self._disk.close(self._name(segment.number))

    # -- out ----------------------------------------------------------------------------------

    def claim(self, max_rows: int, max_bytes: int) -> list[Entry]:
        """Take on the oldest waiting records, at least one if there is one."""
        taken: list[Entry] = []
        rows = size = 0
        for segment in list(self._segments.values()):
            if not segment.waiting:
                continue
            if segment.active:
                self.seal()
            for entry in self.waiting(segment.number):
                rows += entry.record.rows
                size += entry.record.size
                if taken and (rows > max_rows or size > max_bytes):
                    return taken
                segment.claimed.add(entry.place)
                taken.append(entry)
        return taken

    def release(self, entries: Iterable[Entry]) -> None:
        """Give claimed records back: they wait again."""
        for entry in entries:
            segment = self._segments.get(entry.segment)
            if segment is not None:
                segment.claimed.discard(entry.place)

    def confirm(self, entries: Iterable[Entry], *, sync: bool = False) -> None:
        """Note that records are done; remove segments of which all are.

        :raises OSError: if that could not be written.
        """
        places: dict[int, list[int]] = {}
        for entry in entries:
            segment = self._segments.get(entry.segment)
            if segment is None or entry.place in segment.done:
                continue
            segment.done.add(entry.place)
            segment.claimed.discard(entry.place)
            segment.rows -= entry.record.rows
            places.setdefault(entry.segment, []).append(entry.place)
        for number, done in places.items():
            segment = self._segments[number]
            if len(segment.done) == segment.records and not segment.active:
                self.remove(number)
            elif len(segment.done) == segment.records and segment.size >= self._segment_bytes:
                self.seal()
                self.remove(number)
            else:
                data = b"".join(map(_PLACE.pack, done))
                self._disk.append(self._ack_name(number), data, sync=sync)

    def remove(self, number: int) -> None:
        """Remove a segment with all that is in it, durably."""
        segment = self._segments.pop(number)
        self.size -= segment.size
        if self._read[0] == number:
            self._read = (-1, [])
        self._disk.remove(self._name(number), self._ack_name(number))

    def forget(self, number: int, places: Sequence[tuple[int, int]]) -> None:
        """Note that the records in half-open ranges of a segment are gone, if it is still there."""
        if number not in self._segments:
            return
        gone = [
            entry
            for entry in self._entries(number)
            if any(begin <= entry.place < end for begin, end in places)
        ]
        self.confirm(gone, sync=True)
        left = self._segments.get(number)
        if left is not None and not left.records:
            self.remove(number)

    def stage(self, number: int, records: Sequence[Record]) -> None:
        """Write what :meth:`swap` puts in the place of a segment.

        :raises OSError: if there is no room for it.
        """
        self._disk.stage(self._name(number), b"".join(map(encode, records)))

    def swap(self, number: int, records: Sequence[Record]) -> None:
        """Put the records that were staged in the place of those of a segment, durably."""
        # Places of before mean nothing in what comes after.
        self._disk.remove(self._ack_name(number))
        self._disk.swap(self._name(number))
        segment = _Segment(number)
        for record in records:
            segment.note(record)
        self.size += segment.size - self._segments[number].size
        self._segments[number] = segment
        self._read = (-1, [])
        if not segment.records:
            self.remove(number)

    def add_segment(self, records: Sequence[Record]) -> int:
        """Store records as a segment of their own, as a whole or not at all; return its number.

        :raises OSError: if there is no room for it.
        """
        self.stage(self._next, records)
        number, self._next = self._next, self._next + 1
        self._segments[number] = _Segment(number)
        self.swap(number, records)
        return number

    # -----------------------------------------------------------------------------------------

    def _active(self) -> _Segment:
        last = next(reversed(self._segments.values()), None)
        if last is not None and last.active and last.size < self._segment_bytes:
            return last
        self.seal()
        if last is not None and len(last.done) == last.records and last.records:
            self.remove(last.number)
        number, self._next = self._next, self._next + 1
        self._segments[number] = _Segment(number, active=True)
        return self._segments[number]

    def _entries(self, number: int) -> list[Entry]:
        if self._read[0] != number or self._segments[number].active:
            found = scan(self._disk.read(self._name(number))).records
            self._read = (number, [Entry(self.spec.name, number, at, r) for at, r in found])
        return self._read[1]

    def _load(self, number: int) -> None:
        found = scan(self._disk.read(self._name(number)))
        segment = self._segments[number] = _Segment(number)
        rows = {}
        for place, record in found.records:
            segment.note(record)
            rows[place] = record.rows
        # What is damaged takes room, too, until it has gone.
        segment.size += sum(damage.size for damage in found.damage)
        self.size += segment.size
        self.damage += [(number, damage) for damage in found.damage]
        for place in self._confirmed(number):
            if place in rows and place not in segment.done:
                segment.done.add(place)
                segment.rows -= rows[place]
        if not found.damage and len(segment.done) == segment.records:
            self.remove(number)

    def _confirmed(self, number: int) -> list[int]:
        if f"{number:016d}.ack" not in self._disk.names(self.spec.name):
            return []
        data = self._disk.read(self._ack_name(number))
        whole = len(data) - len(data) % _PLACE.size
        return [place for (place,) in _PLACE.iter_unpack(data[:whole])]

    def _name(self, number: int) -> str:
        return f"{self.spec.name}/{number:016d}.seg"

    def _ack_name(self, number: int) -> str:
        return f"{self.spec.name}/{number:016d}.ack"
