"""Windows of groups: one *cell* per (group, metric, window, start), one *row* per part in it.

A row holds the greatest rank of its part and lies in the cell of the part's group. When that
changes the row moves, and the old cell counts what it has lost, so that the revision of a
cell, the sum of its rows' revisions and of what left it, grows with every change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.columns import Columns
from streams.core.readings import Int64
from streams.core.registry import NEVER
from streams.core.results import EDGE_FIRST
from streams.core.rollup_members import Names, Owner, Track, TrackOf
from streams.core.rollup_parts import VALUES, Placed

PATIENCE = 5
"""A cell that does not come to rest is told after so many quiet delays."""
_LEFT = _NEW = -1
_EARLIEST = -(1 << 62)

_CELL: dict[str, tuple[Any, Any]] = {
    "track": (np.int32, 0),
    "start_ms": (np.int64, 0),
    "end_ms": (np.int64, 0),
    "keep_ms": (np.int64, 0),
    "parts": (np.int64, 0),
    "retired": (np.int64, 0),
    "since_ms": (np.int64, NEVER),
    "changed_ms": (np.int64, 0),
}
"""``parts`` counts the rows, ``retired`` is the revision of rows that left; ``since_ms`` is the
log time of the first change that was not told (NEVER: none), ``changed_ms`` of the last."""
_ROW: dict[str, tuple[Any, Any]] = {
    "owner": (np.int32, 0),
    "site": (np.int32, 0),
    "start_ms": (np.int64, 0),
    "cell": (np.int32, _LEFT),
    **VALUES,
}


class _Held(NamedTuple):
    """What a row holds, as far as a new result is judged by it."""

    rank: int
    readings: int
    cell: int
    revision: int


_NOTHING = _Held(-(1 << 62), 0, _LEFT, 0)


@dataclass(slots=True)
class Refusals:
    """Results that were not taken: their group's window is gone, or it has too many members."""

    late: int = 0
    over_limit: int = 0


class Cells:
    """The cells of some starts; a piece of state of its own."""

    def __init__(
        self,
        owners: Names[Owner],
        tracks: Names[Track],
        sites: Names[str],
        *,
        quiet_ms: int,
        max_members: int,
    ) -> None:
        self._owners = owners
        self._tracks = tracks
        self._sites = sites
        self._quiet_ms = quiet_ms
        self._max_members = max_members
        self.cells = Columns(_CELL)
        self.rows = Columns(_ROW)
        self._cell_of: dict[tuple[int, int], int] = {}
        self._row_of: dict[tuple[int, int], int] = {}
        self._frontier: dict[int, int] = {}
        """Track -> the greatest start that was dropped: what is older does not come back."""
        self.stamp = -1
        self.dirty_since = NEVER
        self.next_ms = NEVER
        """Until log time is beyond this, nothing is due and nothing expires."""

    def take(self, placed: Placed, now_ms: int, said: Refusals) -> bool:
        """Keep the greatest rank of each part; return whether anything changed."""
        parts, v = placed.parts, placed.parts.values
        held: dict[int, _Held] = {}
        source: dict[int, int] = {}
        touched: set[int] = set()
        columns = (placed.owner, parts.start_ms, v["rank"], v["count"], v["revision"])
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for i, (owner, start, rank, count, revision) in enumerate(rows):
            row = self._row_of.get((owner, start), _NEW)
            before = held.get(row) or self._held(row)
            if (rank, count) <= (before.rank, before.readings):
                continue
            cell = self._cell_for(placed, i, before, said)
            replaced = 0 <= before.rank < EDGE_FIRST <= rank
            if row == _NEW:
                if cell == _LEFT:
                    continue
                row = self._row_of[owner, start] = len(self._row_of)
            touched |= self._move(before, cell, is_retired=replaced)
            held[row], source[row] = _Held(rank, count, cell, revision), i
        if source:
            self._write(placed, source, [now.cell for now in held.values()])
            self._touch(np.asarray(sorted(touched), np.int64), now_ms)
        return bool(source)

    def regroup(self, track_of: TrackOf, now_ms: int, said: Refusals) -> bool:
        """Move rows to where they belong now; return whether any was moved."""
        touched: set[int] = set()
        for row in np.flatnonzero(self.rows["cell"] != _LEFT).tolist():
            before = self._held(row)
            owner = self._owners.of[self.rows["owner"][row]]
            track = track_of(owner, self._sites.of[self.rows["site"][row]])
            if track == self.cells["track"][before.cell]:
                continue
            of = (int(self.cells[name][before.cell]) for name in ("start_ms", "end_ms", "keep_ms"))
            cell = self._cell(track, *of)
            if cell == _LEFT:
                said.late += 1
            elif self.cells["parts"][cell] >= self._max_members:
                said.over_limit += 1
                cell = _LEFT
            touched |= self._move(before, cell)
            self.rows["cell"][row] = cell
        self._touch(np.asarray(sorted(touched), np.int64), now_ms)
        return bool(touched)

    def due(self, now_ms: int) -> Int64:
        """Return the cells that are to be told before *now_ms*."""
        return np.flatnonzero(self._due_ms() < now_ms)

    def told(self, cells: Int64) -> Int64:
        """Mark cells as told; return the log time at which each was due."""
        at = self._due_ms()[cells]
        self.cells["since_ms"][cells] = NEVER
        return at

    def rows_of(self, cells: Int64) -> tuple[Int64, Int64]:
        """Return the rows of some cells in order of cell and part, and each one's cell.

        :param cells: ascending; a row's cell is given as its place in it.
        """
        wanted = np.zeros(self.cells.n, np.bool_)
        wanted[cells] = True
        cell = self.rows["cell"]
        rows = np.flatnonzero((cell != _LEFT) & wanted[cell])
        names, owner = self._owners.of, self.rows["owner"]
        ordered = sorted(rows.tolist(), key=lambda r: (cell[r], names[owner[r]][1]))
        rows = np.asarray(ordered, np.int64)
        return rows, np.searchsorted(cells, cell[rows]).astype(np.int64)

    def waiting(self) -> bool:
        """Whether a cell is to be told."""
        return bool((self.cells["since_ms"] != NEVER).any())

    def expired(self, now_ms: int) -> NDArray[np.bool_]:
        """Return the cells that have not changed for as long as they are kept."""
        gone: NDArray[np.bool_] = self.cells["changed_ms"] + self.cells["keep_ms"] < now_ms
        return gone

    def drop(self, gone: NDArray[np.bool_]) -> None:
        """Forget cells with their rows; nothing of them, or older in their line, comes back."""
        dropped = zip(
            self.cells["track"][gone].tolist(), self.cells["start_ms"][gone].tolist(), strict=True
        )
        for track, start in dropped:
            self._frontier[track] = max(start, self._frontier.get(track, _EARLIEST))
        cell = self.rows["cell"]
        number = np.cumsum(~gone) - 1
        lost = (cell == _LEFT) | gone[cell]
        cell[~lost] = number[cell[~lost]]
        self.rows.keep(~lost)
        self.cells.keep(~gone)
        self._index()

    def plan(self) -> None:
        """Find out when something is due or expires next."""
        expiry = self.cells["changed_ms"] + self.cells["keep_ms"]
        dues = np.concatenate([self._due_ms(), expiry])
        self.next_ms = int(dues.min()) if len(dues) else NEVER

    def snapshot(self) -> dict[str, Any]:
        """Return the cells as plain arrays and names, and mark them clean."""
        self.dirty_since = NEVER
        cells = self.cells.select(np.arange(self.cells.n))
        rows = self.rows.select(np.arange(self.rows.n))
        frontier = np.asarray(list(self._frontier), np.int64)
        tracks, numbers = np.unique(
            np.concatenate([cells["track"].astype(np.int64), frontier]), return_inverse=True
        )
        owners, rows["owner"] = np.unique(rows["owner"], return_inverse=True)
        cells["track"], frontier = numbers[: self.cells.n], numbers[self.cells.n :]
        sites, rows["site"] = np.unique(rows["site"], return_inverse=True)
        return {
            "tracks": [list(self._tracks.of[t]) for t in tracks.tolist()],
            "owners": [list(self._owners.of[o]) for o in owners.tolist()],
            "sites": [self._sites.of[s] for s in sites.tolist()],
            "cells": cells,
            "rows": rows,
            "frontier": frontier,
            "frontier_ms": np.asarray(list(self._frontier.values()), np.int64),
        }

    def restore(self, stamp: int, state: dict[str, Any]) -> None:
        """Load a snapshot into empty cells."""
        tracks = np.asarray([self._tracks.intern(tuple(t)) for t in state["tracks"]], np.int64)
        owners = np.asarray([self._owners.intern(tuple(o)) for o in state["owners"]], np.int64)
        cells, rows = dict(state["cells"]), dict(state["rows"])
        cells["track"] = tracks[cells["track"]]
        rows["owner"] = owners[rows["owner"]]
        if "sites" in state:
            sites = np.asarray([self._sites.intern(s) for s in state["sites"]], np.int64)
            rows["site"] = sites[rows["site"]] if len(sites) else rows["site"]
        else:  # State of a version before, when no group went by it.
            rows["site"] = np.zeros(len(rows["owner"]), np.int64)
        self.cells.append(cells, len(cells["track"]))
        self.rows.append(rows, len(rows["owner"]))
        line = tracks[state["frontier"]].tolist()
        self._frontier = dict(zip(line, state["frontier_ms"].tolist(), strict=True))
        self._index()
        self.stamp = stamp
        self.plan()

    def _held(self, row: int) -> _Held:
        if row == _NEW:
            return _NOTHING
        columns = (self.rows[name] for name in ("rank", "count", "cell", "revision"))
        return _Held(*(int(column[row]) for column in columns))

    def _cell_for(self, placed: Placed, i: int, before: _Held, said: Refusals) -> int:
        """Return the cell of row *i*, _LEFT if there can be none."""
        parts, track = placed.parts, int(placed.track[i])
        start, end = int(parts.start_ms[i]), int(parts.end_ms[i])
        cell = self._cell(track, start, end, int(placed.keep_ms[i]))
        if cell == _LEFT:
            said.late += 1
        elif before is _NOTHING and self.cells["parts"][cell] >= self._max_members:
            said.over_limit += 1
            return _LEFT
        return cell

    def _move(self, before: _Held, cell: int, *, is_retired: bool = False) -> set[int]:
        """Count a row out of its old cell and into its new one; return the cells it changes.

        :param is_retired: whether revisions begin anew with what comes, of another source.
        """
        count, changed = self.cells["parts"], {cell, before.cell} - {_LEFT}
        if before.cell != _LEFT:
            count[before.cell] -= 1
            if before.cell != cell or is_retired:
                self.cells["retired"][before.cell] += before.revision + 1
        if cell != _LEFT:
            count[cell] += 1
        return changed

    def _cell(self, track: int, start: int, end: int, keep_ms: int) -> int:
        cell = self._cell_of.get((track, start), _LEFT)
        if cell == _LEFT and start > self._frontier.get(track, _EARLIEST):
            cell = self._cell_of[track, start] = self.cells.n
            self.cells.grow_to(cell + 1)
            for name, value in (("track", track), ("start_ms", start), ("end_ms", end)):
                self.cells[name][cell] = value
            self.cells["keep_ms"][cell] = keep_ms
        return cell

    def _write(self, placed: Placed, source: dict[int, int], cell: list[int]) -> None:
        self.rows.grow_to(len(self._row_of))
        rows = np.asarray(list(source), np.int64)
        taken = np.asarray(list(source.values()), np.int64)
        self.rows["owner"][rows] = placed.owner[taken]
        self.rows["site"][rows] = placed.site[taken]
        self.rows["start_ms"][rows] = placed.parts.start_ms[taken]
        self.rows["cell"][rows] = cell
        for name in VALUES:
            self.rows[name][rows] = placed.parts.values[name][taken]

    def _touch(self, cells: Int64, now_ms: int) -> None:
        c = self.cells
        c["since_ms"][cells] = np.minimum(c["since_ms"][cells], now_ms)
        c["changed_ms"][cells] = now_ms
        self.next_ms = min(self.next_ms, now_ms + self._quiet_ms)

    def _due_ms(self) -> Int64:
        c = self.cells
        waiting = c["since_ms"] != NEVER
        patience = np.where(waiting, c["since_ms"], 0) + PATIENCE * self._quiet_ms
        due: Int64 = np.where(
            waiting, np.minimum(c["changed_ms"] + self._quiet_ms, patience), np.int64(NEVER)
        )
        return due

    def _index(self) -> None:
        self._cell_of = _places(self.cells["track"], self.cells["start_ms"])
        self._row_of = _places(self.rows["owner"], self.rows["start_ms"])


def _places(who: NDArray[Any], start_ms: Int64) -> dict[tuple[int, int], int]:
    keys = zip(who.tolist(), start_ms.tolist(), strict=True)
    return {key: place for place, key in enumerate(keys)}
