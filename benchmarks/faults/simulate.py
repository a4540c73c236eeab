"""Healthy series and labelled faults, by seed: a reading a minute for a month."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
DAY = 1_440
DAYS = 30
MINUTE_MS = 60_000
START_MS = 1_704_067_200_000
_HOUR = 60


def autoregressive(rng: np.random.Generator, rows: int, series: int) -> Float64:
    """Return AR(1) noise of coefficient 0.8 and standard deviation 1."""
    noise = rng.normal(size=(rows, series))
    for row in range(1, rows):
        noise[row] = 0.8 * noise[row - 1] + 0.6 * noise[row]
    return noise


def heavy_tailed(rng: np.random.Generator, rows: int, series: int) -> Float64:
    """Return white noise of Student's t with 4 degrees of freedom, standard deviation 1."""
    noise: Float64 = rng.standard_t(4, size=(rows, series)) / np.sqrt(2.0)
    return noise


def seasonal(rng: np.random.Generator, rows: int, series: int) -> Float64:
    """Return a daily sine of amplitude 2 and white noise of standard deviation 1."""
    day = 2.0 * np.pi * np.arange(rows)[:, None] / DAY
    phase = rng.uniform(0.0, 2.0 * np.pi, series)
    return 2.0 * np.sin(day + phase) + rng.normal(size=(rows, series))


NOISES = {"AR(1)": autoregressive, "heavy-tailed": heavy_tailed, "seasonal": seasonal}


@dataclass(frozen=True, slots=True)
class Fault:
    """What a fault does to the rest of a series, and for how many readings it can be found.

    ``lasts`` None: to the end of the month. ``missing`` readings do not come at all.
    """

    name: str
    change: Callable[[np.random.Generator, Float64, float], Float64]
    lasts: int | None
    missing: int = 0


def _spike(rng: np.random.Generator, rest: Float64, sd: float) -> Float64:
    return np.append(rest[0] + 6.0 * sd * rng.choice([-1, 1]), rest[1:])


def _stuck(_rng: np.random.Generator, rest: Float64, _sd: float) -> Float64:
    return np.append(np.full(_HOUR, rest[0]), rest[_HOUR:])


def _drift(_rng: np.random.Generator, rest: Float64, sd: float) -> Float64:
    return rest + 0.5 * sd * np.arange(len(rest)) / DAY


def _shift(_rng: np.random.Generator, rest: Float64, sd: float) -> Float64:
    return rest + 2.0 * sd


def _variance(rng: np.random.Generator, rest: Float64, sd: float) -> Float64:
    more = rng.normal(0.0, np.sqrt(2.0) * sd, DAY // 4)
    return np.append(rest[: DAY // 4] + more, rest[DAY // 4 :])


def _as_it_is(_rng: np.random.Generator, rest: Float64, _sd: float) -> Float64:
    return rest


FAULTS = (
    Fault("spike of 6 sd", _spike, 1),
    Fault("stuck for an hour", _stuck, _HOUR),
    Fault("drift of 0.5 sd a day", _drift, None),
    Fault("shift of 2 sd", _shift, DAY),
    Fault("variance times 3, six hours", _variance, DAY // 4),
    Fault("nothing for an hour", _as_it_is, _HOUR + 1, missing=_HOUR),
)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Values float64[rows, series], which of them come, and where each series' fault is: its
    index in ``FAULTS``, first row, and the row after the last in which it can be found."""

    value: Float64
    comes: NDArray[np.bool_]
    fault: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]


def fleet(kind: str, series: int, seed: int) -> Fleet:
    """Return series of one kind of noise, each with one fault in the fourth week."""
    rng = np.random.default_rng(seed)
    rows = DAYS * DAY
    value = NOISES[kind](rng, rows, series)
    fault = np.arange(series) % len(FAULTS)
    begin = rng.integers(int(0.6 * rows), int(0.75 * rows), series)
    end = np.full(series, rows)
    comes = np.ones(value.shape, np.bool_)
    for s in range(series):
        one = FAULTS[fault[s]]
        sd = float(value[: 5 * DAY, s].std())
        value[begin[s] :, s] = one.change(rng, value[begin[s] :, s], sd)
        comes[begin[s] : begin[s] + one.missing, s] = False
        if one.lasts is not None:
            end[s] = begin[s] + one.lasts
    return Fleet(value, comes, fault, begin, end)


def joined(fleets: Sequence[Fleet]) -> Fleet:
    """Return the series of some fleets as one."""
    return Fleet(
        np.concatenate([one.value for one in fleets], axis=1),
        np.concatenate([one.comes for one in fleets], axis=1),
        np.concatenate([one.fault for one in fleets]),
        np.concatenate([one.begin for one in fleets]),
        np.concatenate([one.end for one in fleets]),
    )
