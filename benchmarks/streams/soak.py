"""Memory over a long time: the whole logic of a partition in memory, with and without churn.

Frames in, results out, checkpoints now and then, as a worker does it but for Kafka. In the first
half the devices stay the same; in the second some leave for good with each round, and as many new
ones come.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.report import Measure, at_most
from benchmarks.streams.data import BOOT, METRIC, SITE, TENANT
from benchmarks.streams.engine import apart, resident_mib
from benchmarks.streams.session import Session
from benchmarks.streams.tables import rows_of
from streams.adapters import frames
from streams.agents.readings import make_readings
from streams.core.readings import Labels, Readings
from streams.settings import Settings, Window
from streams.testing import Record

_DEVICES = 20_000
_ROWS = 500
_INTERVAL_MS = 10_000
_CHURN = 0.01
"""Share of the devices that leaves in each round of the second half."""
_POINTS = 20
_CHECKPOINT_ROUNDS = 10
_START_MS = 1_700_000_000_000
_STEADY_BOUND = 1.1
_SETTINGS = Settings(
    windows=[Window(name="w", size_ms=60_000, horizon_ms=600_000)],
)


@dataclass(frozen=True, slots=True)
class Point:
    """How it stands after so many readings."""

    readings: int
    seen: int
    """Devices so far, those that left included."""
    resident_mib: float
    state_mib: float
    """What a checkpoint of everything would store."""
    per_s: float


def measure(session: Session, readings: int) -> list[Measure]:
    """Return resident memory over time: in the half without churn, and per device that left."""
    found = apart(_run, readings, session.seed)
    title = f"{readings:,} readings of {_DEVICES:,} devices, {_CHURN:.0%} replaced each {_ROUND}"
    columns = ("readings", "devices so far", "resident MiB", "state MiB", "readings/s")
    rows = [
        (p.readings, p.seen, round(p.resident_mib, 1), round(p.state_mib, 1), round(p.per_s))
        for p in found
    ]
    session.console.print(rows_of(title, columns, rows))
    half = len(found) // 2
    early, middle, last = found[half // 2], found[half - 1], found[-1]
    gone = last.seen - middle.seen
    grown = last.resident_mib - middle.resident_mib
    return [
        at_most(
            "soak, same devices: resident at the end of the half, of that in its middle",
            middle.resident_mib / early.resident_mib,
            "times",
            _STEADY_BOUND,
        ),
        Measure("soak, same devices: resident at the end", round(middle.resident_mib), "MiB"),
        Measure("soak, churn: resident at the end", round(last.resident_mib), "MiB"),
        Measure("soak, churn: devices that came and left", gone, ""),
        Measure("soak, churn: grown per device", round(grown / max(1, gone) * 1024, 2), "KiB"),
        Measure("soak: readings", last.readings, ""),
    ]


_ROUND = "ten seconds of the second half"


def _run(readings: int, seed: int) -> list[Point]:
    rng = np.random.default_rng(seed)
    logic = make_readings(_SETTINGS)(0, 1)
    rounds = max(2 * _POINTS, readings // _DEVICES)
    every = rounds // _POINTS
    number, born = np.arange(_DEVICES), np.zeros(_DEVICES, np.int64)
    seen, offset, points = _DEVICES, 0, []
    began = time.perf_counter()
    for turn in range(rounds):
        if turn > rounds // 2:
            leaving = rng.choice(_DEVICES, round(_CHURN * _DEVICES), replace=False)
            number[leaving] = np.arange(seen, seen + len(leaving))
            born[leaving] = turn
            seen += len(leaving)
        t_ms = _START_MS + turn * _INTERVAL_MS
        values = rng.normal(20.0, 1.0, _DEVICES)
        batch = [
            Record(offset + i, t_ms, None, value)
            for i, value in enumerate(_frames(number, turn - born, t_ms, values))
        ]
        logic.fold(batch)
        offset += len(batch)
        if turn % _CHECKPOINT_ROUNDS == 0:
            for key in logic.dirty():
                logic.snapshot(key)
        if turn % every == every - 1:
            state = sum(len(logic.snapshot(str(s))) for s in range(_SETTINGS.topics.shards))
            per_s = every * _DEVICES / (time.perf_counter() - began)
            done = (turn + 1) * _DEVICES
            points.append(Point(done, seen, resident_mib(), state / (1 << 20), per_s))
            began = time.perf_counter()
    return points


def _frames(number: np.ndarray, seq: np.ndarray, t_ms: int, value: np.ndarray) -> Iterator[bytes]:
    for begin in range(0, len(number), _ROWS):
        at = slice(begin, begin + _ROWS)
        n = len(number[at])
        yield frames.encode(
            Readings(
                tenant=Labels.constant(TENANT, n),
                site=Labels.constant(SITE, n),
                device=Labels.of(f"sensor-{one:09d}" for one in number[at].tolist()),
                metric=Labels.constant(METRIC, n),
                t_ms=np.full(n, t_ms, np.int64),
                received_ms=np.full(n, t_ms, np.int64),
                value=value[at],
                quality=np.zeros(n, np.uint8),
                boot=np.full(n, BOOT, np.int64),
                seq=seq[at].astype(np.int64),
                exact_int={},
                text={},
            )
        )
