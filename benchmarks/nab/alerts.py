"""When an alert begins: as in :mod:`streams.core.alert_states`, counted in readings.

An alert that goes on is one alert, however high its score rises meanwhile. The same for all
contestants.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

QUIET = 144
"""Readings below the bound after which an alert is over; twelve hours at one in five minutes."""


def begins(score: Float64, bound: float, quiet: int = QUIET) -> Int64:
    """Return the rows at which alerts begin, ascending; nothing is looked at ahead of them.

    :param quiet: 0 makes an alert of each reading at the bound or above, as NAB's own scorer does.
    """
    over = np.flatnonzero(score >= bound)
    return over[np.diff(over, prepend=-quiet - 1) > quiet]


def told(score: Float64, bound: float) -> Float64:
    """Return the score that a scorer without memory may judge: 0 while an alert of the *bound*
    goes on."""
    found = np.where(score >= bound, 0.0, score)
    rows = begins(score, bound)
    found[rows] = score[rows]
    return found
