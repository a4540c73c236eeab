"""Simulated wear, by seed, for trying out predictive maintenance: nothing of it is real."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class Life:
    """One machine: a wear reading per day, and the day on which its true wear reached the limit."""

    day: Float64
    wear: Float64
    failed: float


def lives(machines: int, seed: int, *, noise: float = 0.2, exponential: bool = False) -> list[Life]:
    """Return machines that wear at rates of their own, with a limit of ``LIMIT``.

    :param exponential: wear grows by a share of itself instead of by a rate.
    """
    rng = np.random.default_rng(seed)
    return [_life(rng, noise, exponential=exponential) for _ in range(machines)]


def _life(rng: np.random.Generator, noise: float, *, exponential: bool) -> Life:
    rate = rng.uniform(0.05, 0.15)
    steps = rng.normal(rate, 0.15, 4_000)
    true = 1.0 + np.cumsum(steps)
    if exponential:
        true = np.exp((true - 1.0) * np.log(LIMIT) / (LIMIT - 1.0))
    failed = int(np.argmax(true >= LIMIT))
    day = np.arange(failed + 1, dtype=np.float64)
    seen = true[: failed + 1]
    error = rng.normal(0.0, noise, failed + 1)
    wear = seen * np.exp(error * 0.2) if exponential else seen + error
    return Life(day, wear, float(failed))
