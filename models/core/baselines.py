"""What is usual for a series: levels, spreads, season, noise, interval and range.

A *slow* level and its spread, a *near* one, a profile of the day and week, and from the gaps to
them the means and noises that the channels look at. All follow exponentially weighted; what a
reading may teach is clipped at three spreads (Huber 1964), so that an anomaly hardly becomes
usual. A level that stays away for ``ACCEPTED_AFTER`` readings is taken as the new one, and the
season moves with it.

Cost: 25 numbers per series, and the profile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.core.channels import Moment
from models.core.season import DAY_MS, Bounds, Profile, Usual

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

CELLS = 25
SEEN, LAST, TIME, SLOW, NEAR = range(5)
SLOW_SPREAD, NEAR_SPREAD = 5, 6
_LEVELS, _SPREADS = slice(3, 5), slice(5, 7)
MEAN, VARIANCE = 7, 8
_FOLLOWED = slice(9, 16)
SEASON_SPREAD, SEASON_ERROR, LEVEL_ERROR, SHIFT, DRIFT, NOISE, USUAL_NOISE = range(9, 16)
RUN, INTERVAL, LOW, HIGH, DWELL, ANCHOR, USUAL_DRIFT, LOUDNESS, USUAL_STEP = range(16, 25)

GAUSS = 1.2533141373155001
"""sqrt(pi/2): turns a mean absolute deviation into a standard deviation, for Gaussian noise."""
CLIP = 3.0
UNCLIPPED = 8
"""Readings that are learnt without clipping, while there is no spread yet."""
RELATIVE = 1e-9
DEVIATION_SHARE = 0.03
"""A spread is at least this share of the plain standard deviation: a series that is flat but for
its spikes has their size as its measure."""
NEAR_HALF_LIFE = 16.0
MIDDLE_HALF_LIFE = 24.0
"""Of shift and noise."""
DAYS_HALF_LIVES, ANCHOR_HALF_LIVES = 2.0, 8.0
"""Drift is the mean over two half-lives against a level over eight."""
DRIFT_HALF_LIVES = 16.0
"""How far the mean is from the level as a rule, over so many half-lives; it is learnt whole over
the first ``ANCHOR_HALF_LIVES``, then in steps of at most ``DRIFT_CLIP`` times what it is: a drift
outgrows what it teaches."""
DRIFT_CLIP, DRIFT_LEAST = 1.5, 0.03
SHIFT_CLIP, NOISE_CLIP, ERROR_CLIP = 4.0, 6.0, 5.0
NOISE_FLOOR = 0.05
STEP_HALF_LIFE = 96.0
"""Of the mean logarithm of steps from reading to reading."""
STEP_LEAST = 0.1
"""A step counts as larger by so many spreads: the logarithm of none at all says too much."""
STEP_CLIP = 2.5
SEASON_AFTER_DAYS = 1.5
SEASON_GAIN = 0.8
"""A season is believed if its errors are at most this share of the level's."""
ACCEPTED_AFTER = 256.0
AWAY = 8.0
"""Readings after which a level that stays away is what there is to tell, and not its noise."""
INTERVAL_STEP = 0.05
INTERVAL_MIN_MS = 1_000.0


@dataclass(frozen=True, slots=True)
class Look:
    """What a round knows before it learns: the channels' ``moment``, what is ``expected`` and its
    ``spread``, and what learning needs again."""

    moment: Moment
    expected: Float64
    spread: Float64
    floor: Float64
    usual: Usual
    per_day: Float64
    step: Float64


class Baselines:
    """The arithmetic; the cells are the caller's, float64[CELLS, n] with each series once."""

    def __init__(self, half_life: float, min_spread: float) -> None:
        self.profile = Profile()
        self._min_spread = min_spread
        slow, middle = alpha(half_life), alpha(MIDDLE_HALF_LIFE)
        self._slow = slow
        self._rates = np.asarray([[slow], [alpha(NEAR_HALF_LIFE)]])
        drift = alpha(DAYS_HALF_LIVES * half_life)
        self._anchor = alpha(ANCHOR_HALF_LIVES * half_life)
        self._steps = alpha(STEP_HALF_LIFE)
        self._usual_drift = alpha(DRIFT_HALF_LIVES * half_life)
        self._settled = ANCHOR_HALF_LIVES * half_life
        self._followed = np.asarray([[slow], [slow], [slow], [middle], [drift], [middle], [slow]])

    def look(self, c: Float64, s: Int32, t_ms: Int64, x: Float64) -> Look:
        """Return what is known just before readings. A first reading is its own level."""
        count = c[SEEN]
        first = count == 0
        if first.any():
            for row in (SLOW, NEAR, MEAN, LOW, HIGH, ANCHOR):
                c[row, first] = x[first]
            c[TIME, first] = t_ms[first]
        slow = c[SLOW]
        floor = np.maximum(RELATIVE * np.abs(slow), DEVIATION_SHARE * np.sqrt(c[VARIANCE]))
        floor = np.maximum(floor, max(self._min_spread, 1e-30))
        gap, spread = x - c[_LEVELS], np.maximum(c[_SPREADS], floor)
        interval = np.maximum(c[INTERVAL], INTERVAL_MIN_MS)
        per_day = DAY_MS / interval
        usual = self.profile.look(s, t_ms)
        seasonal = (count > SEASON_AFTER_DAYS * per_day) & (
            c[SEASON_ERROR] < SEASON_GAIN * c[LEVEL_ERROR]
        )
        of_season = usual.value(c[NEAR])
        season_spread = np.maximum(usual.spread_or(np.maximum(c[SEASON_SPREAD], floor)), floor)
        expected = np.where(seasonal, of_season, slow)
        usual_spread = np.where(seasonal, season_spread, spread[0])
        rate = np.maximum(self._followed[3:6], 1.0 / (count + 1.0))
        pull = np.empty((3, len(x)))
        pull[0], pull[1] = (x - expected) / usual_spread, (x - c[ANCHOR]) / spread[0]
        np.clip(pull[:2], -SHIFT_CLIP, SHIFT_CLIP, out=pull[:2])
        pull[2] = np.minimum(np.abs(gap[1]) / spread[1], NOISE_CLIP)
        # These three are learnt before they are looked at: the reading itself is part of them.
        means = c[SHIFT : NOISE + 1] + rate * (pull - c[SHIFT : NOISE + 1])
        c[SHIFT : NOISE + 1] = means
        step = self._step(c, x, spread[1])
        c[RUN] = np.where((x == c[LAST]) & ~first, c[RUN] + 1.0, 0.0)
        width = np.maximum(c[HIGH] - c[LOW], floor)
        outside = np.maximum(np.maximum(x - c[HIGH], c[LOW] - x), 0.0) / width
        moment = Moment(
            level_gap=gap[0],
            level_spread=spread[0],
            near_gap=gap[1],
            near_spread=spread[1],
            season_gap=x - of_season,
            season_spread=season_spread,
            seasonal=seasonal,
            shift=means[0],
            drift=means[1],
            creep=np.abs(means[1]) / (c[USUAL_DRIFT] + DRIFT_LEAST),
            noise=np.log((means[2] + NOISE_FLOOR) / (c[USUAL_NOISE] + NOISE_FLOOR)),
            loudness=np.where(np.abs(c[DWELL]) <= AWAY, c[LOUDNESS], 0.0),
            run=c[RUN],
            waited=np.where(count > 2, np.maximum(t_ms - c[TIME], 0.0) / interval, 0.0),
            beyond=np.where(count > UNCLIPPED, outside, 0.0),
        )
        return Look(moment, expected, usual_spread, floor, usual, per_day, step)

    def _step(self, c: Float64, x: Float64, spread: Float64) -> Float64:
        """Return by how much the logarithm of the step to a reading is more than usual; it is part
        of the mean before that is looked at. A first reading is no step."""
        count = c[SEEN]
        step = np.log(np.abs(x - c[LAST]) + STEP_LEAST * spread) - c[USUAL_STEP]
        step = np.where(count < UNCLIPPED, step, np.clip(step, -STEP_CLIP, STEP_CLIP))
        step = np.where(count == 0, 0.0, step)
        rate = np.maximum(self._steps, 1.0 / np.maximum(count, 1.0))
        c[LOUDNESS] += rate * (step - c[LOUDNESS])
        return step

    def learn(self, c: Float64, s: Int32, t_ms: Int64, x: Float64, look: Look) -> None:
        """Take the readings into the cells, in place."""
        at, count = look.moment, c[SEEN]
        met = 1.0 / (count + 1.0)
        early = count < UNCLIPPED
        gap = np.stack([at.level_gap, at.near_gap])
        spread = np.stack([at.level_spread, at.near_spread])
        gap = np.where(early, gap, np.clip(gap, -CLIP * spread, CLIP * spread))
        slow = np.maximum(self._slow, met)
        # The first reading sets the levels; it says nothing about spreads.
        slow_but_first = np.where(count == 0, 0.0, slow)
        c[_LEVELS] += np.maximum(self._rates, met) * gap
        c[_SPREADS] += slow_but_first * (np.abs(gap) * GAUSS - c[_SPREADS])
        from_mean = x - c[MEAN]
        c[VARIANCE] += slow_but_first * (from_mean * from_mean - c[VARIANCE])
        c[MEAN] += slow * from_mean
        bound = SHIFT_CLIP * at.level_spread
        from_anchor = x - c[ANCHOR]
        from_anchor = np.where(early, from_anchor, np.clip(from_anchor, -bound, bound))
        c[ANCHOR] += np.maximum(self._anchor, met) * from_anchor
        drift = np.abs(at.drift)
        bound = np.where(count < self._settled, np.inf, DRIFT_CLIP * (c[USUAL_DRIFT] + DRIFT_LEAST))
        drift = np.minimum(drift, bound) - c[USUAL_DRIFT]
        c[USUAL_DRIFT] += np.maximum(self._usual_drift, met) * drift
        self._follow(c, look, spread, met)
        by = np.maximum(self._slow, 1.0 / np.maximum(count, 1.0)) * look.step
        c[USUAL_STEP] += by
        c[LOUDNESS] -= by
        self._profile_learns(c, s, x, look)
        self._accept(c, s, x, look)
        self._wait(c, t_ms)
        c[LOW], c[HIGH] = np.minimum(c[LOW], x), np.maximum(c[HIGH], x)
        c[LAST] = x
        c[SEEN] += 1.0

    def _follow(self, c: Float64, look: Look, spread: Float64, met: Float64) -> None:
        at, known = look.moment, look.usual.known > 0
        error = np.abs(at.season_gap)
        # What the season claims counts in full, as its error or as the level's; a spike does not.
        claimed = np.abs(at.season_gap - at.level_gap)
        most = ERROR_CLIP * spread[0] + np.where(known, claimed, 0.0)
        bound = np.where(
            c[SEASON_SPREAD] > 0, CLIP * np.maximum(c[SEASON_SPREAD], look.floor), np.inf
        )
        target = np.stack([np.minimum(error, bound) * GAUSS, np.minimum(error, most)])
        rate = np.maximum(self._slow, met)
        rows = slice(SEASON_SPREAD, SEASON_ERROR + 1)
        c[rows] += np.where(known, rate, 0.0) * (target - c[rows])
        c[LEVEL_ERROR] += rate * (np.minimum(np.abs(at.level_gap), most) - c[LEVEL_ERROR])
        newest = np.minimum(np.abs(at.near_gap) / spread[1], NOISE_CLIP)
        c[USUAL_NOISE] += rate * (newest - c[USUAL_NOISE])

    def _profile_learns(self, c: Float64, s: Int32, x: Float64, look: Look) -> None:
        move = CLIP * np.maximum(look.moment.level_spread, look.floor)
        bounds = Bounds(look.per_day, move, look.moment.season_spread)
        self.profile.learn(s, look.usual, x, look.moment.season_gap, bounds)

    def _accept(self, c: Float64, s: Int32, x: Float64, look: Look) -> None:
        """Take a level that stays away as the new one."""
        away = (x - look.expected) / look.spread
        dwell = np.where(away >= CLIP, np.maximum(c[DWELL], 0.0) + 1.0, 0.0)
        c[DWELL] = np.where(away <= -CLIP, np.minimum(c[DWELL], 0.0) - 1.0, dwell)
        settled = np.flatnonzero(np.abs(c[DWELL]) >= ACCEPTED_AFTER)
        if len(settled):
            by = c[NEAR, settled] - look.expected[settled]
            c[SLOW, settled] += by
            c[ANCHOR, settled] += by
            self.profile.shift(s[settled], by)
            # Another unit has other steps, too.
            c[USUAL_STEP, settled] += c[LOUDNESS, settled]
            c[LOUDNESS, settled] = 0.0
            c[DWELL, settled] = 0.0

    def _wait(self, c: Float64, t_ms: Int64) -> None:
        count, interval = c[SEEN], c[INTERVAL]
        waited = np.maximum(t_ms - c[TIME], 0.0)
        move = INTERVAL_STEP * np.clip(waited - interval, -0.5 * interval, 0.5 * interval)
        c[INTERVAL] = np.where(count <= 1, waited, interval + move)
        c[TIME] = t_ms


def alpha(half_life: float) -> float:
    """Return the weight of a new value at which an old one has half of its own after
    *half_life* more."""
    return float(1.0 - 2.0 ** (-1.0 / half_life))
