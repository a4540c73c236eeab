"""The ensemble for one reading at a time, in plain numbers: an edge has no batches.

The same arithmetic as :mod:`models.core.baselines`, :mod:`~models.core.channels`,
:mod:`~models.core.season` and :mod:`~models.core.tails`, in the same order, so with the same bits:
IEEE operations do not depend on who does them, and logarithms, which do, are numpy's here as well.
numpy spends a microsecond on each of three hundred calls, however few numbers they get; for one
reading that is five times what the arithmetic costs. A property test compares every bit of scores
and state; whoever changes a formula there changes it here.

Cost: ``docs/decisions/0038-one-reading-in-plain-numbers.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from typing import Any

import numpy as np

from models.core import baselines as b
from models.core import season as se
from models.core import tails as ta
from models.core.channels import Channel
from models.core.season import Profile

_OF_NOISE = ("variance", "loudness")
NAMES = frozenset(
    (*_OF_NOISE, "level", "spike", "season", "shift", "stuck", "gap", "drift", "creep", "range")
)
"""Channels that this file knows."""
Reading = tuple[int, int, float]
"""Series, event time in ms, and value."""


class Look:
    """What is known of one reading just before it: as :class:`models.core.channels.Moment` and
    :class:`models.core.baselines.Look`, but numbers."""

    __slots__ = (
        "creep", "drift", "expected", "floor", "hour", "known", "level_gap", "level_spread",
        "loudness", "near_gap", "near_spread", "noise", "of_day", "of_week", "outside", "per_day",
        "run", "season_gap", "season_spread", "seasonal", "shift", "slot", "spread",
        "spread_of_slot", "step", "waited", "week_known",
    )  # fmt: skip

    creep: float
    drift: float
    expected: float
    floor: float
    hour: int
    known: float
    level_gap: float
    level_spread: float
    loudness: float
    near_gap: float
    near_spread: float
    noise: float
    of_day: float
    of_week: float
    outside: float
    per_day: float
    run: float
    season_gap: float
    season_spread: float
    seasonal: bool
    shift: float
    slot: int
    spread: float
    spread_of_slot: float
    step: float
    waited: float
    week_known: float

    def statistics(self) -> dict[str, float]:
        """Return what each channel gives, by its name."""
        return {
            "level": abs(self.level_gap) / self.level_spread,
            "spike": abs(self.near_gap) / self.near_spread,
            "season": abs(self.season_gap) / self.season_spread if self.seasonal else 0.0,
            "shift": abs(self.shift),
            "variance": abs(self.noise),
            "loudness": self.loudness if self.loudness > 0.0 else 0.0,
            "stuck": float(np.log2(1.0 + self.run)) if self.run else 0.0,
            "gap": float(np.log2(self.waited)) if self.waited > 1.0 else 0.0,
            "drift": abs(self.drift),
            "creep": self.creep,
            "range": self.outside,
        }


class Rates:
    """The weights of new values, as :class:`models.core.baselines.Baselines` has them."""

    def __init__(self, half_life: float, min_spread: float) -> None:
        self.min_spread = max(min_spread, 1e-30)
        self.slow = b.alpha(half_life)
        self.near = b.alpha(b.NEAR_HALF_LIFE)
        self.middle = b.alpha(b.MIDDLE_HALF_LIFE)
        self.drift = b.alpha(b.DAYS_HALF_LIVES * half_life)
        self.anchor = b.alpha(b.ANCHOR_HALF_LIVES * half_life)
        self.steps = b.alpha(b.STEP_HALF_LIFE)
        self.usual_drift = b.alpha(b.DRIFT_HALF_LIVES * half_life)
        self.settled = b.ANCHOR_HALF_LIVES * half_life


def look(c: list[float], reading: Reading, profile: Profile, rates: Rates) -> Look:
    """Return what is known just before a reading, as :meth:`Baselines.look`."""
    at = Look()
    s, t_ms, x = reading
    count = c[b.SEEN]
    first = count == 0.0
    if first:
        for row in (b.SLOW, b.NEAR, b.MEAN, b.LOW, b.HIGH, b.ANCHOR):
            c[row] = x
        c[b.TIME] = float(t_ms)
    slow = c[b.SLOW]
    floor = max(b.RELATIVE * abs(slow), b.DEVIATION_SHARE * sqrt(c[b.VARIANCE]), rates.min_spread)
    at.floor = floor
    at.level_gap, at.near_gap = x - slow, x - c[b.NEAR]
    at.level_spread, at.near_spread = max(c[b.SLOW_SPREAD], floor), max(c[b.NEAR_SPREAD], floor)
    interval = max(c[b.INTERVAL], b.INTERVAL_MIN_MS)
    at.per_day = se.DAY_MS / interval
    of_season = _usual(at, profile, s, t_ms, c)
    at.seasonal = (
        count > b.SEASON_AFTER_DAYS * at.per_day
        and c[b.SEASON_ERROR] < b.SEASON_GAIN * c[b.LEVEL_ERROR]
    )
    at.season_gap = x - of_season
    at.expected = of_season if at.seasonal else slow
    at.spread = at.season_spread if at.seasonal else at.level_spread
    met = 1.0 / (count + 1.0)
    _follow_means(c, x, at, rates, met)
    _step(c, x, at, rates)
    c[b.RUN] = at.run = c[b.RUN] + 1.0 if x == c[b.LAST] and not first else 0.0
    width = max(c[b.HIGH] - c[b.LOW], floor)
    outside = max(x - c[b.HIGH], c[b.LOW] - x, 0.0) / width
    at.outside = outside if count > b.UNCLIPPED else 0.0
    ratio = (c[b.NOISE] + b.NOISE_FLOOR) / (c[b.USUAL_NOISE] + b.NOISE_FLOOR)
    at.noise = float(np.log(ratio))
    at.waited = max(t_ms - c[b.TIME], 0.0) / interval if count > 2.0 else 0.0
    return at


def _usual(at: Look, profile: Profile, s: int, t_ms: int, c: list[float]) -> float:
    """Look up the bins of a time; return what is usual there."""
    held = profile.state()
    at.slot = slot = t_ms // se.SLOT_MS % se.SLOTS
    at.hour = hour = t_ms % se.WEEK_MS // se.HOUR_MS
    at.known = float(held["day_count"].item(s, slot))
    at.week_known = float(held["week_count"].item(s, hour))
    at.of_day, at.of_week = held["day"].item(s, slot), held["week"].item(s, hour)
    at.spread_of_slot = held["day_spread"].item(s, slot)
    weight = min(at.known, se.SPREAD_KNOWN)
    overall = max(c[b.SEASON_SPREAD], at.floor)
    spread = (at.spread_of_slot * weight + se.SPREAD_DOUBT * overall) / (weight + se.SPREAD_DOUBT)
    at.season_spread = max(spread, at.floor)
    base = at.of_day if at.known > 0.0 else c[b.NEAR]
    return base + at.of_week * (at.week_known / (at.week_known + se.WEEK_DOUBT))


def _follow_means(c: list[float], x: float, at: Look, rates: Rates, met: float) -> None:
    clip = b.SHIFT_CLIP
    shift = min(max((x - at.expected) / at.spread, -clip), clip)
    drift = min(max((x - c[b.ANCHOR]) / at.level_spread, -clip), clip)
    noise = min(abs(at.near_gap) / at.near_spread, b.NOISE_CLIP)
    middle = max(rates.middle, met)
    c[b.SHIFT] = at.shift = c[b.SHIFT] + middle * (shift - c[b.SHIFT])
    c[b.DRIFT] = at.drift = c[b.DRIFT] + max(rates.drift, met) * (drift - c[b.DRIFT])
    at.creep = abs(at.drift) / (c[b.USUAL_DRIFT] + b.DRIFT_LEAST)
    c[b.NOISE] += middle * (noise - c[b.NOISE])


def _step(c: list[float], x: float, at: Look, rates: Rates) -> None:
    count = c[b.SEEN]
    if count == 0.0:
        at.step = 0.0
    else:
        log: Any = np.log(abs(x - c[b.LAST]) + b.STEP_LEAST * at.near_spread)
        at.step = float(log) - c[b.USUAL_STEP]
        if count >= b.UNCLIPPED:
            at.step = min(max(at.step, -b.STEP_CLIP), b.STEP_CLIP)
    rate = max(rates.steps, 1.0 / max(count, 1.0))
    c[b.LOUDNESS] += rate * (at.step - c[b.LOUDNESS])
    at.loudness = c[b.LOUDNESS] if abs(c[b.DWELL]) <= b.AWAY else 0.0


def learn(c: list[float], reading: Reading, at: Look, profile: Profile, rates: Rates) -> None:
    """Take a reading into the cells and the profile, as :meth:`Baselines.learn`."""
    s, t_ms, x = reading
    count = c[b.SEEN]
    met = 1.0 / (count + 1.0)
    slow = max(rates.slow, met)
    slow_but_first = 0.0 if count == 0.0 else slow
    level_gap, near_gap = at.level_gap, at.near_gap
    from_anchor = x - c[b.ANCHOR]
    if count >= b.UNCLIPPED:
        bound = b.CLIP * at.level_spread
        level_gap = min(max(level_gap, -bound), bound)
        bound = b.CLIP * at.near_spread
        near_gap = min(max(near_gap, -bound), bound)
        bound = b.SHIFT_CLIP * at.level_spread
        from_anchor = min(max(from_anchor, -bound), bound)
    c[b.SLOW] += slow * level_gap
    c[b.NEAR] += max(rates.near, met) * near_gap
    c[b.SLOW_SPREAD] += slow_but_first * (abs(level_gap) * b.GAUSS - c[b.SLOW_SPREAD])
    c[b.NEAR_SPREAD] += slow_but_first * (abs(near_gap) * b.GAUSS - c[b.NEAR_SPREAD])
    from_mean = x - c[b.MEAN]
    c[b.VARIANCE] += slow_but_first * (from_mean * from_mean - c[b.VARIANCE])
    c[b.MEAN] += slow * from_mean
    c[b.ANCHOR] += max(rates.anchor, met) * from_anchor
    held, drift = c[b.USUAL_DRIFT], abs(at.drift)
    if count >= rates.settled:
        drift = min(drift, b.DRIFT_CLIP * (held + b.DRIFT_LEAST))
    c[b.USUAL_DRIFT] += max(rates.usual_drift, met) * (drift - held)
    _follow(c, at, slow)
    by = max(rates.slow, 1.0 / max(count, 1.0)) * at.step
    c[b.USUAL_STEP] += by
    c[b.LOUDNESS] -= by
    _profile_learns(profile, s, x, at)
    _accept(c, profile, s, x, at)
    interval = c[b.INTERVAL]
    waited = max(t_ms - c[b.TIME], 0.0)
    move = b.INTERVAL_STEP * min(max(waited - interval, -0.5 * interval), 0.5 * interval)
    c[b.INTERVAL] = waited if count <= 1.0 else interval + move
    c[b.TIME] = float(t_ms)
    c[b.LOW], c[b.HIGH] = min(c[b.LOW], x), max(c[b.HIGH], x)
    c[b.LAST] = x
    c[b.SEEN] += 1.0


def _follow(c: list[float], at: Look, rate: float) -> None:
    most = b.ERROR_CLIP * at.level_spread
    if at.known > 0.0:
        error = abs(at.season_gap)
        most += abs(at.season_gap - at.level_gap)
        held = c[b.SEASON_SPREAD]
        bound = b.CLIP * max(held, at.floor) if held > 0.0 else inf
        c[b.SEASON_SPREAD] += rate * (min(error, bound) * b.GAUSS - held)
        c[b.SEASON_ERROR] += rate * (min(error, most) - c[b.SEASON_ERROR])
    c[b.LEVEL_ERROR] += rate * (min(abs(at.level_gap), most) - c[b.LEVEL_ERROR])
    newest = min(abs(at.near_gap) / at.near_spread, b.NOISE_CLIP)
    c[b.USUAL_NOISE] += rate * (newest - c[b.USUAL_NOISE])


def _profile_learns(profile: Profile, s: int, x: float, at: Look) -> None:
    held = profile.state()
    known, week_known, slot, hour = at.known, at.week_known, at.slot, at.hour
    move = b.CLIP * max(at.level_spread, at.floor)
    met = 1.0 / (known + 1.0)
    visits = max(at.per_day / se.SLOTS, 1.0)
    gap = x - at.of_day
    if known > 0.0:
        size = min(abs(at.season_gap), 3.0 * at.season_spread) * se.GAUSS - at.spread_of_slot
        rate = max(met, 1.0 / (se.SPREAD_MEMORY * visits))
        held["day_spread"][s, slot] = at.spread_of_slot + rate * size
        rest = gap - at.of_week
        gap = min(max(gap, -move), move)
    else:
        held["day_spread"][s, slot] = at.spread_of_slot
        rest = 0.0 - at.of_week
    held["day"][s, slot] = at.of_day + max(met, 1.0 / (se.DAY_MEMORY * visits)) * gap
    visits = max(at.per_day / 24.0, 1.0)
    rate = max(1.0 / (week_known + 1.0), 1.0 / (se.WEEK_MEMORY * visits))
    held["week"][s, hour] = at.of_week + rate * min(max(rest, -move), move)
    held["day_count"][s, slot] = min(known + 1.0, se.COUNT_MAX)
    held["week_count"][s, hour] = min(week_known + 1.0, se.COUNT_MAX)


def _accept(c: list[float], profile: Profile, s: int, x: float, at: Look) -> None:
    away = (x - at.expected) / at.spread
    if away >= b.CLIP:
        c[b.DWELL] = max(c[b.DWELL], 0.0) + 1.0
    elif away <= -b.CLIP:
        c[b.DWELL] = min(c[b.DWELL], 0.0) - 1.0
    else:
        c[b.DWELL] = 0.0
        return
    if abs(c[b.DWELL]) >= b.ACCEPTED_AFTER:
        by = c[b.NEAR] - at.expected
        c[b.SLOW] += by
        c[b.ANCHOR] += by
        profile.shift(np.asarray([s], np.int32), np.asarray([by]))
        c[b.USUAL_STEP] += c[b.LOUDNESS]
        c[b.LOUDNESS] = 0.0
        c[b.DWELL] = 0.0


class Tails:
    """The tails of one reading's statistics, as :mod:`models.core.tails`.

    :param begin: where their cells begin among those of the series.
    :param shares: where the shares of the counted ones begin.
    """

    def __init__(self, chosen: Sequence[Channel], warmup: float, begin: int, shares: int) -> None:
        self._k, self._begin = len(chosen), begin
        counted = [one.counted for one in chosen]
        self._each = [
            (
                float(one.floor),
                float(one.excess),
                float(one.stride),
                float(one.pace),
                one.settling * warmup,
                float(np.log(float(one.stride))),
                shares + sum(counted[:j]) if one.counted else -1,
                one.pointwise,
            )
            for j, one in enumerate(chosen)
        ]

    def judge(
        self, c: list[float], statistics: Sequence[float], limit: float
    ) -> tuple[list[float], float]:
        """Return how surprising each statistic is, and learn it; and which share of the last one's
        is news, by the tail of the first."""
        k, begin, count, found = self._k, self._begin, c[b.SEEN], []
        news = 1.0
        if statistics[-1] > 0.0:
            floor, excess, *_, pointwise = self._each[0]
            shape = _tail(c, (begin, k), (floor, excess), pointwise=pointwise)[1]
            news = min(max(1.0 - shape / ta.HEAVY, 0.0), 1.0)
        for j, (each, given) in enumerate(zip(self._each, statistics, strict=True)):
            floor, excess, stride, pace, settled, per_event, share, pointwise = each
            if count < settled:
                found.append(0.0)
                continue
            statistic, at = min(given, limit), begin + j
            u = c[at]
            rarer = per_event * (count / (count + stride * (ta.PRIOR_WEIGHT / ta.SHARE)))
            prior = (floor, excess, rarer)
            found.append(_surprise(c, (at, k, share), statistic, prior, pointwise=pointwise))
            if share >= 0 and not _count(c, share, 0.0 < statistic <= u):
                continue
            if pace > 0.0 and count % stride == 0.0:
                rate = max(1.0 / ta.MEMORY, 1.0 / (count / stride + 8.0)) * (ta.STEP / ta.SHARE)
                step = min(rate, pace)
                if statistic > u:
                    _learn_excess(c, at, k, min(statistic - u, ta.EXCESS_MAX * u))
                    factor = 1.0 + step * (1.0 - ta.SHARE)
                else:
                    factor = 1.0 - step * ta.SHARE
                c[at] = max(u * factor, floor)
        return found, news


def _surprise(
    c: list[float],
    where: tuple[int, int, int],
    statistic: float,
    prior: tuple[float, float, float],
    *,
    pointwise: bool,
) -> float:
    at, k, share = where
    u = c[at]
    body = ta.SURPRISE_AT_THRESHOLD * min(statistic / u, 1.0)
    if share >= 0:
        log: Any = np.log(c[share])
        body *= float(log) / ta.LOG_SHARE
    if statistic <= u:
        return body
    floor, excess, rarer = prior
    mean, shape = _tail(c, (at, k), (floor, excess), pointwise=pointwise)
    beyond = (statistic - u) / (mean * (1.0 - shape))
    log = np.log(max(1.0 + shape * beyond, ta.LEFT_MIN))
    tail = float(log) / shape
    return body + tail + min(rarer, max(tail, 0.0))


def _tail(
    c: list[float], where: tuple[int, int], prior: tuple[float, float], *, pointwise: bool
) -> tuple[float, float]:
    """Return mean excess and shape of one statistic."""
    at, k = where
    floor, excess = prior
    u, seen = c[at], c[at + 3 * k]
    weight = seen + ta.PRIOR_WEIGHT
    usual = excess * (u / floor)
    mean = (c[at + k] * seen + ta.PRIOR_WEIGHT * usual) / weight
    square = (c[at + 2 * k] * seen + (ta.PRIOR_SQUARE * ta.PRIOR_WEIGHT) * usual * usual) / weight
    ratio = mean * mean
    ratio = ratio / max(square - ratio, 1e-12 * ratio)
    shape = min(max(0.5 * (1.0 - ratio), ta.SHAPE_MIN), ta.SHAPE_MAX)
    if pointwise:
        doubt = ta.HEAVY_WEIGHT * max(1.0 - seen / ta.HEAVY_LASTS, 0.0)
        shape += doubt / max(seen + doubt, 1.0) * (ta.HEAVY - shape)
        shape = min(ta.WIDER * shape if shape > 0.0 else shape, ta.SHAPE_MAX)
    if abs(shape) < ta.SHAPE_LEAST:
        shape = ta.SHAPE_LEAST
    return mean, shape


def _count(c: list[float], share: int, ever: bool) -> bool:
    """Count one statistic; return whether its tail learns."""
    pace = max(1.0 / (c[b.SEEN] + 1.0 / ta.SHARE), 1.0 / ta.COUNTED_MEMORY)
    held = c[share] + pace * (float(ever) - c[share])
    c[share] = min(max(held, ta.COUNTED_MIN), ta.SHARE)
    return c[share] >= ta.COUNTED_RARE


def _learn_excess(c: list[float], at: int, k: int, excess: float) -> None:
    seen = c[at + 3 * k] + 1.0
    share = 1.0 / max(min(seen, ta.EXCESS_MEMORY), 1.0)
    c[at + k] += share * (excess - c[at + k])
    c[at + 2 * k] += share * (excess * excess - c[at + 2 * k])
    c[at + 3 * k] = min(seen, ta.EXCESS_MEMORY)
