"""What overlap and length of windows cost: hopping beside tumbling, and thirty days by a day."""

from __future__ import annotations

import psutil

from benchmarks.report import Measure, at_most
from benchmarks.streams.engine import MIB, Turns, apart, resident_mib
from benchmarks.streams.session import Session
from benchmarks.streams.tables import rows_of
from streams.core.windows import Hopping, Tumbling, Window

_START_MS = 1_699_920_000_000
_SECOND_MS, _DAY_MS = 1_000, 86_400_000
_HORIZON_MS = 60_000
_DEVICES = 1_000
_BATCH = 10_000
_TURNS = 1_500
"""Seconds; the first 700 fill the longest window and its horizon, and are not counted."""
_WARM_TURNS = 700
_BOUND = 3.0

_MANY = 100_000
_DAYS = 80
"""A slice is kept for two sizes: memory has its full extent after 62 days."""
_PER_DAY = 2
_LONG = Hopping(
    name="30d", size_ms=30 * _DAY_MS, step_ms=_DAY_MS, grace_ms=0, horizon_ms=2 * _DAY_MS
)

_KINDS: dict[str, Window] = {
    "tumbling 10 s": Tumbling(name="w", size_ms=10_000, horizon_ms=_HORIZON_MS),
    "hopping 10 min by 10 s": Hopping(
        name="w", size_ms=600_000, step_ms=10_000, horizon_ms=_HORIZON_MS
    ),
}


def measure(session: Session) -> list[Measure]:
    """Return cost of a reading for both kinds, their ratio, and the memory of long windows."""
    found: dict[str, float] = {}
    measures: list[Measure] = []
    for kind in _KINDS:
        costs = sorted(apart(_cost_us, kind, session.seed + run) for run in range(session.runs))
        found[kind] = costs[len(costs) // 2]
        name = f"{kind}, {_DEVICES:,} devices at 1 Hz, engine alone: CPU per reading"
        measures.append(Measure(name, round(found[kind], 3), "µs"))
        session.console.print(f"{kind}: {found[kind]:.2f} µs a reading")
    tumbling, hopping = found.values()
    name = "hopping 10 min by 10 s : tumbling 10 s, CPU"
    measures.append(at_most(name, hopping / tumbling, "times", _BOUND))
    return measures + _long(session)


def _long(session: Session) -> list[Measure]:
    base, results, days = apart(_months, session.seed)
    title = f"30 days by 1 day, {_MANY:,} devices, {_PER_DAY} readings a day each, engine alone"
    columns = ("day", "resident MiB", "CPU µs a reading")
    session.console.print(rows_of(title, columns, days))
    greatest = max(resident for _, resident, _ in days)
    total = psutil.virtual_memory().total / MIB
    steady = sorted(cost for day, _, cost in days if day >= _DAYS // 2)
    return [
        at_most(f"{title}: resident, at most", greatest, "MiB", round(total)),
        Measure(f"{title}: resident of an empty engine", round(base), "MiB"),
        Measure(f"{title}: results", results, ""),
        Measure(f"{title}: CPU per reading", round(steady[len(steady) // 2], 2), "µs"),
    ]


def _cost_us(kind: str, seed: int) -> float:
    turns = Turns([_KINDS[kind]], _DEVICES, seed)
    spent = 0.0
    for turn in range(_TURNS):
        took = turns.fold(_START_MS + turn * _SECOND_MS, _BATCH)
        spent += took if turn >= _WARM_TURNS else 0.0
    return spent / ((_TURNS - _WARM_TURNS) * _DEVICES) * 1e6


def _months(seed: int) -> tuple[float, int, list[tuple[float, float, float]]]:
    turns = Turns([_LONG], _MANY, seed)
    base = resident_mib()
    days = []
    for day in range(_DAYS):
        spent = 0.0
        for part in range(_PER_DAY):
            t_ms = _START_MS + day * _DAY_MS + part * _DAY_MS // _PER_DAY
            spent += turns.fold(t_ms, _BATCH)
        days.append((float(day), resident_mib(), spent / (_PER_DAY * _MANY) * 1e6))
    return base, turns.results, days
