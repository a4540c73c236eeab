"""NAB's scoring, after its own rules (Lavin and Ahmad 2015; ``nab/sweeper.py`` and ``scorer.py``).

A labelled window is worth the more the earlier the first alert in it; an alert outside costs the
more the further it is behind the last window. The first 15 % of a file (of at most 5,000 rows) are
not judged. One threshold holds for all files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.nab.alerts import QUIET, begins

Float64 = NDArray[np.float64]

PROFILES = {"standard": (1.0, 0.11), "low FP": (1.0, 0.22), "low FN": (2.0, 0.11)}
"""Profile -> what a missed window and a false alert cost."""
_PROBATION = 0.15
_PROBATION_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class Labelled:
    """One file: rows, and the labelled windows as first and last row."""

    name: str
    t_ms: NDArray[np.int64]
    value: Float64
    windows: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Curve:
    """What a file earns at each of some thresholds, float64[thresholds] each."""

    hits: Float64
    false: Float64
    missed: Float64
    windows: int

    def raw(self, profile: str) -> Float64:
        """Return the score before it is set in relation to null and perfect."""
        missed, false = PROFILES[profile]
        return self.hits + false * self.false - missed * self.missed


def curve(file: Labelled, score: Float64, thresholds: Float64, quiet: int = QUIET) -> Curve:
    """Return what alerts at each threshold earn in a file.

    :param thresholds: float64, ascending.
    :param quiet: readings below the threshold after which an alert is over.
    """
    reward, window = _rewards(file)
    hits, false, missed = np.zeros((3, len(thresholds)))
    for j, bound in enumerate(thresholds.tolist()):
        rows = begins(score, bound, quiet)
        false[j] = reward[rows[window[rows] == -1]].sum()
        found, first = np.unique(window[rows], return_index=True)
        first = first[found >= 0]
        hits[j] = reward[rows[first]].sum()
        missed[j] = len(file.windows) - len(first)
    return Curve(hits, false, missed, len(file.windows))


def normalised(raw: Float64, windows: int, profile: str) -> Float64:
    """Return scores between 0, never an alert, and 100, every window found at its begin."""
    null = -PROFILES[profile][0] * windows
    return 100.0 * (raw - null) / (windows - null)


@dataclass(frozen=True, slots=True)
class Result:
    """Scores of one profile: with the one best threshold, and with each file's threshold chosen
    on the other files; with the interval of 95 % of 1,000 resamplings of the files."""

    best: float
    threshold: float
    validated: float
    low: float
    high: float
    chosen: Mapping[str, float]


def judge(
    curves: Mapping[str, Curve], thresholds: Float64, profile: str, rng: np.random.Generator
) -> Result:
    """Choose thresholds, and score."""
    raw = np.stack([one.raw(profile) for one in curves.values()])
    windows = np.asarray([one.windows for one in curves.values()])
    total = raw.sum(axis=0)
    best = int(total.argmax())
    chosen = (total - raw).argmax(axis=1)
    own = raw[np.arange(len(raw)), chosen]
    drawn = rng.integers(0, len(raw), (1_000, len(raw)))
    drawn = drawn[windows[drawn].sum(axis=1) > 0]
    spread = [float(normalised(own[d].sum(), int(windows[d].sum()), profile)) for d in drawn]
    low, high = np.percentile(spread, [2.5, 97.5])
    return Result(
        best=float(normalised(total, int(windows.sum()), profile)[best]),
        threshold=float(thresholds[best]),
        validated=float(normalised(own.sum(), int(windows.sum()), profile)),
        low=float(low),
        high=float(high),
        chosen={name: float(thresholds[k]) for name, k in zip(curves, chosen, strict=True)},
    )


def candidates(scores: Sequence[Float64]) -> Float64:
    """Return thresholds worth trying, dense where alerts are rare, and one that never alerts."""
    pooled = np.concatenate(scores)
    pooled = pooled[pooled > 0]
    if not len(pooled):
        return np.asarray([1.0])
    rare = np.concatenate([np.linspace(0.9, 0.999, 150), 1.0 - np.logspace(-3, -5.5, 150)])
    found = np.unique(np.quantile(pooled, rare))
    return np.append(found, 10.0 * found[-1] + 1.0)


def _sigmoid(x: Float64) -> Float64:
    return np.where(x > 3.0, -1.0, 2.0 / (1.0 + np.exp(5.0 * np.minimum(x, 3.0))) - 1.0)


def _rewards(file: Labelled) -> tuple[Float64, NDArray[np.int64]]:
    """Return what an alert at each row earns, and its window (-1 none, -2 not judged)."""
    n = len(file.value)
    reward, window = np.full(n, -1.0), np.full(n, -1)
    followings = [begin for begin, _ in [*file.windows, (n, n)][1:]]
    for k, ((begin, end), following) in enumerate(zip(file.windows, followings, strict=True)):
        rows = np.arange(begin, end + 1)
        width = len(rows)
        reward[rows] = _sigmoid((rows - end - 1.0) / width) / _sigmoid(np.asarray(-1.0))
        window[rows] = k
        rows = np.arange(end + 1, max(following, end + 1))
        reward[rows] = _sigmoid((rows - end) / max(width - 1.0, 1.0))
    window[: int(_PROBATION * min(n, _PROBATION_ROWS))] = -2
    return reward, window
