"""Faults in simulated fleets: which are found, after how many readings, at how many false alerts.

Each series has a reading a minute for 30 days and one fault. What a detector says after a fault
that it may well talk about for long (two hours; for drift and shift the rest of the month) is not
counted as false. ``--readings`` bounds the size. ``--seed 0`` plays the fleets on which detectors
are developed, each other seed fleets that nobody has looked at before. Writes ``faults.csv`` to
``benchmarks/out``: each series' noise, fault, and where it begins, ends and is found.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.faults import oracle
from benchmarks.faults.simulate import (
    DAY,
    DAYS,
    FAULTS,
    MINUTE_MS,
    NOISES,
    START_MS,
    Fleet,
    fleet,
    joined,
)
from benchmarks.report import OUT, Measure, at_least, at_most
from models.core.catalogue import detectors
from models.core.ensemble import EnsembleParams
from streams.settings import Settings

_FLEET = 16 * len(FAULTS)
_FLEETS_MAX = 10
_SEEDS = 1_000
"""Fleets of ``--seed 1`` have the seeds 1000, 1001 and so on."""
_AFTER = 120
_EPISODE = 60
"""Alerts of a series less than so many readings apart are one."""
_TELLING, _ALERTING = 4.0, 5.0
_FIRST = "ensemble"


def run(*, readings: int, seed: int) -> list[Measure]:
    """Measure, and return the figures."""
    room = readings // (DAYS * DAY * len(NOISES))
    series = min(_FLEET, max(len(FAULTS), room))
    seeds = range(seed * _SEEDS, seed * _SEEDS + min(_FLEETS_MAX, max(1, room // series)))
    measures = [
        Measure("series of each noise", series * len(seeds), ""),
        Measure("fleets of seeds from", seeds[0], ""),
    ]
    labels: list[Sequence[object]] = []
    for kind in NOISES:
        played = joined([fleet(kind, series, one) for one in seeds])
        for name in (_FIRST, "robust-level"):
            score = _score(name, played)
            for bound in (_ALERTING, _TELLING):
                measures += _judged(f"{name}, {kind}, bound {bound:g}", played, score >= bound,
                                    targets=name == _FIRST and bound == _ALERTING)  # fmt: skip
            if name == _FIRST:
                labels += _labels(kind, played, score >= _ALERTING)
        measures += _oracle(kind)
    _write(labels)
    return measures


def _score(name: str, played: Fleet) -> NDArray[np.float64]:
    d = Settings().detection
    detector = detectors()[name](EnsembleParams(d.half_life, d.warmup, d.min_spread))
    rows, series = played.value.shape
    detector.grow(series)
    score = np.zeros((rows, series))
    for row in range(rows):
        s = np.flatnonzero(played.comes[row]).astype(np.int32)
        t_ms = np.full(len(s), START_MS + row * MINUTE_MS)
        score[row, s] = detector.score(s, t_ms, played.value[row, s])[0]
    return score


def _found(played: Fleet, over: NDArray[np.bool_], s: int) -> int | None:
    """Return after how many readings a series' fault is found, if it is."""
    inside = np.flatnonzero(over[played.begin[s] : played.end[s], s])
    return int(inside[0]) if len(inside) else None


def _judged(label: str, played: Fleet, over: NDArray[np.bool_], *, targets: bool) -> list[Measure]:
    false, healthy = 0, 0
    found: dict[str, list[int | None]] = {fault.name: [] for fault in FAULTS}
    for s in range(over.shape[1]):
        fault = FAULTS[played.fault[s]]
        found[fault.name].append(_found(played, over, s))
        well = np.ones(len(over), np.bool_)
        lingers = fault.name.startswith(("drift", "shift"))
        well[played.begin[s] : len(over) if lingers else played.end[s] + _AFTER] = False
        alerts = np.flatnonzero(over[:, s] & well)
        false += int((np.diff(alerts, prepend=-_EPISODE - 1) > _EPISODE).sum())
        healthy += int(well.sum())
    rate = false / (healthy / (DAYS * DAY))
    name = f"{label}: false alerts a series and month"
    measures = [at_most(name, rate, "", 1.0) if targets else Measure(name, round(rate, 2), "")]
    for kind, delays in found.items():
        hit = [delay for delay in delays if delay is not None]
        share = 100.0 * len(hit) / len(delays)
        name = f"{label}: {kind}"
        measures.append(
            at_least(name, share, "%", 90) if targets else Measure(name, round(share, 1), "%")
        )
        if hit:
            measures.append(Measure(f"{name}, median delay", float(np.median(hit)), "readings"))
    return measures


def _oracle(kind: str) -> list[Measure]:
    """Return how many spikes could be found by one who knows the noise and the spike."""
    reached = oracle.limits(oracle.NOISES[kind])
    month = DAYS * DAY
    spike = FAULTS[0].name
    return [
        Measure(
            f"oracle, {kind}: {spike}, at one false alert",
            round(100.0 * reached.found_at(1.0 / month), 1),
            "%",
        ),
        Measure(
            f"oracle, {kind}: false alerts a series and month, for 90 % of {spike}",
            round(month * reached.false_at(0.9), 2),
            "",
        ),
    ]


def _labels(kind: str, played: Fleet, over: NDArray[np.bool_]) -> list[Sequence[object]]:
    return [
        (kind, s, FAULTS[fault].name, begin, end, _found(played, over, s))
        for s, (fault, begin, end) in enumerate(
            zip(played.fault.tolist(), played.begin.tolist(), played.end.tolist(), strict=True)
        )
    ]


def _write(labels: Sequence[Sequence[object]]) -> None:
    OUT.mkdir(exist_ok=True)
    with (OUT / "faults.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["noise", "series", "fault", "begin_row", "end_row", "found_after"])
        rows.writerows(labels)
