"""What filters leave of the NAB series, how far what is rebuilt is off, and what a reading costs.

The bound is a share of each series' standard deviation. The mean absolute difference is told beside
the greatest one, both in shares of the bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from benchmarks.nab.files import load
from benchmarks.report import Measure, at_most
from streams.core.readings import Float64, Int64
from streams.core.thinning import Deadband, SwingingDoor

_SHARES = (0.02, 0.1)
_MAX_GAP_MS = 6 * 3_600_000
Filter = Deadband[int] | SwingingDoor[int]


def run(*, runs: int) -> list[Measure]:
    """Measure, and return the figures."""
    series = [(found.t_ms, found.value) for found in load(None)]
    measures = []
    kinds: dict[str, Callable[[float, int], Filter]] = {
        "deadband": Deadband,
        "swinging door": SwingingDoor,
    }
    for kind, make in kinds.items():
        for share in _SHARES:
            sent, total, off, spent_s = 0, 0, [], []
            for t_ms, value in series:
                order = np.unique(t_ms, return_index=True)[1]
                bound = share * float(value.std())
                rows = list(zip(t_ms[order].tolist(), value[order].tolist(), strict=True))
                spent_s.append(min(_seconds(make(bound, _MAX_GAP_MS), rows) for _ in range(runs)))
                kept = _kept(make(bound, _MAX_GAP_MS), rows)
                rebuilt = _rebuilt(kind, np.asarray(rows), np.asarray(kept))
                off.append(np.abs(rebuilt - value[order]) / bound)
                sent, total = sent + len(kept), total + len(rows)
            label = f"{kind}, bound {share:g} sd"
            every = np.concatenate(off)
            measures += [
                Measure(f"{label}: sent", round(sent / total, 4), "of readings"),
                at_most(f"{label}: greatest error", float(every.max()), "bounds", 1.0),
                Measure(f"{label}: mean error", round(float(every.mean()), 3), "bounds"),
                Measure(f"{label}: cost", round(sum(spent_s) / total * 1e9), "ns/reading"),
            ]
    return measures


def _kept(thin: Filter, rows: list[tuple[int, float]]) -> list[int]:
    found = [at for n, (t_ms, value) in enumerate(rows) for at in thin.offer(t_ms, value, n)]
    return [*found, *thin.flush()]


def _seconds(thin: Filter, rows: list[tuple[int, float]]) -> float:
    began = time.perf_counter()
    for t_ms, value in rows:
        thin.offer(t_ms, value, 0)
    return time.perf_counter() - began


def _rebuilt(kind: str, rows: Float64, kept: Int64) -> Float64:
    t_ms, value = rows.T
    if kind == "deadband":
        held: Float64 = value[kept[np.searchsorted(kept, np.arange(len(rows)), side="right") - 1]]
        return held
    line: Float64 = np.interp(t_ms, t_ms[kept], value[kept])
    return line
