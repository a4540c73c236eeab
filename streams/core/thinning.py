"""Sending less of a series, with a bound on what the receiver gets wrong. Pure.

A filter is offered the readings of one series, each with an *item* that stands for it, and returns
the items that are to be sent, in order. Only real readings are ever sent, none is altered.

:class:`Deadband` sends a reading that differs from the last one sent; the receiver holds the last
value. :class:`SwingingDoor` sends the corners of a line through the readings; the receiver draws
straight lines between them. :func:`around` says which stretches of raw readings are near anomalies.

The bound is given, or follows from the noise of the series itself (:mod:`streams.core.noise`):
``NOISES`` standard deviations of that, as known when a stretch of readings begins that may be left
out, and for all of the stretch. Until the noise is known it is 0, and what is on no line is sent.

The bound holds for readings with finite values that come in the order of their times. Others, late
ones and those that the caller wants sent in any case are sent as they are, beside the line: who
rebuilds it leaves out what is older than its predecessor. A filter that was lost (a crash) begins
anew, and between the last reading it sent and the first after it nothing is promised.
"""

from __future__ import annotations

from math import inf, isfinite
from typing import Generic, TypeVar

import numpy as np

from streams.core.noise import Noise
from streams.core.readings import Int64

NOISES = 2.0
"""Bound of a filter that is given none, in standard deviations of the noise of the series."""
T = TypeVar("T")
_EPSILON = float(np.finfo(np.float64).eps)
_ROUNDING = 8 * _EPSILON
"""Of a sum of values: more than the arithmetic here, and of whoever draws the line, can be off."""


class _Bounded:
    """A bound that is given, or follows from the noise."""

    def __init__(self, bound: float | None, max_gap_ms: int) -> None:
        """Make a filter that has seen nothing.

        :param bound: in the unit of the values, 0 or more; 0 sends every change. None: it follows
            from the noise.
        :param max_gap_ms: greatest distance of event times between two that are sent, unless the
            readings themselves are further apart.
        """
        assert (bound is None or bound >= 0) and max_gap_ms > 0, (bound, max_gap_ms)
        self._given, self._max_gap_ms = bound, max_gap_ms
        self._noise = Noise()
        self.bound = bound or 0.0
        """The one that is in force, for readings since the last that was sent by itself."""

    def _learn(self, t_ms: int, value: float) -> None:
        if self._given is None:
            self._noise = self._noise.seen(t_ms, value)

    def _renew(self) -> None:
        """Let the bound be what is known now: a stretch of readings begins."""
        if self._given is None:
            self.bound = NOISES * self._noise.deviation


class Deadband(_Bounded, Generic[T]):
    """Sends a reading if it is further than *bound* from the last one sent, or *max_gap_ms* later.

    The value that the receiver holds is never further than *bound* from a reading that is not sent.
    """

    def __init__(self, bound: float | None, max_gap_ms: int) -> None:
        """Make a filter that has seen nothing; parameters as of :class:`_Bounded`."""
        super().__init__(bound, max_gap_ms)
        self._t_ms = -1
        self._value = 0.0

    def offer(self, t_ms: int, value: float, item: T) -> tuple[T, ...]:
        """Take the next reading; return what is to be sent."""
        since_ms = t_ms - self._t_ms
        if since_ms < 0:
            return (item,)
        if isfinite(value):
            self._learn(t_ms, value)
        is_near = abs(value - self._value) <= self.bound and since_ms < self._max_gap_ms
        if is_near and self._t_ms >= 0:
            return ()
        self._t_ms, self._value = t_ms, value
        self._renew()
        return (item,)

    @property
    def waiting(self) -> T | None:
        """Nothing waits."""
        return None

    def hold(self, item: T) -> None:
        """Nothing waits, so nothing stands for it."""

    def flush(self) -> tuple[T, ...]:
        """Nothing waits."""
        return ()


class SwingingDoor(_Bounded, Generic[T]):
    """Sends the corners of a line that passes every reading at *bound* or nearer.

    From the last corner, each reading lets through the lines that pass it within the bound: two
    doors, which only ever close. A reading that stands in the open may be the other end of a line
    past all between. One that does not makes its predecessor, which did, a corner. So the newest
    reading waits, until the next one comes or :meth:`flush`.

    After Bristol, *Swinging door trending* (ISA 1990); there a corner need not stand in the open,
    and lines can miss readings by twice the bound.
    """

    def __init__(self, bound: float | None, max_gap_ms: int) -> None:
        """Make a filter that has seen nothing; parameters as of :class:`_Bounded`."""
        super().__init__(bound, max_gap_ms)
        self._corner: tuple[int, float] | None = None
        self._waiting: tuple[int, float, T] | None = None
        self._low, self._high = -inf, inf

    def offer(self, t_ms: int, value: float, item: T) -> tuple[T, ...]:
        """Take the next reading; return what is to be sent."""
        corner, waiting = self._corner, self._waiting
        if not isfinite(value):
            return (item,)
        if corner is None:
            self._learn(t_ms, value)
            self._begin(t_ms, value)
            return (item,)
        if t_ms <= (corner[0] if waiting is None else waiting[0]):
            return (item,)
        self._learn(t_ms, value)
        if waiting is None:
            return self._wait(t_ms, value, item)
        slope = (value - corner[1]) / (t_ms - corner[0])
        if self._low <= slope <= self._high and t_ms - corner[0] <= self._max_gap_ms:
            return self._wait(t_ms, value, item)
        # The doors have closed before it: a line from the one that waits, which is sent.
        self._begin(waiting[0], waiting[1])
        return (waiting[2], *self._wait(t_ms, value, item))

    @property
    def waiting(self) -> T | None:
        """What stands for the reading that waits; None if none does."""
        return None if self._waiting is None else self._waiting[2]

    def hold(self, item: T) -> None:
        """Let *item* stand for the reading that waits from now on; nothing if none does."""
        if self._waiting is not None:
            self._waiting = (*self._waiting[:2], item)

    def flush(self) -> tuple[T, ...]:
        """Send the reading that waits, as before a pause: it becomes a corner."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return ()
        self._begin(waiting[0], waiting[1])
        return (waiting[2],)

    def _begin(self, t_ms: int, value: float) -> None:
        self._corner, self._waiting = (t_ms, value), None
        self._low, self._high = -inf, inf
        self._renew()

    def _wait(self, t_ms: int, value: float, item: T) -> tuple[T, ...]:
        """Let a reading wait, and close the doors for it."""
        assert self._corner is not None
        begin_ms, begin = self._corner
        if t_ms - begin_ms >= self._max_gap_ms:
            self._begin(t_ms, value)
            return (item,)
        rise, run = value - begin, t_ms - begin_ms
        slack = self.bound - _ROUNDING * (abs(value) + abs(begin) + self.bound)
        if not rise:
            slack = max(0.0, slack)  # between equal values nothing is rounded
        self._low = max(self._low, (rise - slack) / run)
        self._high = min(self._high, (rise + slack) / run)
        self._waiting = (t_ms, value, item)
        return ()


def around(flagged_ms: Int64, before_ms: int, after_ms: int) -> Int64:
    """Return the stretches of time around anomalies, whose raw readings are to be sent.

    :param flagged_ms: event times of anomalies, int64[n], in any order.
    :param before_ms: how long before each, 0 or more.
    :param after_ms: how long after each, 0 or more.
    :returns: int64[k, 2], half-open, in order, none touching another.
    """
    if not len(flagged_ms):
        return np.empty((0, 2), np.int64)
    ordered = np.sort(flagged_ms)
    begin, end = ordered - before_ms, ordered + after_ms + 1
    is_first = np.ones(len(ordered), np.bool_)
    is_first[1:] = begin[1:] > end[:-1]
    is_last = np.roll(is_first, -1)
    return np.stack([begin[is_first], end[is_last]], axis=1)
