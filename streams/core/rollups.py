"""Roll-ups: results of a group's members become one result of the group, and stay right.

Theory of operation. Parts (a group's members, or what each partition has made of its own) come
in log order. For every window the greatest rank of each part is kept. A change puts off the
group's result until nothing has changed for a quiet delay of log time; then the parts are
combined in their order. So a correction of a member is a correction of the group, a member that
changes its group is taken out of the old one, and the same log gives the same bits.

The same fold is used twice: over the devices of one partition, and over the partitions.

State lies in pieces: cells by their start, known members by a hash. Pieces may be stored at
different offsets: each skips what it has seen. What is told depends on several pieces, so
whoever replays must not repeat what was told up to the newest stamp (it was acknowledged before
any of these pieces was stored).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from streams.core.readings import Int32, Int64, Labels
from streams.core.registry import NEVER
from streams.core.results import RollupResults
from streams.core.rollup_cells import PATIENCE, Cells, Refusals
from streams.core.rollup_members import SHARDS, Members, Names, Owner, Track
from streams.core.rollup_parts import VALUES, Parts, Placed, combine

PIECES = 32
"""Cells are stored in so many pieces, placed by the start of their window."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_TOP_BITS = np.uint64(59)
_CELLS, _MEMBERS = "cells", "members"
NO_GROUP = ""
"""Of parts that are in no group: kept, as they may come into one, and not told."""
GroupOf = Callable[[str, str, str], str]
"""The group of a part, by its tenant, its site and its name."""


@dataclass(frozen=True, slots=True)
class RollupRules:
    """How one definition is folded.

    ``quiet_ms`` and ``keep_ms`` are log time; ``keep_ms`` tells per window definition how long
    after its last change a window can still be corrected. ``max_members`` bounds the parts of
    one window of a group, ``max_results`` the results of parts in one piece.
    """

    name: str
    source: str
    quiet_ms: int
    keep_ms: Mapping[str, int]
    max_members: int
    max_results: int


class Rollup:
    """One definition over the parts of one partition; see the module's docstring."""

    def __init__(self, rules: RollupRules) -> None:
        self.rules = rules
        self.said = Refusals()
        self.evicted = 0
        """Windows that were given up early because ``max_results`` was met."""
        self._owners: Names[Owner] = Names()
        self._tracks: Names[Track] = Names()
        self._sites = Names("")
        names = self._owners, self._tracks, self._sites
        self._members = Members(*names)
        self._cells = [
            Cells(*names, quiet_ms=rules.quiet_ms, max_members=rules.max_members)
            for _ in range(PIECES)
        ]
        self._now_ms = 0

    def take(self, parts: Parts, now_ms: int, offset: int) -> list[RollupResults]:
        """Take the parts of one record.

        :param now_ms: running maximum of the log time, to which :meth:`advance` was called.
        :returns: what had to be told early, because a piece is full.
        """
        placed = Placed(
            parts,
            _interned(self._owners, parts.tenant, parts.part, parts.metric, parts.window),
            _interned(self._tracks, parts.tenant, parts.group, parts.metric, parts.window),
            np.asarray([self._sites.intern(s) for s in parts.site.values], np.int32)[
                parts.site.codes
            ],
            self._keep_ms(parts.window),
        )
        self._members.see(placed, now_ms, offset)
        piece = _piece_of(parts.start_ms)
        out = []
        for number in np.unique(piece).tolist():
            cells, rows = self._cells[number], np.flatnonzero(piece == number)
            if offset > cells.stamp and cells.take(placed.take(rows), now_ms, self.said):
                cells.dirty_since = min(cells.dirty_since, offset)
                out += self._keep_bound(cells)
        return out

    def advance(self, now_ms: int, offset: int) -> list[RollupResults]:
        """Let log time pass: tell what has come to rest, forget what is beyond its time.

        :param offset: the record that brought this time; it is not taken yet.
        """
        self._now_ms = now_ms
        out = []
        for cells in self._cells:
            if now_ms <= cells.next_ms:
                continue
            due = cells.due(now_ms)
            out += self._tell(cells, due)
            gone = cells.expired(now_ms)
            if gone.any():
                cells.drop(gone)
            if len(due) or gone.any():
                cells.dirty_since = min(cells.dirty_since, offset)
            cells.plan()
        return out

    def regroup(self, group_of: GroupOf, now_ms: int, offset: int) -> None:
        """Let parts be in other groups from the record at *offset* on.

        What is held of them leaves the old group and comes into the new one, window by window: as
        if each had been corrected. :meth:`advance` was called with this time before.
        """

        def track_of(owner: Owner, site: str) -> int:
            tenant, part, metric, window = owner
            return self._tracks.intern((tenant, group_of(tenant, site, part), metric, window))

        for cells in self._cells:
            if offset > cells.stamp and cells.regroup(track_of, now_ms, self.said):
                cells.dirty_since = min(cells.dirty_since, offset)
        self._members.regroup(track_of, offset)

    def waits(self) -> bool:
        """Whether something is to be told once enough time has passed."""
        return any(cells.waiting() for cells in self._cells)

    def held(self) -> int:
        """Return how many results of parts are kept."""
        return sum(cells.rows.n for cells in self._cells)

    # -- state --------------------------------------------------------------------------

    def dirty(self) -> dict[str, int]:
        """Return the pieces that changed since their last snapshot, with the first offset."""
        dirty = {f"{_CELLS}-{i}": cells.dirty_since for i, cells in enumerate(self._cells)}
        since = self._members.dirty_since.tolist()
        dirty |= {f"{_MEMBERS}-{i}": at for i, at in enumerate(since)}
        return {key: at for key, at in dirty.items() if at != NEVER}

    def snapshot(self, key: str) -> dict[str, Any]:
        """Return a piece and mark it clean."""
        kind, _, number = key.partition("-")
        if kind == _CELLS:
            return self._cells[int(number)].snapshot()
        return self._members.snapshot(int(number), self._now_ms)

    def restore(self, key: str, stamp: int, state: dict[str, Any]) -> None:
        """Load a piece as of offset *stamp*.

        :raises ValueError: if there is no such piece.
        """
        kind, _, number = key.partition("-")
        bounds = {_CELLS: PIECES, _MEMBERS: SHARDS}
        if not number.isdigit() or int(number) >= bounds.get(kind, 0):
            raise ValueError(f"stored state has a piece {key!r}, which this version does not know")
        if kind == _CELLS:
            self._cells[int(number)].restore(stamp, state)
        else:
            self._members.restore(int(number), stamp, state)

    # -- results ------------------------------------------------------------------------

    def _tell(self, cells: Cells, due: Int64) -> list[RollupResults]:
        if not len(due):
            return []
        at_ms = cells.told(due)
        line = cells.cells["track"][due].tolist()
        grouped = np.asarray([self._tracks.of[t][1] != NO_GROUP for t in line], np.bool_)
        due, at_ms = due[grouped], at_ms[grouped]
        if not len(due):
            return []
        rows, of = cells.rows_of(due)
        parts = {name: cells.rows[name][rows] for name in VALUES}
        found = combine(of, len(due), parts)
        edges = np.searchsorted(of, np.arange(len(due) + 1))
        owner = cells.rows["owner"][rows]
        present = [owner[a:b] for a, b in pairwise(edges)]
        c = cells.cells
        track, start_ms = c["track"][due], c["start_ms"][due]
        found["missing"] += self._members.missing(track, start_ms, at_ms, present)
        found["rank"] = found.pop("revision") + c["retired"][due]
        names = [self._tracks.of[t] for t in track.tolist()]
        tenant, group, metric, window = (Labels.of(column) for column in zip(*names, strict=True))
        n = len(due)
        reason = [
            "retracted" if not count else "provisional" if provisional else "closed"
            for count, provisional in zip(
                found["count"].tolist(), found["provisional"].tolist(), strict=True
            )
        ]
        return [
            RollupResults(
                tenant=tenant,
                rollup=Labels.constant(self.rules.name, n),
                group=group,
                metric=metric,
                window=window,
                source=Labels.constant(self.rules.source, n),
                reason=Labels.of(reason),
                start_ms=start_ms,
                end_ms=c["end_ms"][due],
                **found,
            )
        ]

    def _keep_bound(self, cells: Cells) -> list[RollupResults]:
        """Give up the windows that have not changed for longest; what waits is told before.

        Counted per piece: pieces may be restored as of different offsets, so that what all of
        them hold together is not the same in a replay.
        """
        out: list[RollupResults] = []
        while cells.rows.n > self.rules.max_results:
            changed = cells.cells["changed_ms"]
            gone = changed == changed.min()
            out += self._tell(cells, np.flatnonzero(gone & (cells.cells["since_ms"] != NEVER)))
            cells.drop(gone)
            cells.plan()
            self.evicted += int(gone.sum())
        return out

    def _keep_ms(self, window: Labels) -> Int64:
        least = (PATIENCE + 1) * self.rules.quiet_ms
        keep = [max(least, self.rules.keep_ms.get(name, 0)) for name in window.values]
        return np.asarray(keep, np.int64)[window.codes]


def _piece_of(start_ms: Int64) -> Int64:
    """Spread starts over the pieces by Fibonacci hashing: whatever the step, they fill evenly."""
    return ((start_ms.astype(np.uint64) * _GOLDEN) >> _TOP_BITS).astype(np.int64)


def _interned(names: Names[tuple[str, str, str, str]], *columns: Labels) -> Int32:
    """Return the integer of each row's tuple of names."""
    found = zip(*(column.to_list() for column in columns), strict=True)
    return np.asarray([names.intern(name) for name in found], np.int32)
