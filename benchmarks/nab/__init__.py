"""Detectors on NAB's files, by NAB's own scoring, beside baselines that hardly look at the data.

``--data DIR`` takes any folder of NAB's layout; by default the seven files in ``data/nab``. Writes
``nab_scores.csv`` (file, timestamp, score, alert, at the median of the files' thresholds; the score
is 0 while an alert goes on, so that a scorer without memory counts as this one does) and
``nab_folds.csv`` (the threshold of each file, chosen on the others) to ``benchmarks/out``.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.nab.alerts import QUIET, begins, told
from benchmarks.nab.contestants import CONTESTANTS
from benchmarks.nab.files import load
from benchmarks.nab.scoring import PROFILES, Labelled, Result, candidates, curve, judge
from benchmarks.report import OUT, Measure, at_least

Float64 = NDArray[np.float64]
_FIRST = "ensemble"
_TARGETS = {"standard": 70.0, "low FP": 62.0, "low FN": 75.0}
PUBLISHED = {
    "Numenta HTM": (70.5, 62.6, 75.2),
    "CAD OSE": (69.9, 67.0, 73.2),
    "KNN CAD": (58.0, 43.4, 64.8),
    "Relative Entropy": (54.6, 47.6, 58.8),
    "Random Cut Forest": (51.7, 38.4, 59.7),
    "Windowed Gaussian": (39.6, 20.9, 47.4),
    "Random": (11.0, 1.2, 19.5),
}
"""From NAB's scoreboard, on its full corpus of 58 files: no comparison with the same files."""


def run(*, data: Path | None, seed: int) -> list[Measure]:
    """Measure, and return the figures."""
    files = load(data)
    windows = sum(len(file.windows) for file in files)
    measures = [Measure("files", len(files), ""), Measure("labelled windows", windows, "")]
    for name, contestant in CONTESTANTS.items():
        scores = contestant(files)
        results = _results(files, scores, seed)
        measures += _measures(name, results, targets=name == _FIRST and data is not None)
        if name == _FIRST:
            _write(files, scores, results)
            measures += _by_set(files, scores, seed)
            measures += _without_memory(files, scores, seed)
    measures.append(Measure("null: never an alert", 0.0, ""))
    for name, published in PUBLISHED.items():
        for profile, score in zip(PROFILES, published, strict=True):
            measures.append(Measure(f"full corpus, published: {name}, {profile}", score, ""))
    return measures


def _results(
    files: Sequence[Labelled], scores: Sequence[Float64], seed: int, quiet: int = QUIET
) -> dict[str, Result]:
    thresholds = candidates(scores)
    curves = {
        file.name: curve(file, score, thresholds, quiet)
        for file, score in zip(files, scores, strict=True)
    }
    rng = np.random.default_rng(seed)
    return {profile: judge(curves, thresholds, profile, rng) for profile in PROFILES}


def _measures(name: str, results: Mapping[str, Result], *, targets: bool) -> list[Measure]:
    found = []
    for profile, result in results.items():
        label = f"{name}, {profile}: cross-validated"
        found.append(
            at_least(label, result.validated, "", _TARGETS[profile])
            if targets
            else Measure(label, round(result.validated, 1), "")
        )
        found.append(Measure(f"{name}, {profile}: 95 % from", round(result.low, 1), ""))
        found.append(Measure(f"{name}, {profile}: 95 % to", round(result.high, 1), ""))
        found.append(Measure(f"{name}, {profile}: best threshold", round(result.best, 1), ""))
    return found


def _by_set(files: Sequence[Labelled], scores: Sequence[Float64], seed: int) -> list[Measure]:
    sets = sorted({file.name.rpartition("/")[0] for file in files if file.windows})
    found = []
    for one in sets if len(sets) > 1 else ():
        rows = [k for k, file in enumerate(files) if file.name.rpartition("/")[0] == one]
        result = _results([files[k] for k in rows], [scores[k] for k in rows], seed)["standard"]
        found.append(Measure(f"{_FIRST}, {one} alone: best", round(result.best, 1), ""))
    return found


def _without_memory(
    files: Sequence[Labelled], scores: Sequence[Float64], seed: int
) -> list[Measure]:
    return [
        Measure(f"{_FIRST}, {profile}: each reading an alert", round(result.validated, 1), "")
        for profile, result in _results(files, scores, seed, quiet=0).items()
    ]


def _write(
    files: Sequence[Labelled], scores: Sequence[Float64], results: Mapping[str, Result]
) -> None:
    OUT.mkdir(exist_ok=True)
    bound = float(np.median(list(results["standard"].chosen.values())))
    with (OUT / "nab_scores.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "timestamp", "score", "alert"])
        for one, score in zip(files, scores, strict=True):
            alert = np.zeros(len(score), np.int64)
            alert[begins(score, bound)] = 1
            columns = (one.t_ms.tolist(), told(score, bound).tolist(), alert.tolist())
            for t_ms, s, a in zip(*columns, strict=True):
                at = datetime.fromtimestamp(t_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
                rows.writerow([one.name, at, f"{s:.6g}", a])
    with (OUT / "nab_folds.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", *PROFILES])
        for one in files:
            rows.writerow([one.name, *(f"{r.chosen[one.name]:.6g}" for r in results.values())])
