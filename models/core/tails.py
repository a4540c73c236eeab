"""Tail probabilities that a series' own past teaches: peaks over a threshold.

Of every statistic the series keeps the value ``u`` that it exceeds two times in a hundred, by a
stochastic approximation of the quantile (Robbins and Monro 1951), and mean and mean square of
what lay beyond, from which follows a generalised Pareto distribution by the method of moments
(Hosking and Wallis 1987). A reading beyond ``u`` has the probability that this tail gives it, as
in SPOT (Siffer et al., KDD 2017); below ``u`` the surprise runs straight from nothing, as nobody
is alerted by what happens twice in a hundred readings. What moves slowly exceeds a value rarely and
then for long: so its probability is told per event rather than per reading, by as much as what the
series has shown outweighs what is usual.

Works for statistics of any scale and shape, after a few hundred readings. A new series has the
tail that is usual for its kind of statistic, and what it shows itself counts more and more. Does
not know the future: a probability of one in a million, after ten thousand readings, is an
extrapolation. Cost: four numbers per statistic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]

CELLS = 4
"""Rows of state per statistic: threshold, mean and mean square of the excess, how many."""
SHARE = 0.02
"""How often a statistic is beyond its threshold."""
SURPRISE_AT_THRESHOLD = float(-np.log(SHARE))
STEP = 1.0
MEMORY = 8_000.0
"""Readings over which the threshold follows."""
EXCESS_MEMORY = 400.0
"""Excesses over which the tail follows."""
EXCESS_MAX = 30.0
"""An excess counts as at most so many thresholds, so that one reading is not the whole tail."""
PRIOR_WEIGHT = 20.0
"""A new tail counts as so many excesses of the mean that is usual for its statistic ..."""
PRIOR_SQUARE = 2.4
"""... and of this mean square over squared mean: heavier than an exponential's 2."""
SHAPE_MIN, SHAPE_MAX = -0.08, 0.45
HEAVY = 0.25
"""The shape of Student's t with four degrees of freedom. A new series may well have such readings:
its first guess counts as ``HEAVY_WEIGHT`` excesses, and less until ``HEAVY_LASTS`` were seen."""
HEAVY_WEIGHT, HEAVY_LASTS = 50.0, 200.0
WIDER = 1.35
"""A shape over 0 counts as so many times what it seems: too small by an error, it doubles what is
told; too large by the same, it halves it, which does not make up."""
SHAPE_LEAST = 1e-3
"""A shape nearer to 0 counts as this: the formula divides by it."""
COUNTED_MEMORY = 50_000.0
"""Readings over which it is counted how often a statistic is more than 0, where it is."""
COUNTED_RARE = 1e-3
"""Where it is so seldom more than 0, that is no habit of which a tail could be learnt."""
COUNTED_MIN = 1e-6
"""What is rarer than this cannot be told from never."""
LOG_SHARE = float(np.log(SHARE))
LEFT_MIN = 0.05
"""Beyond the end of a bounded tail a reading counts as this much within it."""


@dataclass(frozen=True, slots=True)
class Priors:
    """What is usual for *k* statistics: the least threshold ``floor``, the mean ``excess`` beyond
    it, every which reading counts as a new one (``stride``), as a statistic that moves slowly
    says the same thing many times, and the share by which one of them may move the threshold
    (``pace``). float64[k, 1] each. ``pointwise``, bool[k, 1], are statistics of one reading by
    itself, which have the tail of the readings, heavy or not, while means have a lighter one.
    ``counted``, int64, are the indices of those that are 0 as a rule: how often they are not is
    counted."""

    floor: Float64
    excess: Float64
    stride: Float64
    pace: Float64
    pointwise: Bool
    counted: Int64

    @property
    def rarer(self) -> Float64:
        """Return the logarithm of the stride, float64[k, 1]: an excess of a slow statistic is one
        event where a fast one has as many as the stride."""
        return np.log(self.stride)


def fresh(priors: Priors, series: int) -> Float64:
    """Return the state of statistics that have seen nothing: float64[CELLS * k, series]."""
    cells = np.zeros((CELLS, len(priors.floor), series))
    cells[0] = priors.floor
    return cells.reshape(-1, series)


def surprise(
    cells: Float64, shares: Float64, statistic: Float64, priors: Priors, count: Float64
) -> tuple[Float64, Float64]:
    """Return how improbable statistics are, as the negative natural logarithm, and the shapes of
    their tails: 0 that of an exponential, more that of heavier ones.

    :param cells: float64[CELLS, k, n]. :param shares: float64[counted, n], how often each was
        more than 0, within its threshold. :param statistic: float64[k, n], 0 or more.
    :param count: float64[n], readings learnt before.
    :returns: float64[k, n] each, the first 0 or more.
    """
    u, mean, square, seen = cells
    weight = seen + PRIOR_WEIGHT
    usual = priors.excess * (u / priors.floor)
    mean = (mean * seen + PRIOR_WEIGHT * usual) / weight
    square = (square * seen + (PRIOR_SQUARE * PRIOR_WEIGHT) * usual * usual) / weight
    ratio = mean * mean
    ratio = ratio / np.maximum(square - ratio, 1e-12 * ratio)
    shape = np.clip(0.5 * (1.0 - ratio), SHAPE_MIN, SHAPE_MAX)
    doubt = HEAVY_WEIGHT * np.maximum(1.0 - seen / HEAVY_LASTS, 0.0)
    heavier = shape + doubt / np.maximum(seen + doubt, 1.0) * (HEAVY - shape)
    heavier = np.minimum(np.where(heavier > 0.0, WIDER * heavier, heavier), SHAPE_MAX)
    shape = np.where(priors.pointwise, heavier, shape)
    shape = np.where(np.abs(shape) < SHAPE_LEAST, SHAPE_LEAST, shape)
    beyond = np.maximum(statistic - u, 0.0) / (mean * (1.0 - shape))
    body = SURPRISE_AT_THRESHOLD * np.minimum(statistic / u, 1.0)
    if len(priors.counted):
        body[priors.counted] *= np.log(shares) / LOG_SHARE
    tail = np.log(np.maximum(1.0 + shape * beyond, LEFT_MIN)) / shape
    rarer = priors.rarer * (count / (count + priors.stride * (PRIOR_WEIGHT / SHARE)))
    found: Float64 = body + tail + np.minimum(rarer, np.maximum(tail, 0.0))
    return found, shape


def count_more(shares: Float64, given: Float64, u: Float64, count: Float64, speaks: Bool) -> Bool:
    """Take statistics that are 0 as a rule into how often they are not, in place. What is beyond
    the threshold is not counted, and while the rule holds the tail learns nothing: a run that goes
    on would soon make itself usual.

    :param shares: float64[counted, n]. :param given: float64[counted, n], the statistics.
    :param u: float64[counted, n], their thresholds. :param count: float64[n], readings learnt
        before. :param speaks: bool[counted, n].
    :returns: bool[counted, n], which tails learn.
    """
    pace = np.maximum(1.0 / (count + 1.0 / SHARE), 1.0 / COUNTED_MEMORY)
    ever = (given > 0.0) & (given <= u)
    shares += np.where(speaks, pace * (ever - shares), 0.0)
    np.clip(shares, COUNTED_MIN, SHARE, out=shares)
    return speaks & (shares >= COUNTED_RARE)


def learn(cells: Float64, statistic: Float64, priors: Priors, count: Float64, speaks: Bool) -> None:
    """Take statistics into the tails, in place.

    :param cells: float64[CELLS, k, n]. :param count: float64[n], readings learnt before.
    :param speaks: bool[k, n], which are to be learnt.
    """
    u, mean, square, seen = cells
    due = speaks & (np.remainder(count, priors.stride) == 0.0) & (priors.pace > 0.0)
    met = count / priors.stride
    rate = np.maximum(1.0 / MEMORY, 1.0 / (met + 8.0)) * (STEP / SHARE)
    step = np.minimum(rate, priors.pace)
    over = statistic > u
    factor = np.where(over, 1.0 + step * (1.0 - SHARE), 1.0 - step * SHARE)
    excess = np.minimum(statistic - u, EXCESS_MAX * u)
    over &= due
    seen += over
    share = over / np.maximum(np.minimum(seen, EXCESS_MEMORY), 1.0)
    mean += share * (excess - mean)
    square += share * (excess * excess - square)
    np.minimum(seen, EXCESS_MEMORY, out=seen)
    np.maximum(np.where(due, u * factor, u), priors.floor, out=u)
