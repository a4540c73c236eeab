"""What may be strange about a reading: one small detector for each way.

Each gives a statistic, 0 or more, of a reading and what came before it; what is much of it, the
series' own tail says (:mod:`models.core.tails`), which begins with what is usual for the statistic:
``floor``, the least that two readings in a hundred may exceed, so that a series that never showed
any is not alarmed by a trace of it; ``excess``, how far beyond it such readings are on average;
``stride``, every which reading says something new; ``pace``, how far one of them may move the tail,
0 if it stays as it begins; ``counted``, whether the statistic is 0 as a rule, so that it is counted
how often it is not; ``pointwise``, whether it is of one reading by itself, so that its tail is as
heavy as that of the readings. ``settling`` says after how many warm-ups the channel speaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Moment:
    """*n* readings of different series, and what was known just before them.

    Gaps are value less what was usual, spreads robust standard deviations, both as the series.
    ``shift`` and ``drift`` are mean gaps in spreads over some tens and some hundreds of readings,
    ``creep`` the size of the latter in what it usually is;
    ``noise`` the logarithm of the newest noise over the usual, ``loudness`` the mean of the
    logarithms of steps from reading to reading over some hundred, less what that is usually;
    ``run`` how often the value came before without a change; ``waited`` the time since the last
    reading in usual intervals; ``beyond`` how far the value is outside all earlier ones, as a
    share of their range.
    """

    level_gap: Float64
    level_spread: Float64
    near_gap: Float64
    near_spread: Float64
    season_gap: Float64
    season_spread: Float64
    seasonal: Bool
    shift: Float64
    drift: Float64
    creep: Float64
    noise: Float64
    loudness: Float64
    run: Float64
    waited: Float64
    beyond: Float64


class Channel(Protocol):
    """One way to be strange."""

    name: str
    floor: float
    excess: float
    stride: int
    pace: float
    settling: int
    counted: bool
    pointwise: bool

    def statistic(self, at: Moment) -> Float64:
        """Return float64[n], 0 or more."""
        ...


class Level:
    """Distance from the slow level, in spreads.

    Finds what is far from where the series has been for days. Works for series that stay around a
    level; on a random walk it is often far away, and its tail learns that it means little.
    """

    name, floor, excess, stride, pace, settling = "level", 2.3, 0.6, 1, 0.3, 1
    counted, pointwise = False, True

    def statistic(self, at: Moment) -> Float64:
        """Return the distance in robust standard deviations."""
        return np.abs(at.level_gap) / at.level_spread


class Spike:
    """Distance from the readings just before, in the spread of such distances.

    Finds single readings, and the first of a jump. Works for slowly moving series of any level;
    white noise has no nearness, so there it says what :class:`Level` says.
    """

    name, floor, excess, stride, pace, settling = "spike", 2.3, 0.6, 1, 0.3, 1
    counted, pointwise = False, True

    def statistic(self, at: Moment) -> Float64:
        """Return the distance in robust standard deviations."""
        return np.abs(at.near_gap) / at.near_spread


class Season:
    """Distance from what is usual at this hour (:mod:`models.core.season`), in its spread there.

    Finds values that are ordinary at another hour. Silent until a day and a half have passed, and
    for series that a daily or weekly shape does not tell better than their level does.
    """

    name, floor, excess, stride, pace, settling = "season", 2.3, 0.6, 1, 0.3, 1
    counted, pointwise = False, True

    def statistic(self, at: Moment) -> Float64:
        """Return the distance in robust standard deviations, 0 where there is no season."""
        return np.where(at.seasonal, np.abs(at.season_gap) / at.season_spread, 0.0)


class Shift:
    """Mean gap of the last readings, in spreads: an exponentially weighted control chart
    (Roberts 1959), whose bound is the series' own tail instead of a Gaussian one.

    Finds a level that has moved by less than a spike and stays. Works for noise of any
    correlation, as long as the past had its share of it; late by about its half-life.
    """

    name, floor, excess, stride, pace, settling = "shift", 0.4, 0.1, 24, 0.3, 2
    counted, pointwise = False, False

    def statistic(self, at: Moment) -> Float64:
        """Return the mean gap in robust standard deviations."""
        return np.abs(at.shift)


class Variance:
    """Logarithm of the newest noise over the usual noise, either way.

    Finds a sensor that has become loud, or quiet. Works on the distances from the nearest
    readings, so that a moving level is no noise; counts that grow in both are both.
    """

    name, floor, excess, stride, pace, settling = "variance", 0.2, 0.03, 24, 0.3, 2
    counted, pointwise = False, False

    def statistic(self, at: Moment) -> Float64:
        """Return the logarithm's size."""
        return np.abs(at.noise)


class Loudness:
    """Steps from reading to reading that are larger than usual, by the mean of their logarithms.

    Finds a sensor that has become a little louder and stays so for an hour or more, also in noise
    that wanders or has heavy tails: in a logarithm one large step is little. Speaks once it has
    seen as many means that have nothing in common as other channels want readings.
    """

    name, floor, excess, stride, pace, settling = "loudness", 0.07, 0.0095, 48, 0.3, 48
    counted, pointwise = False, False

    def statistic(self, at: Moment) -> Float64:
        """Return the mean, 0 where steps are no larger than usual."""
        return np.where(at.loudness > 0.0, at.loudness, 0.0)


class Stuck:
    """How long the value has been exactly the same, as the logarithm to base 2.

    Finds a frozen sensor. Works for what is measured finely: it is counted how rarely such a series
    repeats a value at all. One that often does, such as a state or a rounded count, has learnt so,
    and needs a run longer than its usual ones.
    """

    name, floor, excess, stride, pace, settling = "stuck", 3.0, 0.3, 1, 0.3, 1
    counted, pointwise = True, False

    def statistic(self, at: Moment) -> Float64:
        """Return log2(1 + repetitions)."""
        return np.log2(1.0 + at.run)


class Gap:
    """Time since the last reading in usual intervals, as the logarithm to base 2.

    Finds missing data, at the first reading after it: it knows no clock, so that a series that
    never comes back is found by the rules of idle devices instead. Irregular series have learnt
    their irregularity.
    """

    name, floor, excess, stride, pace, settling = "gap", 2.0, 0.3, 1, 0.3, 1
    counted, pointwise = False, False

    def statistic(self, at: Moment) -> Float64:
        """Return log2(intervals waited), 0 for less than one."""
        return np.log2(np.maximum(at.waited, 1.0))


class Drift:
    """Mean gap of the last hundreds of readings, in spreads.

    Finds a level that creeps, or a season that has moved, while each reading looks ordinary.
    Late by hundreds of readings, and blind to what is slower than the level's half-life.
    """

    name, floor, excess, stride, pace, settling = "drift", 0.2, 0.06, 144, 0.3, 36
    counted, pointwise = False, False

    def statistic(self, at: Moment) -> Float64:
        """Return the mean gap in robust standard deviations."""
        return np.abs(at.drift)


class Creep:
    """The same mean gap, in its usual size: how much further it is than the series wanders.

    Finds a level that leaves for good, however slowly: half a spread a day within days. Works for
    series that wander by themselves, as their wandering is the measure; silent until ten half-lives
    have shown it. Its tail does not follow: what creeps would teach it that creeping is usual.
    """

    name, floor, excess, stride, pace, settling = "creep", 2.2, 0.5, 144, 0.0, 100
    counted, pointwise = False, False

    def statistic(self, at: Moment) -> Float64:
        """Return the mean gap in usual mean gaps."""
        return at.creep


class Range:
    """How far a reading is beyond all earlier ones, as a share of their range.

    Finds what the series has never shown. Works for any series; one that climbs for good is
    beyond its range all the time, by little, and has learnt so.
    """

    name, floor, excess, stride, pace, settling = "range", 0.05, 0.05, 1, 0.3, 4
    counted, pointwise = False, True

    def statistic(self, at: Moment) -> Float64:
        """Return the share."""
        return at.beyond


ALL: tuple[Channel, ...] = (
    Level(),
    Spike(),
    Season(),
    Shift(),
    Variance(),
    Loudness(),
    Stuck(),
    Gap(),
    Drift(),
    Creep(),
    Range(),
)
