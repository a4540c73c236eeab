"""The detector on NAB's realKnownCause series, beside baselines that hardly look at the data.

Counts, at the default bound: labelled windows with at least one alarm, and episodes of alarm
outside of them. The baselines are a z-score over the whole past (bound 5), and alarms at random
times, as many as the detector raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Measure, at_most
from models.core.catalogue import Detector, detectors
from models.core.ensemble import Ensemble, EnsembleParams
from models.core.robust import RobustLevel, RobustParams
from streams.settings import Settings
from streams.sim.nab import FOLDER, MACHINES, labelled_windows, read_csv

Float64 = NDArray[np.float64]
_ROWS = 10_000
_FEW = 500
_READING_US, _SINGLE_US, _STATE_BYTES = 5.0, 100.0, 8_192.0


def run(*, seconds: float, rate: float, seed: int) -> list[Measure]:
    """Measure, and return the figures."""
    settings = Settings()
    bound = settings.rules[0].score_over
    labels = labelled_windows()
    rng = np.random.default_rng(seed)
    tally = {name: np.zeros(2, np.int64) for name in ("detector", "ensemble", "z-score", "random")}
    readings = windows = 0
    for file, key in MACHINES.items():
        points = read_csv(FOLDER / file)
        t_ms = np.asarray([p.t_ms for p in points])
        value = np.asarray([p.value for p in points])
        alarms = {
            "detector": _detector(value) >= bound,
            "ensemble": _ensemble(t_ms, value) >= bound,
            "z-score": _z_score(value) >= bound,
        }
        share = alarms["detector"].mean()
        alarms["random"] = rng.random(len(value)) < share
        for name, over in alarms.items():
            tally[name] += _judge(t_ms, over, labels[key])
        readings += len(value)
        windows += len(labels[key])
    measures = [Measure("readings", readings, ""), Measure("labelled windows", windows, "")]
    for name, (hit, outside) in tally.items():
        measures.append(Measure(f"{name}: windows hit", int(hit), ""))
        measures.append(
            Measure(
                f"{name}: alarms outside, per 1000", round(float(1000 * outside / readings), 3), ""
            )
        )
    return measures + _cost()


def _params() -> RobustParams:
    d = Settings().detection
    return RobustParams(half_life=d.half_life, warmup=d.warmup, min_spread=d.min_spread)


def _detector(value: Float64) -> Float64:
    detector = RobustLevel(_params())
    detector.grow(1)
    return detector.score(np.zeros(len(value), np.int32), value)[0]


def _ensemble(t_ms: NDArray[np.int64], value: Float64) -> Float64:
    d = Settings().detection
    detector = Ensemble(EnsembleParams(d.half_life, d.warmup, d.min_spread))
    detector.grow(1)
    return detector.score(np.zeros(len(value), np.int32), t_ms, value)[0]


def _z_score(value: Float64) -> Float64:
    n = np.arange(1, len(value) + 1)
    mean = np.cumsum(value) / n
    square = np.cumsum(value * value) / n
    sd = np.sqrt(np.maximum(square - mean * mean, 1e-12))
    score = np.zeros(len(value))
    score[64:] = np.abs(value[64:] - mean[63:-1]) / sd[63:-1]
    return score


def _judge(
    t_ms: NDArray[np.int64], over: NDArray[np.bool_], labels: list[tuple[int, int]]
) -> NDArray[np.int64]:
    inside = np.zeros(len(over), np.bool_)
    hit = 0
    for begin, end in labels:
        window = (t_ms >= begin) & (t_ms <= end)
        hit += bool(over[window].any())
        inside |= window
    outside = over & ~inside
    return np.asarray([hit, int((outside[1:] & ~outside[:-1]).sum())])


def _cost() -> list[Measure]:
    """Return the time per reading of one call, beside the same done row by row."""
    value = np.random.default_rng(1).normal(size=_ROWS)
    found = []
    for name in ("robust-level", "ensemble"):
        for series in (_ROWS, 100):
            codes = (np.arange(_ROWS) % series).astype(np.int32)
            t_ms = np.arange(_ROWS) // series * 60_000
            columns = _timed(_fresh(name, series).score, [(codes, t_ms, value)] * 10) / 10
            rows = [slice(i, i + 1) for i in range(_FEW)]
            single = [(codes[row], t_ms[row], value[row]) for row in rows]
            alone = _timed(_fresh(name, series).score, single) / _FEW
            label = f"{name}, {series:,} series"
            per_reading = columns / _ROWS * 1e6
            found.append(
                at_most(f"{label}: per reading", per_reading, "µs", _READING_US)
                if series == _ROWS
                else Measure(f"{label}: per reading", round(per_reading, 3), "µs")
            )
            found.append(at_most(f"{label}: a single reading", alone * 1e6, "µs", _SINGLE_US))
        held = _fresh(name, 64).state().values()
        size = sum(v.nbytes for v in held) / 64
        found.append(at_most(f"{name}: state", size, "bytes a series", _STATE_BYTES))
    return found


def _fresh(name: str, series: int) -> Detector:
    d = Settings().detection
    detector = detectors()[name](EnsembleParams(d.half_life, d.warmup, d.min_spread))
    detector.grow(series)
    return detector


def _timed(score: Callable[..., object], calls: Sequence[tuple[object, ...]]) -> float:
    begin = time.perf_counter()
    for arguments in calls:
        score(*arguments)
    return time.perf_counter() - begin
