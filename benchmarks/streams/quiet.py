"""What a reading costs of devices that report more seldom than the idle timeout."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from benchmarks.report import Measure, at_most
from benchmarks.streams.engine import RULES, apart, log_rows
from benchmarks.streams.session import Session
from streams.core.engine import StreamEngine
from streams.core.windows import Tumbling

_START_MS = 1_699_920_000_000
_DEVICES = 25_000
_INTERVAL_MS, _IDLE_MS = 300_000, 60_000
_TURNS = 8
_BATCH = 2_000
_BOUND = 3.0
_WINDOW = Tumbling(name="w", size_ms=60_000, horizon_ms=600_000)


def measure(session: Session) -> list[Measure]:
    """Return the cost of a reading with an idle rule that fires before nearly each, and without."""
    costs: dict[str, float] = {}
    for name, idle_ms in (("idle rule fires", _IDLE_MS), ("no idle rule", RULES.idle_ms)):
        found = sorted(apart(_cost_us, idle_ms, session.seed + run) for run in range(session.runs))
        costs[name] = found[len(found) // 2]
        session.console.print(f"{name}: {costs[name]:.2f} µs a reading")
    title = f"{_DEVICES:,} devices, a reading each {_INTERVAL_MS // 1000} s, engine alone"
    fires, none = costs.values()
    return [
        *(Measure(f"{title}, {name}: CPU", round(cost, 2), "µs") for name, cost in costs.items()),
        at_most(f"{title}: with : without idle rule", fires / none, "times", _BOUND),
    ]


def _cost_us(idle_ms: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    names = tuple(f"sensor-{number:07d}" for number in range(_DEVICES))
    rules = replace(RULES, idle_ms=idle_ms, idle_final_ms=max(idle_ms, 10 * _IDLE_MS))
    engine = StreamEngine([_WINDOW], rules, 8)
    phase = np.arange(_DEVICES) * _INTERVAL_MS // _DEVICES
    spent = 0.0
    for turn in range(_TURNS):
        for begin in range(0, _DEVICES, _BATCH):
            device = np.arange(begin, min(_DEVICES, begin + _BATCH), dtype=np.int32)
            t_ms = _START_MS + turn * _INTERVAL_MS + phase[device]
            rows = log_rows(device, rng.normal(20.0, 1.0, len(device)), t_ms, names, turn)
            started = time.process_time()
            engine.fold(rows)
            spent += time.process_time() - started if turn else 0.0
    return spent / ((_TURNS - 1) * _DEVICES) * 1e6
