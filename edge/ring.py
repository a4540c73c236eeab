"""The ring: raw readings that stay at the site for their retention, in segments as of the spool.

Nothing of it goes up by itself, and what leaves it at its bounds is no loss: what was to go up is
in the spool's lane of readings.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

import orjson
from prometheus_client import Counter

from edge.errors import SpoolError, SpoolFullError
from edge.spool.disk import Disk
from edge.spool.lane import Entry, Lane
from edge.spool.plan import LaneSpec, WhenFull, make_room
from edge.spool.records import Record
from edge.spool.spool import LaneStatus
from streams.log import get_logger

_log = get_logger(__name__)
RING = "ring"
_DONE = "backfills.json"
_MAX_DONE = 256
_DAMAGED = Counter("headwater_edge_ring_damaged_bytes", "Bytes of the ring that are no record.")
_OVERWRITTEN = Counter(
    "headwater_edge_ring_overwritten_readings", "Raw readings that left the ring before their time."
)


class Ring:
    """Segments of raw readings on one disk. Used from one thread."""

    def __init__(
        self, disk: Disk, *, max_bytes: int, retention_ms: int, life: int, segment_bytes: int
    ) -> None:
        """Open the ring, or make it.

        :param life: of the spool: segments are numbered above those of every life before.
        :raises SpoolError: if it cannot be used.
        """
        self._disk = disk
        spec = LaneSpec(RING, 0, max_bytes, retention_ms, WhenFull.DROP_OLDEST)
        try:
            self._lane = Lane(disk, spec, life << 32, segment_bytes)
        except (OSError, ValueError) as error:
            raise SpoolError(f"{disk}: the ring cannot be opened: {error}") from error
        for segment, damage in self._lane.damage:
            _DAMAGED.inc(damage.size)
            _log.warning("the ring is damaged", segment=segment, bytes=damage.size)
        self._lane.damage = []

    def append(self, record: Record) -> Entry:
        """Store a record: on disk when this returns; the oldest segment goes if there is no room.

        :returns: the record, and where it lies.
        :raises SpoolFullError: if the disk is full and nothing more can go.
        :raises SpoolError: if the disk fails.
        """
        try:
            self._make_room(record.size)
            while (entry := self._written(record)) is None:
                if not self._overwrite():
                    raise SpoolFullError(f"{self._disk}: the disk is full")
        except OSError as error:
            raise SpoolError(f"{self._disk}: cannot be written: {error}") from error
        return entry

    def expire(self, now_ms: int) -> None:
        """Remove segments of which all is older than the retention.

        :param now_ms: of the clock that stamped the records.
        :raises SpoolError: if they cannot be removed.
        """
        oldest_ms = now_ms - self._lane.spec.expiry_ms
        try:
            for facts in self._lane.facts():
                if facts.waiting and facts.newest_ms < oldest_ms:
                    self._lane.seal()
                    self._lane.remove(facts.number)
        except OSError as error:
            raise SpoolError(f"{self._disk}: cannot be removed: {error}") from error

    def segments(self) -> list[int]:
        """Return the numbers of what is there, the oldest first."""
        return [facts.number for facts in self._lane.facts() if facts.waiting]

    def records(self, segment: int) -> list[Record]:
        """Return the records of a segment; none if it has gone.

        :raises SpoolError: if it cannot be read.
        """
        return [entry.record for entry in self.entries(segment)]

    def entries(self, segment: int) -> list[Entry]:
        """Return the records of a segment and where they lie; none if it has gone.

        :raises SpoolError: if it cannot be read.
        """
        if not self._lane.has(segment):
            return []
        try:
            return self._lane.waiting(segment)
        except OSError as error:
            raise SpoolError(f"{self._disk}: cannot be read: {error}") from error

    def newest_first(self, span_ms: int) -> Iterator[Record]:
        """Give the records that were written within *span_ms* of the last one, backwards.

        :raises SpoolError: if they cannot be read.
        """
        newest_ms = max((facts.newest_ms for facts in self._lane.facts()), default=0)
        for segment in reversed(self.segments()):
            for record in reversed(self.records(segment)):
                if record.written_ms < newest_ms - span_ms:
                    return
                yield record

    def done(self) -> list[str]:
        """Return the ids of the last requests that were answered.

        :raises SpoolError: if they cannot be read.
        """
        try:
            if _DONE not in self._disk.names("."):
                return []
            return [str(one) for one in orjson.loads(self._disk.read(_DONE))]
        except (OSError, ValueError) as error:
            raise SpoolError(f"{self._disk}/{_DONE}: cannot be read: {error}") from error

    def note_done(self, request: str) -> None:
        """Remember a request that was answered, durably, with the last 256 of them.

        :raises SpoolError: if it cannot be written.
        """
        ids = [*self.done(), request][-_MAX_DONE:]
        try:
            self._disk.replace(_DONE, orjson.dumps(ids))
        except OSError as error:
            raise SpoolError(f"{self._disk}/{_DONE}: cannot be written: {error}") from error

    @property
    def status(self) -> LaneStatus:
        """What lies in it."""
        lane = self._lane
        return LaneStatus(
            RING, lane.records, lane.rows, lane.size, lane.spec.max_bytes, lane.oldest_ms
        )

    def close(self) -> None:
        """Close all files."""
        self._disk.close_all()

    def _written(self, record: Record) -> Entry | None:
        try:
            (entry,) = self._lane.append([record], claim=False)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return None
        return entry

    def _make_room(self, incoming_bytes: int) -> None:
        room = make_room(self._lane.facts(), self._lane.spec, incoming_bytes)
        self._remove(room.give_up)

    def _overwrite(self) -> bool:
        """Remove the oldest segment, but not the newest: a start looks there for what waited."""
        oldest = self.segments()[:-1][:1]
        self._remove(oldest)
        return bool(oldest)

    def _remove(self, segments: Sequence[int]) -> None:
        for number in segments:
            rows = sum(record.rows for record in self.records(number))
            _OVERWRITTEN.inc(rows)
            self._lane.remove(number)
