"""Which scores are worth telling: those at or over a bound, and the first below it again."""

from __future__ import annotations

import numpy as np

from streams.core.readings import Bool, Float64, Int32


class Crossings:
    """Remembers per series whether its last score was at or over the bound."""

    def __init__(self, bound: float) -> None:
        self._bound = bound
        self.over = np.empty(0, np.bool_)

    def grow(self, series: int) -> None:
        """Make room for series indices below *series*."""
        if series > len(self.over):
            grown = np.zeros(max(64, 2 * series), np.bool_)
            grown[: len(self.over)] = self.over
            self.over = grown

    def tell(self, series: Int32, score: Float64) -> Bool:
        """Return bool[n]: whether each row, in order of arrival, is worth telling."""
        if not len(series):
            return np.empty(0, np.bool_)
        over = score >= self._bound
        if not over.any() and not self.over[series].any():
            return over
        order = np.argsort(series, kind="stable")
        s, o = series[order], over[order]
        before = np.empty(len(s), np.bool_)
        before[1:] = o[:-1]
        first = np.empty(len(s), np.bool_)
        first[0] = True
        first[1:] = s[1:] != s[:-1]
        before[first] = self.over[s[first]]
        told = np.empty(len(s), np.bool_)
        told[order] = o | before
        # Of repeated indices the last one wins: the newest row of each series.
        self.over[series] = over
        return told
