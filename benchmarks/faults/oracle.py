"""What no detector can beat: the best test of a spike by one who knows everything but its sign.

Given the law of the noise, the series' own past and the size of the spike, the share found at a
given number of false alerts is greatest for the likelihood ratio (Neyman and Pearson 1933). A spike
is over at once, so the one reading is all that there is to judge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
_STEPS = 400_001
_WIDTH = 200.0


def gaussian(x: Float64, sd: float) -> Float64:
    """Return the density of Gaussian noise."""
    found: Float64 = np.exp(-0.5 * (x / sd) ** 2) / (sd * np.sqrt(2.0 * np.pi))
    return found


def student_4(x: Float64) -> Float64:
    """Return the density of Student's t with 4 degrees of freedom, scaled to standard deviation
    1."""
    found: Float64 = np.sqrt(2.0) * 0.375 * (1.0 + 0.5 * x * x) ** -2.5
    return found


@dataclass(frozen=True, slots=True)
class Surprise:
    """What is left of a reading when all that its past says is taken off: its density, and the
    size of the spike in the same unit."""

    density: Callable[[Float64], Float64]
    spike: float


NOISES = {
    "AR(1)": Surprise(lambda x: gaussian(x, 0.6), 6.0),
    "heavy-tailed": Surprise(student_4, 6.0),
    "seasonal": Surprise(lambda x: gaussian(x, 1.0), 6.0 * np.sqrt(3.0)),
}
"""By the names of :data:`benchmarks.faults.simulate.NOISES`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """False alerts a reading against spikes found, float64[steps] each, ascending."""

    false: Float64
    found: Float64

    def found_at(self, false: float) -> float:
        """Return the greatest share of spikes found at so many false alerts a reading."""
        return float(np.interp(false, self.false, self.found))

    def false_at(self, found: float) -> float:
        """Return the fewest false alerts a reading at which such a share of spikes is found."""
        return float(np.interp(found, self.found, self.false))


def limits(of: Surprise) -> Limits:
    """Return what the likelihood ratio reaches."""
    x = np.linspace(-_WIDTH, _WIDTH, _STEPS)
    step = x[1] - x[0]
    healthy = of.density(x)
    spiked = 0.5 * (of.density(x - of.spike) + of.density(x + of.spike))
    ratio = spiked / np.maximum(healthy, np.finfo(np.float64).tiny)
    order = np.argsort(-ratio, kind="stable")
    return Limits(np.cumsum(healthy[order]) * step, np.cumsum(spiked[order]) * step)
