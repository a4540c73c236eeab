"""Faults in simulated fleets: which are found, after how many readings, at how many false alerts.

Each series has a reading a minute for 30 days and one fault. What a detector says after a fault
that it may well talk about for long (two hours; for drift and shift the rest of the month) is not
counted as false. ``--readings`` bounds the size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.faults.simulate import DAY, DAYS, FAULTS, MINUTE_MS, NOISES, START_MS, Fleet, fleet
from benchmarks.report import Measure, at_least, at_most
from models.core.catalogue import detectors
from models.core.ensemble import EnsembleParams
from streams.settings import Settings

_SERIES_MAX = 60
_AFTER = 120
_EPISODE = 60
"""Alerts of a series less than so many readings apart are one."""
_TELLING, _ALERTING = 4.0, 5.0


def run(*, readings: int, seed: int) -> list[Measure]:
    """Measure, and return the figures."""
    series = max(len(FAULTS), min(_SERIES_MAX, readings // (DAYS * DAY * len(NOISES))))
    measures = [Measure("series of each noise", series, "")]
    for kind in NOISES:
        played = fleet(kind, series, seed)
        for name in ("ensemble", "robust-level"):
            score = _score(name, played)
            for bound in (_ALERTING, _TELLING):
                measures += _judged(f"{name}, {kind}, bound {bound:g}", played, score >= bound,
                                    targets=name == "ensemble" and bound == _ALERTING)  # fmt: skip
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


def _judged(label: str, played: Fleet, over: NDArray[np.bool_], *, targets: bool) -> list[Measure]:
    false, healthy = 0, 0
    found: dict[str, list[int | None]] = {fault.name: [] for fault in FAULTS}
    for s in range(over.shape[1]):
        begin, end = int(played.begin[s]), int(played.end[s])
        fault = FAULTS[played.fault[s]]
        inside = np.flatnonzero(over[begin:end, s])
        found[fault.name].append(int(inside[0]) if len(inside) else None)
        well = np.ones(len(over), np.bool_)
        lingers = fault.name.startswith(("drift", "shift"))
        well[begin : len(over) if lingers else end + _AFTER] = False
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
        measures.append(at_least(name, share, "%", 90) if targets else Measure(name, share, "%"))
        if hit:
            measures.append(Measure(f"{name}, median delay", float(np.median(hit)), "readings"))
    return measures
