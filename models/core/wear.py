"""Predictive maintenance: how healthy a machine is, and when its wear reaches a limit.

Wear is taken as a Wiener process with drift, seen through noise of measurement: it grows by
``rate`` a time unit, wanders by ``wander`` a square root of time, and each reading is off by some
noise. The time until such a process first reaches a limit has an inverse Gaussian distribution
(Folks and Chhikara 1978); that rate and level are not known for sure is averaged over (Si et al.
2012). The rate is the median slope of all pairs (Theil 1950, Sen 1968), wander and noise follow
from the median sizes of differences over several steps, so that wild readings do not matter.

Works for wear that grows steadily on the scale that it is given on; what grows by a share of
itself, such as vibration of a bearing, is straight as its logarithm. Does not know load or repair:
begin anew after one. How often the interval holds: ``docs/models.md``. Cost: the square of the
points, which are thinned to ``POINTS_MAX``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr, ndtri, stdtrit

Float64 = NDArray[np.float64]

POINTS_MIN, POINTS_MAX = 10, 200
_NORMAL = 1.4826
_STRETCHES = 5.0
_WANDER_LEAST = 0.1
"""Share of the differences over the longest lag that is wander at least: few of them cannot show
that there is none. As the lag grows with the points, this vanishes."""
_RATES = 41
"""Rates, and levels, over which the distribution is averaged."""
_LEVELS = 9
_TIMES = 400
_FAR = 1_000.0
"""A time beyond this many times what was seen is not told."""


@dataclass(frozen=True, slots=True)
class Trend:
    """How wear grows: the ``level`` now and the ``rate``, with their standard errors, the
    ``wander``, and the ``span`` of time that was seen."""

    level: float
    level_error: float
    rate: float
    rate_error: float
    wander: float
    span: float


@dataclass(frozen=True, slots=True)
class Remaining:
    """Time until the limit: the median, and between ``low`` and ``high`` with the probability asked
    for, in the unit of the times; infinite where the limit may never be reached."""

    median: float
    low: float
    high: float


def health(wear: Float64, new: float, limit: float) -> Float64:
    """Return the share of life that is left by wear: 1 as ``new``, 0 at the ``limit`` and beyond.

    :raises ValueError: if new and limit are the same.
    """
    if new == limit:
        raise ValueError(f"wear when new and its limit are both {new}; expected two values")
    left: Float64 = np.clip((limit - wear) / (limit - new), 0.0, 1.0)
    return left


def trend(time: Float64, wear: Float64) -> Trend:
    """Return how wear grows.

    :param time: float64[n], ascending. :param wear: float64[n]; what is not finite is left out.
    :raises ValueError: if fewer than ``POINTS_MIN`` points at different times are left.
    """
    known = np.isfinite(time) & np.isfinite(wear)
    time, wear = _thinned(time[known], wear[known])
    n = len(time)
    if n < POINTS_MIN or time[-1] <= time[0]:
        raise ValueError(f"{n} points of wear; expected {POINTS_MIN} or more at different times")
    later, earlier = np.triu_indices(n, 1)[::-1]
    apart = time[later] - time[earlier]
    there = apart > 0
    rate = float(np.median((wear[later] - wear[earlier])[there] / apart[there]))
    flat = wear - rate * time
    step = float(np.median(np.diff(time)[np.diff(time) > 0]))
    span = float(time[-1] - time[0])
    wander, noise = _wander_and_noise(flat, step, n)
    # Of a line fitted to a Wiener process, and to white noise.
    error = np.sqrt(1.2 * wander / span + 12.0 * noise / (n * span * span))
    newest = _newest(wander * step, noise, n)
    level = float(np.mean(flat[-newest:])) + rate * float(time[-1])
    level_error = np.sqrt(noise / newest + wander * step * newest / 3.0)
    return Trend(
        level=level,
        level_error=float(level_error),
        rate=rate,
        rate_error=float(error),
        wander=float(np.sqrt(wander)),
        span=span,
    )


def time_to_limit(
    time: Float64,
    wear: Float64,
    limit: float,
    *,
    probability: float = 0.9,
    logarithmic: bool = False,
) -> Remaining:
    """Return when wear that grows towards *limit* reaches it, counted from the last time.

    :param time: float64[n], ascending. :param wear: float64[n].
    :param probability: of the interval.
    :param logarithmic: whether wear grows by a share of itself; values must then be above 0.
    :raises ValueError: as :func:`trend`; or if the probability is not between 0 and 1, or there is
        no logarithm of a value.
    """
    if not 0.0 < probability < 1.0:
        raise ValueError(f"a probability of {probability}; expected one between 0 and 1")
    wear = np.asarray(wear, np.float64)
    if logarithmic:
        if limit <= 0 or not (wear[np.isfinite(wear)] > 0).all():
            raise ValueError("wear or limit of 0 or below has no logarithm; expected above 0")
        wear, limit = np.log(wear), float(np.log(limit))
    found = trend(time, wear)
    tail = (1.0 - probability) / 2.0
    low, median, high = _quantiles(found, limit, np.asarray([tail, 0.5, 1.0 - tail]))
    return Remaining(median, low, high)


def _thinned(time: Float64, wear: Float64) -> tuple[Float64, Float64]:
    """Return medians of neighbouring points where there are too many."""
    if len(time) <= POINTS_MAX:
        return time, wear
    parts = np.array_split(np.arange(len(time)), POINTS_MAX)
    return (
        np.asarray([np.median(time[p]) for p in parts]),
        np.asarray([np.median(wear[p]) for p in parts]),
    )


def _wander_and_noise(flat: Float64, step: float, n: int) -> tuple[float, float]:
    """Return both as variances: of differences over k steps, ``wander * step * k + 2 * noise``."""
    lags = np.unique(np.linspace(1, max(3, n // 8), 6).astype(int))
    found = np.asarray([_variance(flat[lag:] - flat[:-lag]) for lag in lags])
    # Few differences over long lags are independent: they count for less.
    slope, offset = np.polyfit(lags, found, 1, w=1.0 / lags)
    # Early, chance often makes a wander of 0 of differences that hardly cover it.
    least = _WANDER_LEAST * float(found[-1]) / float(lags[-1])
    slope = min(max(float(slope), least), float(found[0]))
    noise = max((float(found[0]) - slope) / 2.0, 0.0) if offset < 0 else float(offset) / 2.0
    # A process that is seen over few of its own steps may wander more than it showed.
    more = 1.0 + 2.0 / np.sqrt(n / lags[-1])
    return slope / step * more, noise


def _newest(wander: float, noise: float, n: int) -> int:
    """Return over how many of the newest points noise is averaged out best."""
    best = np.sqrt(3.0 * noise / wander) if wander > 0 else n
    return int(np.clip(best, 1, max(3, n // 10)))


def _variance(differences: Float64) -> float:
    return float((_NORMAL * np.median(np.abs(differences - np.median(differences)))) ** 2)


def _quantiles(found: Trend, limit: float, shares: Float64) -> list[float]:
    """Return quantiles of the first time at which the limit is reached."""
    distance, rate = limit - found.level, found.rate
    # Wear may also shrink towards its limit, as a brake lining does.
    sign = 1.0 if distance >= 0 else -1.0
    distance, rate = abs(distance), sign * rate
    # Student's t, as the wander behind the error is itself known from few independent stretches.
    rates = rate + found.rate_error * stdtrit(_STRETCHES, (np.arange(_RATES) + 0.5) / _RATES)
    distances = distance + found.level_error * ndtri((np.arange(_LEVELS) + 0.5) / _LEVELS)
    times = found.span * np.geomspace(1e-4, _FAR, _TIMES)
    wander = max(found.wander, 1e-9 * max(distance, 1e-300) / np.sqrt(found.span))
    reached = np.mean(
        [
            _first_passage(float(d), rates[:, None], wander, times).mean(axis=0)
            if d > 0
            else np.ones(_TIMES)
            for d in distances
        ],
        axis=0,
    )
    reached = np.maximum.accumulate(reached)
    times = np.append(0.0, times)
    reached = np.append(0.0, reached)
    return [
        float(np.interp(share, reached, times)) if reached[-1] > share else float("inf")
        for share in shares.tolist()
    ]


def _first_passage(distance: float, rate: Float64, wander: float, time: Float64) -> Float64:
    """Return the inverse Gaussian distribution function, also for rates that are not positive."""
    root = wander * np.sqrt(time)
    first = ndtr((rate * time - distance) / root)
    again = 2.0 * rate * distance / (wander * wander) + log_ndtr(-(rate * time + distance) / root)
    found: Float64 = np.clip(first + np.exp(np.minimum(again, 0.0)), 0.0, 1.0)
    return found
