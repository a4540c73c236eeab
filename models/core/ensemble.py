"""All ways to be strange at once, for many series: one score, and why.

For each reading the channels (:mod:`models.core.channels`) give their statistics of it and of what
came before, the tails (:mod:`models.core.tails`) say how improbable each is for this series, and
the most improbable one counts, plus a share for being beyond everything seen so far. Only then is
the reading learnt (:mod:`models.core.baselines`).

Works without tuning for levels, seasons, counts and heavy tails, from a reading a second to one an
hour. Does not forecast, and knows no other series. Cost: ``docs/detection.md``; 3.1 kB of state per
series.

Defined for any input: what is not finite scores 0 and teaches nothing; beyond 1e100 a value counts
as 1e100; time that goes back counts as no time; constants score 0 until they change; another unit
is a change of level, told once and accepted after some hundred readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.core import baselines, channels, single, tails
from models.core.baselines import HIGH, INTERVAL, LOW, SEEN, Baselines
from models.core.channels import Channel
from models.core.rounds import rounds
from models.core.tails import Priors
from models.core.words import Finding, sentence

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

_VALUE_MAX = 1e100
_STATISTIC_MAX = 1e6
_PLUS_ZERO = 0.0
"""Added to -0 gives 0: which of the two is the lesser, Python and numpy do not agree on."""
_RANGE_SHARE = 0.25
"""Of the surprise of being beyond everything seen, so much is added; the less, the heavier the
tail of readings by itself, which is left by what is usual there."""
_DETAILS = 7
_FEW = 6
"""Rows of a round up to which each by itself is cheaper than columns."""
_DECADES = float(1.0 / np.log(10.0))
TELLING = 9.0
"""Surprise from which a channel counts as strange, in ``since_ms`` and in words."""
SCORE_MAX = 1e3


@dataclass(frozen=True, slots=True)
class EnsembleParams:
    """``half_life`` (of level and spread) and ``warmup`` in readings; ``min_spread`` as the
    series."""

    half_life: int = 576
    warmup: int = 64
    min_spread: float = 1e-9


@dataclass(frozen=True, slots=True)
class Examined:
    """*n* readings, scored.

    ``surprise`` is float64[channels, n], each the negative natural logarithm of a tail
    probability; ``since_ms`` since when each has been telling, 0 where it is not. ``expected`` and
    ``spread`` are NaN for values that are not finite.
    """

    names: tuple[str, ...]
    t_ms: Int64
    value: Float64
    score: Float64
    expected: Float64
    spread: Float64
    surprise: Float64
    since_ms: Float64
    details: Float64

    def why(self, row: int, unit: str = "") -> str:
        """Return in words what is strange about a reading, with numbers in its *unit*: its telling
        channels, the strangest first, or else the strangest alone."""
        run, waited_ms, interval_ms, low, high, noise, loudness = self.details[:, row].tolist()
        found = Finding(
            t_ms=int(self.t_ms[row]),
            value=float(self.value[row]),
            expected=float(self.expected[row]),
            run=round(run),
            waited_ms=waited_ms,
            interval_ms=interval_ms,
            low=low,
            high=high,
            noise=noise,
            loudness=loudness,
            unit=unit,
        )
        surprise = self.surprise[:, row]
        order = np.argsort(-surprise, kind="stable").tolist()
        telling = [k for k in order if surprise[k] >= TELLING] or order[:1]
        return sentence([(self.names[k], int(self.since_ms[k, row])) for k in telling], found)


class Ensemble:
    """The channels on many series, which are dense indices that :meth:`grow` makes.

    The score counts decades of improbability, the negative logarithm to base 10: by the series' own
    past 4 is one reading in 10,000 and 5 one in 100,000, or in two months at one a minute. It is
    the same, to the bit, however the readings are batched.

    :param chosen: the channels to use, all by default.
    :param few: series in a round up to which each is scored by itself, in plain numbers.
    """

    NAME = "ensemble/4"

    def __init__(
        self,
        params: EnsembleParams,
        chosen: Sequence[Channel] = channels.ALL,
        few: int = _FEW,
    ) -> None:
        self._channels = tuple(chosen)
        self.names = tuple(channel.name for channel in chosen)
        k = len(self._channels)
        self._baselines = Baselines(params.half_life, params.min_spread)
        self._warm = np.asarray([[channel.settling * float(params.warmup)] for channel in chosen])
        self._priors = Priors(
            floor=np.asarray([[float(channel.floor)] for channel in chosen]),
            excess=np.asarray([[float(channel.excess)] for channel in chosen]),
            stride=np.asarray([[float(channel.stride)] for channel in chosen]),
            pace=np.asarray([[float(channel.pace)] for channel in chosen]),
            pointwise=np.asarray([[channel.pointwise] for channel in chosen]),
            counted=np.flatnonzero([channel.counted for channel in chosen]),
        )
        begin = baselines.CELLS
        self._base, self._tails = slice(begin), slice(begin, begin + tails.CELLS * k)
        self._since = slice(self._tails.stop, self._tails.stop + k)
        self._shares = slice(self._since.stop, self._since.stop + len(self._priors.counted))
        self._cells = np.empty((self._shares.stop, 0))
        self._rates = single.Rates(params.half_life, params.min_spread)
        self._single_tails = single.Tails(chosen, float(params.warmup), begin, self._shares.start)
        self._few = few if single.NAMES.issuperset(self.names) else 0

    def grow(self, series: int) -> None:
        """Make room for series indices below *series*; new ones know nothing."""
        held = self._cells.shape[1]
        if series > held:
            room = max(64, 2 * held, series)
            more = np.zeros((len(self._cells), room - held))
            more[self._tails] = tails.fresh(self._priors, room - held)
            more[self._shares] = tails.SHARE
            self._cells = np.concatenate([self._cells, more], axis=1)
            self._baselines.profile.grow(room)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the live arrays by name, a row per series: what a snapshot reads and a restore
        writes."""
        return {"cells": self._cells.T, **self._baselines.profile.state()}

    def score(self, series: Int32, t_ms: Int64, value: Float64) -> tuple[Float64, Float64, Float64]:
        """Score readings in order of arrival, and learn them.

        :param series: int32[n]. :param t_ms: int64[n], event time. :param value: float64[n].
        :returns: score, expected and spread, float64[n] each; the score is 0 while a series has
            fewer than ``warmup`` readings.
        """
        found = self.examine(series, t_ms, value)
        return found.score, found.expected, found.spread

    def examine(self, series: Int32, t_ms: Int64, value: Float64) -> Examined:
        """Score readings as :meth:`score` does, and return all that was found."""
        n, k = len(value), len(self._channels)
        found = Examined(
            names=self.names,
            t_ms=t_ms,
            value=value,
            score=np.zeros(n),
            expected=np.full(n, np.nan),
            spread=np.full(n, np.nan),
            surprise=np.zeros((k, n)),
            since_ms=np.zeros((k, n)),
            details=np.zeros((_DETAILS, n)),
        )
        finite = np.isfinite(value)
        rows = None if finite.all() else np.flatnonzero(finite)
        for part in rounds(series if rows is None else series[rows]):
            at = part if rows is None else rows[part]
            if len(at) > self._few:
                self._round(series, at, found)
            else:
                for row in at.tolist():
                    self._single(int(series[row]), row, found)
        return found

    def _single(self, s: int, row: int, found: Examined) -> None:
        """Score and learn one row: as :meth:`_round`, in plain numbers."""
        t_ms, profile = int(found.t_ms[row]), self._baselines.profile
        x = min(max(float(found.value[row]), -_VALUE_MAX), _VALUE_MAX) + _PLUS_ZERO
        c = self._cells[:, s].tolist()
        look = single.look(c, (s, t_ms, x), profile, self._rates)
        given = look.statistics()
        details = (
            look.run,
            look.waited * c[INTERVAL],
            c[INTERVAL],
            c[LOW],
            c[HIGH],
            look.noise,
            look.loudness,
        )
        statistic = [given[name] for name in self.names]
        surprise, news = self._single_tails.judge(c, statistic, _STATISTIC_MAX)
        since = [
            (held if held > 0.0 else float(t_ms)) if much >= TELLING else 0.0
            for held, much in zip(c[self._since], surprise, strict=True)
        ]
        c[self._since] = since
        strangest = max(surprise)
        if self.names[-1] == channels.Range.name:
            strangest += _RANGE_SHARE * news * surprise[-1]
        found.score[row] = min(strangest * _DECADES, SCORE_MAX)
        found.expected[row], found.spread[row] = look.expected, look.spread
        found.surprise[:, row], found.since_ms[:, row] = surprise, since
        found.details[:, row] = details
        single.learn(c, (s, t_ms, x), look, profile, self._rates)
        self._cells[:, s] = c

    def _round(self, series: Int32, at: Int64, found: Examined) -> None:
        """Score and learn rows *at*, which hold each series at most once."""
        s, t_ms = series[at], found.t_ms[at]
        x = np.clip(found.value[at], -_VALUE_MAX, _VALUE_MAX) + _PLUS_ZERO
        c = self._cells.take(s, axis=1)
        look = self._baselines.look(c, s, t_ms, x)
        statistic = np.stack([channel.statistic(look.moment) for channel in self._channels])
        np.minimum(statistic, _STATISTIC_MAX, out=statistic)
        state = c[self._tails].reshape(tails.CELLS, len(self._channels), len(at))
        speaks = c[SEEN] >= self._warm
        surprise, shape = tails.surprise(state, c[self._shares], statistic, self._priors, c[SEEN])
        surprise = np.where(speaks, surprise, 0.0)
        since = c[self._since]
        since[:] = np.where(surprise >= TELLING, np.where(since > 0, since, t_ms), 0.0)
        found.score[at] = self._combined(surprise, shape[0])
        found.expected[at], found.spread[at] = look.expected, look.spread
        found.surprise[:, at], found.since_ms[:, at] = surprise, since
        m = look.moment
        waited_ms = m.waited * c[INTERVAL]
        details = (m.run, waited_ms, c[INTERVAL], c[LOW], c[HIGH], m.noise, m.loudness)
        for row, detail in zip(found.details, details, strict=True):
            row[at] = detail
        rows = self._priors.counted
        if len(rows):
            speaks[rows] = tails.count_more(
                c[self._shares], statistic[rows], state[0, rows], c[SEEN], speaks[rows]
            )
        tails.learn(state, statistic, self._priors, c[SEEN], speaks)
        self._baselines.learn(c[self._base], s, t_ms, x, look)
        self._cells[:, s] = c

    def _combined(self, surprise: Float64, shape: Float64) -> Float64:
        strangest = surprise.max(axis=0)
        if self.names[-1] == channels.Range.name:
            news = np.clip(1.0 - shape / tails.HEAVY, 0.0, 1.0)
            strangest += _RANGE_SHARE * news * surprise[-1]
        score: Float64 = np.minimum(strangest * _DECADES, SCORE_MAX)
        return score
