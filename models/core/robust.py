"""A causal, robust detector: how far is a reading from where its series usually is?

Per series it keeps a *level* that follows the last few readings, the *spread* of readings
around it, both exponentially weighted, and a *tail*: the distance, in spreads, that the
series itself exceeds about three times in a thousand. Each reading is scored against what came
before it, and only then learnt. What is learnt of a reading is clipped at ``_CLIP`` spreads
(Huber 1964), so that a spike hardly widens its own bound; the tail follows excursions by a
stochastic approximation of the quantile (Robbins and Monro 1951), so that a series which is
often wild has to be wilder than itself to stand out.

Works for series with a slowly moving level and noise of any scale and shape. Does not know
seasons, and takes a change of level as strange only while it is new. Cost: one update per
reading, four numbers of state per series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.core.rounds import rounds

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

_CLIP = 3.0
_GAUSS = 1.2533141373155001
"""sqrt(pi/2): turns a mean absolute deviation into a standard deviation, for Gaussian noise."""
_SETTLING = 8
"""Readings that are learnt without clipping, while there is no spread yet."""
_RELATIVE = 1e-9
SCORE_MAX = 1e6
_LEVEL_SHARE = 72
"""The level's half-life is this share of the spread's."""
_TAIL_MIN = 3.0
_TAIL_P = 0.997
_TAIL_STEP = 0.2
"""An excursion beyond the tail widens it by this share; it narrows to balance at ``_TAIL_P``."""


@dataclass(frozen=True, slots=True)
class RobustParams:
    """``half_life`` (of the spread) and ``warmup`` in readings; ``min_spread`` as the series."""

    half_life: int
    warmup: int
    min_spread: float


class RobustLevel:
    """Level, spread and tail of many series, which are dense indices that :meth:`grow` makes.

    The score is in robust standard deviations: 0 is as usual, larger is stranger. It is the
    same, to the bit, however the readings are batched.
    """

    NAME = "robust-level/1"

    def __init__(self, params: RobustParams) -> None:
        self._params = params
        self._alpha = 1.0 - 2.0 ** (-1.0 / params.half_life)
        self._beta = 1.0 - 2.0 ** (-1.0 / max(1.0, params.half_life / _LEVEL_SHARE))
        self._seen = np.empty(0, np.int64)
        self._level = np.empty(0, np.float64)
        self._spread = np.empty(0, np.float64)
        self._tail = np.empty(0, np.float64)

    def grow(self, series: int) -> None:
        """Make room for series indices below *series*; new ones know nothing."""
        held = len(self._seen)
        if series > held:
            room = max(64, 2 * held, series) - held
            self._seen = np.concatenate([self._seen, np.zeros(room, np.int64)])
            self._level = np.concatenate([self._level, np.zeros(room)])
            self._spread = np.concatenate([self._spread, np.zeros(room)])
            self._tail = np.concatenate([self._tail, np.full(room, _TAIL_MIN)])

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the live arrays by name: what a snapshot reads and a restore writes."""
        return {
            "seen": self._seen,
            "level": self._level,
            "spread": self._spread,
            "tail": self._tail,
        }

    def score(self, series: Int32, value: Float64) -> tuple[Float64, Float64, Float64]:
        """Score readings in order of arrival, and learn them.

        :param series: int32[n]. :param value: float64[n], finite.
        :returns: score, expected and spread, float64[n] each; the score is 0 while a series
            has fewer than ``warmup`` readings.
        """
        n = len(value)
        score, expected, spread = np.zeros(n), np.empty(n), np.empty(n)
        for rows in rounds(series):
            s, x = series[rows], value[rows]
            seen, level = self._seen[s], self._level[s]
            floor = np.maximum(self._params.min_spread, _RELATIVE * np.abs(level))
            scale = np.maximum(self._spread[s], floor)
            gap = x - level
            ready = seen >= self._params.warmup
            strange = np.abs(gap) / scale
            usual = self._tail[s] / _TAIL_MIN
            score[rows] = np.where(ready, np.minimum(strange / usual, SCORE_MAX), 0.0)
            expected[rows], spread[rows] = level, scale * usual
            self._learn(s, seen, gap, scale)
            self._learn_tail(s, seen, strange)
        return score, expected, spread

    def _learn(self, s: Int32, seen: Int64, gap: Float64, scale: Float64) -> None:
        rate = np.maximum(self._alpha, 1.0 / (seen + 1.0))
        bound = np.where(seen < _SETTLING, np.inf, _CLIP * scale)
        clipped = np.clip(gap, -bound, bound)
        self._level[s] += np.maximum(self._beta, 1.0 / (seen + 1.0)) * clipped
        # The first reading sets the level; it says nothing about the spread.
        size = np.where(seen == 0, 0.0, np.abs(clipped) * _GAUSS)
        self._spread[s] += np.where(seen == 0, 0.0, rate) * (size - self._spread[s])
        self._seen[s] = seen + 1

    def _learn_tail(self, s: Int32, seen: Int64, strange: Float64) -> None:
        tail = self._tail[s]
        narrower = np.maximum(_TAIL_MIN, tail * (1.0 - _TAIL_STEP * (1.0 - _TAIL_P) / _TAIL_P))
        moved = np.where(strange > tail, tail * (1.0 + _TAIL_STEP), narrower)
        self._tail[s] = np.where(seen < 2 * _SETTLING, tail, moved)
