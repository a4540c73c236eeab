"""The series that rules on windows look at, and which rules look at each.

A *track* is a series in one window definition. Its quiet state is three numbers in columns; what a
rule has said of it is kept only while something is the matter (``rule_pairs``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from streams.core.columns import Columns
from streams.core.placement import shard_of
from streams.core.readings import Int32, Int64
from streams.core.results import WindowResults
from streams.core.selectors import Names, Selection, TraitsOf
from streams.core.window_rules import WindowRule

NO_TRACK = -1
_SPEC: dict[str, tuple[Any, Any]] = {
    "shard": (np.int32, 0),
    "end_ms": (np.int64, -1),
    "seen_ms": (np.int64, -1),
    "rules": (np.int32, 0),
    "pairs": (np.int32, 0),
}


class Key(NamedTuple):
    """Names a track."""

    tenant: str
    device: str
    metric: str
    window: str


class Tracks:
    """All tracks of a partition. ``columns`` has a row for each:

    ``end_ms`` is the greatest end of a window that was told (event time), ``seen_ms`` the greatest
    log time of a reading inside one, ``pairs`` how many rules are kept of it.

    :param limit: results of further series are not taken.
    """

    def __init__(
        self, rules: Sequence[WindowRule], traits_of: TraitsOf, *, shards: int, limit: int
    ) -> None:
        self.columns = Columns(_SPEC)
        self.keys: list[Key] = []
        self.sites: list[str] = []
        self.of_device: dict[tuple[str, str], list[int]] = {}
        self._index: dict[tuple[str, str, str, str], int] = {}
        self._shards = shards
        self._limit = limit
        self._selections: dict[str, tuple[Int32, Selection]] = {}
        for window in dict.fromkeys(rule.looks_at for rule in rules):
            mine = [i for i, rule in enumerate(rules) if rule.looks_at == window]
            chosen = Selection([rules[i].selector for i in mine], traits_of)
            self._selections[window] = np.asarray(mine, np.int32), chosen
        self._sets: dict[bytes, int] = {}
        self._flat = np.empty(0, np.int32)
        self._begin = np.zeros(1, np.int64)

    def intern(self, found: WindowResults) -> Int32:
        """Return int32[n]: the track of each result.

        ``NO_TRACK`` where no rule looks at the window, or the limit is met.
        """
        out = np.full(len(found), NO_TRACK, np.int32)
        watched = np.asarray([name in self._selections for name in found.window.values], np.bool_)
        rows = np.flatnonzero(watched[found.window.codes])
        columns = (found.tenant, found.device, found.metric, found.window)
        keys = zip(*(column.take(rows).to_list() for column in columns), strict=True)
        index, sites, tracks = self._index, self.sites, []
        for key, site in zip(keys, found.site.take(rows).to_list(), strict=True):
            track = index.get(key, NO_TRACK)
            if track == NO_TRACK or sites[track] != site:
                track = self.add(Key(*key), site)
            tracks.append(track)
        out[rows] = tracks
        return out

    def add(self, key: Key, site: str, *, limited: bool = True) -> int:
        """Return a track, a new one if it is new; a new site is another choice of rules."""
        track = self._index.get(key, NO_TRACK)
        if track == NO_TRACK:
            if limited and len(self.keys) >= self._limit:
                return NO_TRACK
            track = self._index[key] = len(self.keys)
            self.keys.append(key)
            self.sites.append("")
            self.columns.grow_to(len(self.keys))
            self.columns["shard"][track] = shard_of(key.tenant, key.device, self._shards)
            self.of_device.setdefault((key.tenant, key.device), []).append(track)
        elif self.sites[track] == site:
            return track
        self.sites[track] = site
        self.columns["rules"][track] = self._choose(self.names(track), key.window)
        return track

    def find(self, key: Key) -> int:
        """Return a track, ``NO_TRACK`` if there is none."""
        return self._index.get(key, NO_TRACK)

    def looks(self, track: int, rule: int) -> bool:
        """Whether there is such a track, and a rule looks at it."""
        return track != NO_TRACK and rule in self.rules_of(track)

    def names(self, track: int) -> Names:
        """Return what rules select a track by."""
        key = self.keys[track]
        return Names(key.tenant, self.sites[track], key.device, key.metric)

    def rules_of(self, track: int) -> Int32:
        """Return the rules that look at a track."""
        chosen = self.columns["rules"][track]
        return self._flat[self._begin[chosen] : self._begin[chosen + 1]]

    def pair(self, track: Int32) -> tuple[Int64, Int64]:
        """Return every pair of a row and a rule that looks at its track.

        :param track: int32[n], none of them ``NO_TRACK``.
        :returns: int64[m] indices into *track*, in order; int64[m] rules.
        """
        chosen = self.columns["rules"][track]
        count = self._begin[chosen + 1] - self._begin[chosen]
        row = np.repeat(np.arange(len(track)), count)
        place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        return row, self._flat[self._begin[chosen][row] + place].astype(np.int64)

    def _choose(self, names: Names, window: str) -> int:
        found = self._selections.get(window)
        chosen = np.empty(0, np.int32) if found is None else found[0][found[1].of(names)]
        known = self._sets.get(chosen.tobytes())
        if known is None:
            known = self._sets[chosen.tobytes()] = len(self._sets)
            self._flat = np.concatenate([self._flat, chosen])
            self._begin = np.append(self._begin, len(self._flat))
        return known
