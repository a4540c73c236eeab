"""Which readings without a seq have been seen, by (series, event time)."""

from __future__ import annotations

import numpy as np

from streams.core.readings import Bool, Int32, Int64
from streams.core.segments import TIME_LIMIT_MS

SERIES_LIMIT = 1 << 21
"""Series per partition: an identity packs series and time into 63 bits."""


class Identities:
    """A sorted set of packed (series, time) keys, bounded.

    :param limit: identities kept; beyond it the earliest in event time are forgotten, and
        ``forgotten`` counts them.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._keys = np.empty(0, np.int64)
        self._compact_at = 1024
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._keys)

    def see(self, series: Int32, t_ms: Int64) -> Bool:
        """Mark readings as seen; return bool[n], true where one was seen before."""
        keys = pack(series, t_ms)
        unique, first = np.unique(keys, return_index=True)
        at = np.searchsorted(self._keys, unique)
        inside = at < len(self._keys)
        known = np.zeros(len(unique), np.bool_)
        known[inside] = self._keys[at[inside]] == unique[inside]
        fresh = ~known
        self._keys = np.insert(self._keys, at[fresh], unique[fresh])
        seen = np.ones(len(keys), np.bool_)
        seen[first[fresh]] = False
        return seen

    @property
    def is_due(self) -> bool:
        """Whether enough have gathered to look for those that can be forgotten."""
        return len(self._keys) >= self._compact_at

    def compact(self, oldest_ms: Int64) -> None:
        """Forget identities before ``oldest_ms[series]``."""
        series, t_ms = unpack(self._keys)
        self._keys = self._keys[t_ms >= oldest_ms[series]]
        excess = len(self._keys) - self._limit
        if excess > 0:
            times = unpack(self._keys)[1]
            bound = np.partition(times, excess)[excess]
            kept = self._keys[times >= bound]
            self.forgotten += len(self._keys) - len(kept)
            self._keys = kept
        self._compact_at = min(max(1024, 2 * len(self._keys)), self._limit + 1)

    def forget(self, series: Bool) -> None:
        """Forget the keys of the series where the mask is true."""
        self._keys = self._keys[~series[unpack(self._keys)[0]]]

    def snapshot(self, series: Bool) -> Int64:
        """Return the keys of the series where the mask is true."""
        kept: Int64 = self._keys[series[unpack(self._keys)[0]]]
        return kept

    def restore(self, keys: Int64, series: Int32) -> None:
        """Add keys of a snapshot; ``series`` maps their series to the indices of now."""
        old, t_ms = unpack(keys)
        self._keys = np.sort(np.concatenate([self._keys, pack(series[old], t_ms)]))


def pack(series: Int32 | Int64, t_ms: Int64) -> Int64:
    """Return ``series * 2**42 + t_ms``."""
    packed: Int64 = (series.astype(np.int64) * TIME_LIMIT_MS) | t_ms
    return packed


def unpack(keys: Int64) -> tuple[Int64, Int64]:
    """Return series and time of packed keys."""
    return keys // TIME_LIMIT_MS, keys % TIME_LIMIT_MS
