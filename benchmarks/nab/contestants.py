"""What is compared: our detectors, and baselines that know little or nothing of the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.nab.scoring import Labelled
from models.core.catalogue import detectors
from models.core.ensemble import EnsembleParams
from streams.settings import Settings

Float64 = NDArray[np.float64]
_GAUSSIAN_WINDOW, _GAUSSIAN_STEP = 6_400, 100


def ours(name: str, files: Sequence[Labelled]) -> list[Float64]:
    """Return the scores of one of our detectors, with the settings as they come."""
    d = Settings().detection
    detector = detectors()[name](EnsembleParams(d.half_life, d.warmup, d.min_spread))
    detector.grow(len(files))
    sizes = [len(file.value) for file in files]
    series = np.repeat(np.arange(len(files), dtype=np.int32), sizes)
    t_ms = np.concatenate([file.t_ms for file in files])
    value = np.concatenate([file.value for file in files])
    return np.split(detector.score(series, t_ms, value)[0], np.cumsum(sizes)[:-1])


def clock(files: Sequence[Labelled]) -> list[Float64]:
    """Alarm at fixed intervals, whatever the data: each 2^k-th row scores k."""
    return [_clock(len(file.value)) for file in files]


def _clock(n: int) -> Float64:
    row = np.arange(1, n + 1)
    score: Float64 = np.log2(row & -row) + 1.0
    return score


def range_check(files: Sequence[Labelled]) -> list[Float64]:
    """Alarm at each value outside of all before."""
    return [_range(file.value) for file in files]


def _range(value: Float64) -> Float64:
    high, low = np.maximum.accumulate(value)[:-1], np.minimum.accumulate(value)[:-1]
    return np.concatenate([[0.0], (value[1:] > high) | (value[1:] < low)])


def windowed_gaussian(files: Sequence[Labelled]) -> list[Float64]:
    """NAB's own baseline: the tail probability by mean and deviation of up to 6,400 readings, which
    are computed anew each hundred."""
    return [_gaussian(file.value) for file in files]


def _gaussian(value: Float64) -> Float64:
    score = np.zeros(len(value))
    mean, sd = value[0], 1.0
    for row in range(1, len(value)):
        if row < _GAUSSIAN_WINDOW or row % _GAUSSIAN_STEP == 0:
            past = value[max(0, row - _GAUSSIAN_WINDOW) : row]
            mean, sd = past.mean(), max(past.std(), 1e-6)
        score[row] = abs(value[row] - mean) / sd
    return score


CONTESTANTS: dict[str, Callable[[Sequence[Labelled]], list[Float64]]] = {
    "ensemble": lambda files: ours("ensemble", files),
    "robust-level": lambda files: ours("robust-level", files),
    "windowed Gaussian": windowed_gaussian,
    "range check": range_check,
    "clock": clock,
}
