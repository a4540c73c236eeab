"""Trained detectors on SKAB's valve experiments: eight metrics of a pump, a reading a second.

``--data DIR`` is a folder of SKAB's layout (GPL, so that it is not in this repository). Each model
learns from the first 400 rows of a file, as SKAB's own protocol has it, and is judged on the rest.
How long scores are averaged and how far over the healthy 99 % an alarm begins is chosen for each
file on all others. Beside: always alarming, and a timer that knows only when faults were played in
the other files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Measure, at_least, at_most
from models.multivariate import KINDS, fit
from streams.training_data import from_file

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
_FEATURES = (
    "Accelerometer1RMS", "Accelerometer2RMS", "Current", "Pressure",
    "Temperature", "Thermocouple", "Voltage", "Volume Flow RateRMS",
)  # fmt: skip
_LEARNT = 400
_SPANS = (1, 10, 30, 60)
_DISTANCES = ("covariance", "pca")
_FACTORS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0)
_BEST = "covariance"
_TIMES = tuple(range(0, 800, 50))


@dataclass(frozen=True, slots=True)
class Experiment:
    """One file: its rows, and which of those that are judged are anomalous."""

    rows: Float64
    anomalous: Bool


def run(*, data: Path | None, seed: int) -> list[Measure]:
    """Measure, and return the figures; nothing without data."""
    if data is None:
        print("skab: give --data DIR, a folder of SKAB's layout; its licence keeps it out of here")
        return []
    paths = sorted(path for path in data.glob("valve*/*.csv"))
    experiments = [_read(path) for path in paths]
    measures = [Measure("experiments", len(paths), "")]
    for kind in KINDS:
        measures += _measures(kind, experiments, _models(kind, experiments, seed))
    measures += _measures("timer, without data", experiments, _timers(experiments))
    always: dict[int, list[Bool]] = {0: [np.ones(len(e.anomalous), np.bool_) for e in experiments]}
    return measures + _measures("always alarming", experiments, always)


def _read(path: Path) -> Experiment:
    table = from_file(path, [*_FEATURES, "anomaly"])
    return Experiment(table.rows[:, :-1], table.rows[_LEARNT:, -1] > 0)


def _models(
    kind: str, experiments: Sequence[Experiment], seed: int
) -> dict[tuple[int, float], list[Bool]]:
    """Return, for each choice of span and factor, the alarms in each file."""
    found: dict[tuple[int, float], list[Bool]] = {one: [] for one in product(_SPANS, _FACTORS)}
    for experiment in experiments:
        model = fit(kind, _FEATURES, experiment.rows[:_LEARNT], seed)
        score = model.score(experiment.rows)
        for span in _SPANS:
            smooth = _averaged(score, span)
            healthy = smooth[:_LEARNT]
            # Distances begin at 0, the others' scores at what is usual.
            usual = 0.0 if kind in _DISTANCES else np.median(healthy)
            high = np.quantile(healthy, 0.99)
            for factor in _FACTORS:
                bound = usual + factor * (high - usual)
                found[span, factor].append(smooth[_LEARNT:] > bound)
    return found


def _timers(experiments: Sequence[Experiment]) -> dict[tuple[int, int], list[Bool]]:
    return {
        (begin, end): [
            (np.arange(len(e.anomalous)) >= begin) & (np.arange(len(e.anomalous)) < end)
            for e in experiments
        ]
        for begin, end in product(_TIMES, _TIMES)
        if begin < end
    }


def _averaged(score: Float64, span: int) -> Float64:
    """Return the exponentially weighted mean; it does not look ahead."""
    alpha, mean, found = 2.0 / (span + 1.0), float(score[0]), np.empty(len(score))
    for row, value in enumerate(score.tolist()):
        mean += alpha * (value - mean)
        found[row] = mean
    return found


def _measures(
    name: str, experiments: Sequence[Experiment], alarms: Mapping[Any, list[Bool]]
) -> list[Measure]:
    choices = list(alarms)
    counts = np.asarray(
        [
            [_counts(e.anomalous, over) for e, over in zip(experiments, alarms[c], strict=True)]
            for c in choices
        ]
    )
    total = counts.sum(axis=1)
    own = np.zeros(4)
    for k in range(len(experiments)):
        rest = total - counts[:, k]
        own += counts[int(np.argmax([_f1(one) for one in rest])), k]
    hit, false, missed, quiet = own.tolist()
    f1, far = _f1(own), 100.0 * false / max(false + quiet, 1.0)
    mar = 100.0 * missed / max(hit + missed, 1.0)
    if name == _BEST:
        return [
            at_least(f"{name}: F1", f1, "", 0.82),
            at_most(f"{name}: false alarm rate", far, "%", 22.0),
            Measure(f"{name}: missed alarm rate", round(mar, 1), "%"),
        ]
    return [
        Measure(f"{name}: F1", round(f1, 3), ""),
        Measure(f"{name}: false alarm rate", round(far, 1), "%"),
        Measure(f"{name}: missed alarm rate", round(mar, 1), "%"),
    ]


def _counts(anomalous: Bool, over: Bool) -> list[int]:
    pairs = (anomalous & over, ~anomalous & over, anomalous & ~over, ~anomalous & ~over)
    return [int(pair.sum()) for pair in pairs]


def _f1(counts: Float64) -> float:
    hit, false, missed = (float(one) for one in counts[:3])
    return 2.0 * hit / max(2.0 * hit + false + missed, 1.0)
