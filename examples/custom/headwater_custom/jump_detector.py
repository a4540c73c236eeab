"""A detector of one's own: how far is a reading from the last one, for the time between them?

The score is the rate of change over the option ``usual_per_s``: 1 is as fast as usual.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.core.rounds import rounds
from streams.errors import SettingsError
from streams.settings import Detection


class Jump:
    """A :class:`streams.agents.detectors.Detector`."""

    name = "jump/1"

    def __init__(self, settings: Detection) -> None:
        usual = settings.options.get("usual_per_s")
        if not isinstance(usual, int | float) or usual <= 0:
            raise SettingsError("detection.options: jump needs usual_per_s, a number over 0")
        self._usual = float(usual)
        self._state = {"t_ms": np.empty(0, np.int64), "value": np.empty(0)}

    def grow(self, series: int) -> None:
        """Make room; a time below zero says that there was no reading yet."""
        more = max(0, series - len(self._state["t_ms"]))
        fresh = {"t_ms": np.full(more, -1), "value": np.zeros(more)}
        self._state = {name: np.append(held, fresh[name]) for name, held in self._state.items()}

    def state(self) -> Mapping[str, NDArray]:
        """Return the last reading of each series."""
        return self._state

    def score(self, series: NDArray, t_ms: NDArray, value: NDArray) -> tuple[NDArray, ...]:
        """Score each reading against the one before it in its series."""
        score, expected = np.zeros(len(value)), value.copy()
        for rows in rounds(series):  # each holds a series once, so what it learns is known next
            s = series[rows]
            before_ms, before = self._state["t_ms"][s], self._state["value"][s]
            seconds = np.maximum(t_ms[rows] - before_ms, 1) / 1000
            known = before_ms >= 0
            rate = np.abs(value[rows] - before) / seconds / self._usual
            score[rows] = np.where(known, rate, 0.0)
            expected[rows] = np.where(known, before, value[rows])
            self._state["t_ms"][s], self._state["value"][s] = t_ms[rows], value[rows]
        return score, expected, np.full(len(value), self._usual)
