"""How far a series is off a smooth course by itself: its noise, seen as its readings come. Pure."""

from __future__ import annotations

from array import array
from math import isfinite, sqrt
from typing import NamedTuple

WINDOW = 64
"""Readings whose noise is remembered."""
WARM_UP = 32
"""So many have to be known before anything is said."""
_TO_DEVIATION = 1.4826
"""From the median of absolute values to the standard deviation, of normal noise."""


_NOTHING: array[float] = array("d")


class Noise(NamedTuple):
    """The noise of the last readings of a series; never altered, each reading makes a new one.

    Of each reading: how far it is off the straight line between its neighbours, divided by what
    that is for noise of standard deviation 1. These are the pseudo-residuals of Gasser, Sroka and
    Jennen-Steinmetz, *Residual variance and residual pattern in nonlinear regression* (Biometrika
    1986), which a trend does not touch, nor uneven times. Their median is what a few jumps cannot
    move; it is 0 where more than half of the readings lie on a straight line with their
    neighbours, such as of a series that stands still.
    """

    before: tuple[float, float] | None = None
    """Time and value of the last reading but one."""
    last: tuple[float, float] | None = None
    off: array[float] = _NOTHING
    """The last pseudo-residuals, absolute, at most ``WINDOW``; an array, for its size."""

    def seen(self, t_ms: int, value: float) -> Noise:
        """Return the noise with one more reading.

        :param t_ms: event time; a reading that is not newer than the last says nothing.
        :param value: finite.
        """
        at = float(t_ms), value
        if self.last is None:
            return Noise(None, at, self.off)
        if t_ms <= self.last[0]:
            return self
        if self.before is None:
            return Noise(self.last, at, self.off)
        (t0, v0), (t1, v1) = self.before, self.last
        share = (t1 - t0) / (t_ms - t0)
        residual = abs(v1 - v0 - share * (value - v0)) / sqrt(1 + share**2 + (1 - share) ** 2)
        if not isfinite(residual):
            return Noise(self.last, at, self.off)
        off = self.off[1 - WINDOW :]
        off.append(residual)
        return Noise(self.last, at, off)

    @property
    def deviation(self) -> float:
        """The standard deviation of the noise, in the unit of the values; 0 until it is known."""
        if len(self.off) < WARM_UP:
            return 0.0
        return _TO_DEVIATION * sorted(self.off)[(len(self.off) - 1) // 2]
