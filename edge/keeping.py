"""Where readings go in one write: what is to go up into the spool, the raw ones into the ring.

Both are on disk when :meth:`Keeping.keep` returns. The spool comes first: a crash between the two
sends more than the ring knows of, never less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge import contents
from edge.commit import READINGS_LANE
from edge.errors import SpoolError
from edge.filters import Filters, Offered, newest_of, released, sent_of, unsent_of
from edge.ring import Ring
from edge.spool.lane import Entry
from edge.spool.records import Record
from edge.spool.spool import LOSSES, LaneStatus, Spool
from edge.tally import Tallies
from streams.core.readings import Readings, concat_readings

_UNTOLD = 2
"""Segments of a life that was ended whose tallies may not be told."""
_SLACK_MS = 60_000
"""How much longer than its gap a reading waits at most, before it is flushed."""


_MANY = 128
"""Entries of the ledger, of some 30 kB at most, a quarter of its lane."""


def tallies_wait(spool: Spool) -> bool:
    """Return whether so much waits in the ledger that the rest of its room is for losses.

    What a tally says is said by a later one of the same, too.
    """
    return any(lane.name == LOSSES and lane.rows > _MANY for lane in spool.status)


class Keeping:
    """Stores readings, filtered. Belongs to the thread of the spool."""

    def __init__(
        self,
        wall_ms: Callable[[], int],
        running_ms: Callable[[], int],
        filters: Filters | None = None,
        ring: Ring | None = None,
        *,
        tell_ms: int = 60_000,
    ) -> None:
        """Make one; without filters and a ring everything goes up.

        :param running_ms: stamps records, for their expiry; see :mod:`edge.running_time`.
        :param tell_ms: how often the ledger is told how much was filtered.
        """
        assert (filters is None) == (ring is None)
        self._wall_ms, self._running_ms = wall_ms, running_ms
        self.filters, self.ring = filters, ring
        self._tallies, self._tell_ms, self._told_ms = Tallies(), tell_ms, running_ms()
        self.windowed: Callable[[Entry, Readings], None] = _nobody
        """Is told what was put into the ring, in order: rows as in :mod:`edge.filters`."""
        self.filtered = 0
        """Readings of this life that stay in the ring, or wait to be sent after all."""
        self.sent = 0
        """Readings of filtered devices that went up in this life."""

    def keep(self, readings: Readings, spool: Spool) -> list[Entry]:
        """Store readings durably; return what is to go up, claimed.

        :raises SpoolError: if they are not stored: they may be sent again, as if never offered.
        """
        offered = Offered(readings) if self.filters is None else self.filters.offer(readings)
        return self._store(offered, spool, claim=True)

    def release(self, readings: Readings, spool: Spool) -> list[Entry]:
        """Store readings that lie in the ring and go up after all; return them, claimed.

        :raises SpoolError: if they are not stored.
        """
        return self._store(released(readings), spool, claim=True)

    def flush(self, spool: Spool, *, everything: bool = False) -> list[Entry]:
        """Store what has waited in the filters for too long, as :meth:`keep`.

        :param everything: at a stop: all that waits; nobody takes the entries on.
        :raises SpoolError: if it is not stored; it waits on.
        """
        now_ms = self._wall_ms()
        if self.filters is None:
            return []
        offered = self.filters.flush(lambda gap_ms: 1 << 62 if everything else now_ms - gap_ms)
        return [] if offered is None else self._store(offered, spool, claim=not everything)

    def keep_house(self, spool: Spool) -> list[Entry]:
        """Let the ring forget what is too old, and tell the ledger; then as :meth:`flush`.

        :raises SpoolError: if the disk fails.
        """
        if self.ring is not None:
            self.ring.expire(self._running_ms())
        is_due = self._running_ms() - self._told_ms >= self._tell_ms
        # Only a segment that is written no more cannot be told of later.
        if is_due and (self._tallies.segments > 1 or not tallies_wait(spool)):
            self.tell(spool)
        return self.flush(spool)

    def tell(self, spool: Spool) -> None:
        """Tell the ledger how much of the newest segments went up, and how much was filtered.

        :raises SpoolError: if it cannot be written; it is told the next time.
        """
        now_ms, self._told_ms = self._wall_ms(), self._running_ms()
        said = [Record(one.encode(), 1, now_ms, now_ms) for one in self._tallies.untold(now_ms)]
        if said:
            spool.append(LOSSES, said, now_ms)
        self._tallies.told()

    @property
    def status(self) -> LaneStatus | None:
        """What lies in the ring; None if there is none."""
        return None if self.ring is None else self.ring.status

    @property
    def series(self) -> int:
        """How many series are filtered."""
        return 0 if self.filters is None else self.filters.series

    def filters_of(self, device: str) -> list[dict[str, Any]]:
        """Return how the series of a device are filtered."""
        return [] if self.filters is None else self.filters.of_device(device)

    def close(self) -> None:
        """Close the files of the ring."""
        if self.ring is not None:
            self.ring.close()

    def recover(self, spool: Spool, max_gap_ms: int) -> int:
        """Send what perhaps waited in the filters of a life that was ended; return how many.

        That is the last reading of each series of the ring, unless it went up. At most one a series
        goes up twice, and is recognised by its time.

        :raises SpoolError: if the disk fails.
        """
        if self.ring is None or self.filters is None:
            return 0
        for segment in self.ring.segments()[-_UNTOLD:]:
            for record in self.ring.records(segment):
                self._tallies.count(segment, contents.unpack(record.payload))
        newest: dict[tuple[str, str], tuple[int, Readings | None]] = {}
        for record in self.ring.newest_first(max_gap_ms + _SLACK_MS):
            for series, t_ms, row in newest_of(contents.unpack(record.payload)):
                spec = self.filters.first(*series)
                if spec is not None and spec.is_windowed:
                    continue
                known = newest.get(series)
                if known is None or t_ms > known[0] or (t_ms == known[0] and row is None):
                    newest[series] = t_ms, row
        waited = [row for _, row in newest.values() if row is not None]
        if waited:
            self._store(released(concat_readings(waited)), spool, claim=False)
        # At once: the next life counts only so many segments, too.
        self.tell(spool)
        return len(waited)

    def _store(self, offered: Offered, spool: Spool, *, claim: bool) -> list[Entry]:
        written_ms = self._running_ms()
        entries: list[Entry] = []
        try:
            if len(offered.up):
                record = _record(offered.up, written_ms)
                entries = spool.append(READINGS_LANE, [record], self._wall_ms(), claim=claim)
            if self.ring is not None and offered.ring is not None:
                entry = self.ring.append(_record(offered.ring, written_ms))
                self._tallies.count(entry.segment, offered.ring)
                self.windowed(entry, offered.ring)
        except SpoolError:
            if claim:
                spool.release(entries)
            if self.filters is not None:
                self.filters.undo(offered)
            raise
        if offered.ring is not None:
            self.filtered += unsent_of(offered.ring)
            self.sent += sent_of(offered.ring)
        return entries


def _record(readings: Readings, written_ms: int) -> Record:
    oldest_ms = int(readings.received_ms.min())
    return Record(contents.pack(readings), len(readings), oldest_ms, written_ms)


def _nobody(_entry: Entry, _ring: Readings) -> None:
    return None
