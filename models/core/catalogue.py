"""Every detector of ours by name, for the check suite, notebooks and tools.

``ensemble`` is all channels together; each channel is also a detector by itself. ``robust-level``
is the small one that a worker uses unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.core.channels import ALL, Channel
from models.core.ensemble import Ensemble, EnsembleParams
from models.core.robust import RobustLevel, RobustParams

Float64 = NDArray[np.float64]
Scored = tuple[Float64, Float64, Float64]


class Detector(Protocol):
    """What all of them can: see :class:`models.core.ensemble.Ensemble`."""

    def grow(self, series: int) -> None:
        """Make room for series indices below *series*."""
        ...

    def state(self) -> Mapping[str, NDArray[Any]]:
        """Return the live arrays by name, a row per series."""
        ...

    def score(self, series: NDArray[np.int32], t_ms: NDArray[np.int64], value: Float64) -> Scored:
        """Return score, expected and spread of readings, in order of arrival, and learn them."""
        ...


class TimelessRobustLevel:
    """:class:`models.core.robust.RobustLevel`, which asks for no time and for finite values."""

    def __init__(self, params: RobustParams) -> None:
        self._level = RobustLevel(params)
        self.grow, self.state = self._level.grow, self._level.state

    def score(self, series: NDArray[np.int32], t_ms: NDArray[np.int64], value: Float64) -> Scored:
        """Score readings; the time is not looked at."""
        return self._level.score(series, value)


def _alone(channel: Channel) -> Callable[[EnsembleParams], Detector]:
    return lambda params: Ensemble(params, (channel,))


def detectors() -> dict[str, Callable[[EnsembleParams], Detector]]:
    """Return name -> what makes a new one of it."""
    made: dict[str, Callable[[EnsembleParams], Detector]] = {
        "ensemble": Ensemble,
        "robust-level": lambda p: TimelessRobustLevel(
            RobustParams(p.half_life, p.warmup, p.min_spread)
        ),
    }
    return made | {channel.name: _alone(channel) for channel in ALL}
