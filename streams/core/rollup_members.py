"""Who belongs to a group: the parts that are expected in its next windows.

A part is known to the group of its newest window, from the first window that it told there,
until it has told nothing for as long as the window is kept. A known part without a result for
a window is missing there, with all the members that it stood for when it was last heard.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import numpy as np

from streams.core.columns import Columns
from streams.core.placement import shard_of
from streams.core.readings import Int32, Int64
from streams.core.registry import NEVER
from streams.core.rollup_parts import Placed

SHARDS = 8
NOBODY = -1
Owner = tuple[str, str, str, str]
"""Tenant, part, metric, window."""
Track = tuple[str, str, str, str]
"""Tenant, group, metric, window: one line of windows of a group."""
TrackOf = Callable[[Owner, str], int]
"""The line that a part belongs to, of its names and its site."""
Named = TypeVar("Named", bound=Hashable)

_SPEC: dict[str, tuple[Any, Any]] = {
    "shard": (np.int32, 0),
    "track": (np.int32, NOBODY),
    "first_ms": (np.int64, 0),
    "last_ms": (np.int64, 0),
    "seen_ms": (np.int64, 0),
    "keep_ms": (np.int64, 0),
    "weight": (np.int64, 0),
    "site": (np.int32, 0),
}


class Names(Generic[Named]):
    """Names (tuples of them, too) to dense integers and back."""

    def __init__(self, *first: Named) -> None:
        self.of: list[Named] = []
        self._index: dict[Named, int] = {}
        for name in first:
            self.intern(name)

    def intern(self, name: Named) -> int:
        """Return the integer of a name, a new one for a new name."""
        index = self._index.setdefault(name, len(self.of))
        if index == len(self.of):
            self.of.append(name)
        return index


class Members:
    """The known parts; a part's index is that of its :class:`Names`."""

    def __init__(self, owners: Names[Owner], tracks: Names[Track], sites: Names[str]) -> None:
        self._owners = owners
        self._tracks = tracks
        self._sites = sites
        self.columns = Columns(_SPEC)
        self.stamps = np.full(SHARDS, -1, np.int64)
        self.dirty_since = np.full(SHARDS, NEVER, np.int64)

    def see(self, placed: Placed, now_ms: int, offset: int) -> None:
        """Take note of who told a window, in order."""
        self._grow()
        c, v = self.columns, placed.parts.values
        weight = v["final"] + v["provisional"] + v["missing"]
        fresh = offset > self.stamps[c["shard"][placed.owner]]
        columns = (
            *(placed.owner, placed.track, placed.parts.start_ms),
            *(weight, placed.keep_ms, placed.site),
        )
        rows = zip(*(column[fresh].tolist() for column in columns), strict=True)
        for o, t, start, heavy, keep, site in rows:
            gone = c["track"][o] == NOBODY or c["seen_ms"][o] + keep < now_ms
            moved = c["track"][o] != t and start >= c["last_ms"][o]
            c["keep_ms"][o], c["seen_ms"][o] = keep, now_ms
            if gone or start >= c["last_ms"][o]:
                c["site"][o] = site
            if gone or moved:
                c["track"][o], c["weight"][o] = t, heavy
                c["first_ms"][o] = c["last_ms"][o] = start
            elif c["track"][o] == t:
                c["first_ms"][o] = min(start, c["first_ms"][o])
                if start >= c["last_ms"][o]:
                    c["last_ms"][o], c["weight"][o] = start, heavy
        np.minimum.at(self.dirty_since, c["shard"][placed.owner[fresh]], offset)

    def regroup(self, track_of: TrackOf, offset: int) -> None:
        """Let known parts be expected where they belong from the record at *offset* on."""
        self._grow()
        c = self.columns
        for o in np.flatnonzero(c["track"] != NOBODY).tolist():
            shard = c["shard"][o]
            if offset <= self.stamps[shard]:
                continue
            track = track_of(self._owners.of[o], self._sites.of[c["site"][o]])
            if track != c["track"][o]:
                c["track"][o] = track
                self.dirty_since[shard] = min(self.dirty_since[shard], offset)

    def missing(self, track: Int32, start_ms: Int64, at_ms: Int64, present: list[Int32]) -> Int64:
        """Return how many members are missing in each window.

        :param at_ms: int64[n], the log time of the question.
        :param present: the parts that have told something, per window: they speak for themselves.
        """
        c = self.columns
        order = np.argsort(c["track"], kind="stable")
        line = c["track"][order]
        lost = np.zeros(len(track), np.int64)
        for i, t in enumerate(track.tolist()):
            known = order[np.searchsorted(line, t) : np.searchsorted(line, t, side="right")]
            known = known[
                (c["first_ms"][known] <= start_ms[i])
                & (c["seen_ms"][known] + c["keep_ms"][known] >= at_ms[i])
            ]
            lost[i] = c["weight"][known[~np.isin(known, present[i])]].sum()
        return lost

    def snapshot(self, shard: int, now_ms: int) -> dict[str, Any]:
        """Return a shard's known parts and mark it clean; those long gone are left out."""
        self._grow()
        c = self.columns
        self.dirty_since[shard] = NEVER
        kept = np.flatnonzero(
            (c["shard"] == shard) & (c["track"] != NOBODY) & (c["seen_ms"] + c["keep_ms"] >= now_ms)
        )
        columns = c.select(kept)
        of, site = columns.pop("track"), columns.pop("site")
        del columns["shard"]
        return {
            "owners": [list(self._owners.of[o]) for o in kept.tolist()],
            "tracks": [list(self._tracks.of[t]) for t in of.tolist()],
            "sites": [self._sites.of[s] for s in site.tolist()],
            "columns": columns,
        }

    def restore(self, shard: int, stamp: int, state: dict[str, Any]) -> None:
        """Load a snapshot."""
        owners = [self._owners.intern(tuple(name)) for name in state["owners"]]
        self._grow()
        tracks = [self._tracks.intern(tuple(name)) for name in state["tracks"]]
        self.columns["track"][owners] = tracks
        # State of a version before names none.
        sites = state.get("sites") or [""] * len(owners)
        self.columns["site"][owners] = [self._sites.intern(site) for site in sites]
        for name, values in state["columns"].items():
            self.columns[name][owners] = values
        self.stamps[shard] = stamp

    def _grow(self) -> None:
        known, names = self.columns.n, self._owners.of
        self.columns.grow_to(len(names))
        for o in range(known, len(names)):
            self.columns["shard"][o] = shard_of(names[o][0], names[o][1], SHARDS)
