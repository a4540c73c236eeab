"""What is usual for an hour of the day and of the week, per series.

A ladder of two steps: the mean of each half hour of the day, and how far each hour of the week
lies from it on average. The first step stands after a day, the second counts for more with each
week, so that Tuesday 14:00 is known after some weeks and guessed from all days before. Each bin
follows over a few of its visits (exponential weights); a reading moves it by a bounded distance.

Works for daily and weekly shapes of any form. Does not know holidays, months, or daylight saving:
bins are UTC, and a shape that moves by an hour is learnt again within days. Cost: one bin of each
step per reading; 2.6 kB of state per series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

DAY_MS = 86_400_000
SLOTS = 48
HOURS = 168
SLOT_MS = DAY_MS // SLOTS
HOUR_MS = 3_600_000
WEEK_MS = 7 * DAY_MS
DAY_MEMORY = 4.0
"""Days over which a half hour follows."""
WEEK_MEMORY = 3.0
"""Weeks over which an hour of the week follows."""
SPREAD_MEMORY = 10.0
WEEK_DOUBT = 6.0
"""Visits after which an hour of the week counts for half of what it has shown."""
SPREAD_DOUBT = 4.0
SPREAD_KNOWN = 20.0
"""Visits of a half hour beyond which more do not make its spread surer."""
COUNT_MAX = 65_535
GAUSS = 1.2533141373155001


@dataclass(frozen=True, slots=True)
class Usual:
    """What the bins of *n* readings hold; ``known`` is how often each half hour was seen."""

    slot: Int64
    hour: Int64
    known: Float64
    week_known: Float64
    of_day: Float64
    of_week: Float64
    spread: Float64

    def value(self, level: Float64) -> Float64:
        """Return what is usual, float64[n]; *level* where nothing is known yet."""
        base = np.where(self.known > 0, self.of_day, level)
        return base + self.of_week * (self.week_known / (self.week_known + WEEK_DOUBT))

    def spread_or(self, overall: Float64) -> Float64:
        """Return the spread of this half hour, leaning on the *overall* one while it is new."""
        weight = np.minimum(self.known, SPREAD_KNOWN)
        return (self.spread * weight + SPREAD_DOUBT * overall) / (weight + SPREAD_DOUBT)


class Profile:
    """The bins of many series."""

    def __init__(self) -> None:
        self._held = 0
        self._state: dict[str, NDArray[Any]] = {
            "day": np.empty((0, SLOTS)),
            "day_spread": np.empty((0, SLOTS)),
            "day_count": np.empty((0, SLOTS), np.uint16),
            "week": np.empty((0, HOURS)),
            "week_count": np.empty((0, HOURS), np.uint16),
        }

    def grow(self, series: int) -> None:
        """Make room for exactly *series* series."""
        for name, held in self._state.items():
            more = np.zeros((series - len(held), held.shape[1]), held.dtype)
            self._state[name] = np.concatenate([held, more])

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the live arrays."""
        return self._state

    def look(self, series: Int32, t_ms: Int64) -> Usual:
        """Return what is held for the bins of *t_ms*."""
        slot = t_ms // SLOT_MS % SLOTS
        hour = t_ms % WEEK_MS // HOUR_MS
        at = self._state
        return Usual(
            slot,
            hour,
            at["day_count"][series, slot].astype(np.float64),
            at["week_count"][series, hour].astype(np.float64),
            at["day"][series, slot],
            at["week"][series, hour],
            at["day_spread"][series, slot].astype(np.float64),
        )

    def learn(
        self, series: Int32, usual: Usual, value: Float64, error: Float64, bounds: Bounds
    ) -> None:
        """Take readings into their bins.

        :param error: float64[n], their distance from what was usual, as far as it counts.
        """
        at, per_day = self._state, bounds.per_day
        known, week_known = usual.known, usual.week_known
        visits = np.maximum(per_day / SLOTS, 1.0)
        met = 1.0 / (known + 1.0)
        gap = value - usual.of_day
        gap = np.where(known > 0, np.clip(gap, -bounds.move, bounds.move), gap)
        at["day"][series, usual.slot] = (
            usual.of_day + np.maximum(met, 1.0 / (DAY_MEMORY * visits)) * gap
        )
        size = np.minimum(np.abs(error), 3.0 * bounds.spread) * GAUSS - usual.spread
        rate = np.where(known > 0, np.maximum(met, 1.0 / (SPREAD_MEMORY * visits)), 0.0)
        at["day_spread"][series, usual.slot] = usual.spread + rate * size
        visits = np.maximum(per_day / 24.0, 1.0)
        rate = np.maximum(1.0 / (week_known + 1.0), 1.0 / (WEEK_MEMORY * visits))
        rest = np.clip(
            np.where(known > 0, value - usual.of_day, 0.0) - usual.of_week,
            -bounds.move,
            bounds.move,
        )
        at["week"][series, usual.hour] = usual.of_week + rate * rest
        at["day_count"][series, usual.slot] = np.minimum(known + 1.0, COUNT_MAX)
        at["week_count"][series, usual.hour] = np.minimum(week_known + 1.0, COUNT_MAX)

    def shift(self, series: Int32, by: Float64) -> None:
        """Move the whole day of some series: their level has changed for good."""
        day, count = self._state["day"], self._state["day_count"]
        day[series] += np.where(count[series] > 0, by[:, None], 0.0)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much *n* readings may teach: readings ``per_day``, the distance that a bin may
    ``move`` towards one, and the ``spread`` beyond which three of it count as three."""

    per_day: Float64
    move: Float64
    spread: Float64
