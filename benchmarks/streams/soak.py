"""Memory over a long time: the whole logic of a partition in memory, with and without churn.

Frames in, results out, checkpoints now and then, as a worker does it but for Kafka; quiet devices
leave memory for RocksDB. In the first half the devices stay the same. In the second some fall
silent with each round, and as many others are heard: most of them new, some that had been away.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
from rocksdict import Options, Rdict

from benchmarks.report import Measure, at_most
from benchmarks.streams.data import BOOT, METRIC, SITE, TENANT
from benchmarks.streams.engine import apart, resident_mib
from benchmarks.streams.session import Session
from benchmarks.streams.tables import rows_of
from streams.adapters import frames
from streams.adapters.rocks_store import OPTIONS
from streams.agents.readings import ReadingsLogic, make_readings
from streams.core.readings import Labels, Readings
from streams.settings import Settings, Window, Worker
from streams.testing import Record

_DEVICES = 20_000
_ROWS = 500
_INTERVAL_MS = 10_000
_CHURN = 0.01
"""Share of the devices that falls silent in each round of the second half."""
_OLD = 0.2
"""Share of those heard instead that had been away."""
_POINTS = 20
_CHECKPOINT_ROUNDS = 10
_START_MS = 1_700_000_000_000
_STEADY_BOUND = 1.1
_SETTINGS = Settings(
    windows=[Window(name="w", size_ms=60_000, horizon_ms=600_000)],
    worker=Worker(evict_ms=900_000),
)


@dataclass(frozen=True, slots=True)
class Point:
    """How it stands after so many readings."""

    readings: int
    seen: int
    """Devices so far."""
    away: int
    """Of them not in memory."""
    resident_mib: float
    state_mib: float
    """What a checkpoint of everything would store."""
    per_s: float


def measure(session: Session, readings: int) -> list[Measure]:
    """Return resident memory over time: in the half without churn, and per device that left."""
    found = apart(_run, readings, session.seed)
    title = f"{readings:,} readings of {_DEVICES:,} devices, {_CHURN:.0%} replaced each {_ROUND}"
    columns = ("readings", "devices so far", "away", "resident MiB", "state MiB", "readings/s")
    rows = [
        (
            p.readings,
            p.seen,
            p.away,
            round(p.resident_mib, 1),
            round(p.state_mib, 1),
            round(p.per_s),
        )
        for p in found
    ]
    session.console.print(rows_of(title, columns, rows))
    half = len(found) // 2
    early, middle, last = found[half // 2], found[half - 1], found[-1]
    settled = found[half + half // 2]
    return [
        at_most(
            "soak, same devices: resident at the end of the half, of that in its middle",
            middle.resident_mib / early.resident_mib,
            "times",
            _STEADY_BOUND,
        ),
        Measure("soak, same devices: resident at the end", round(middle.resident_mib), "MiB"),
        at_most(
            "soak, churn: resident at the end, of that in the middle of the half",
            last.resident_mib / settled.resident_mib,
            "times",
            _STEADY_BOUND,
        ),
        Measure("soak, churn: resident at the end", round(last.resident_mib), "MiB"),
        Measure("soak, churn: devices so far", last.seen, ""),
        Measure("soak, churn: of them away", last.away, ""),
        Measure("soak: readings", last.readings, ""),
    ]


_ROUND = "ten seconds of the second half"


class _Disk(Mapping[str, bytes]):
    """Segments on disk."""

    def __init__(self, folder: str) -> None:
        options = Options(raw_mode=True)
        # As a worker's: of RocksDB's own 64 MiB the memory of the logic could not be told.
        options.set_write_buffer_size(cast(int, OPTIONS["write_buffer_size"]))
        options.set_max_write_buffer_number(cast(int, OPTIONS["max_write_buffer_number"]))
        self._files = Rdict(str(Path(folder) / "segments"), options)

    def __getitem__(self, name: str) -> bytes:
        return cast(bytes, self._files[name.encode()])

    def __setitem__(self, name: str, value: bytes) -> None:
        self._files[name.encode()] = value

    def __delitem__(self, name: str) -> None:
        del self._files[name.encode()]

    def __iter__(self) -> Iterator[str]:
        keys = self._files.keys()  # An Rdict is no mapping: it cannot be iterated over itself.
        return (cast(bytes, key).decode() for key in keys)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Fleet:
    """Which devices are heard, and their numbering."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.number = np.arange(_DEVICES)
        self.born = np.zeros(_DEVICES, np.int64)
        """Round in which each device, of all so far, was heard first."""
        self._gone = np.empty(0, np.int64)

    def churn(self, turn: int) -> None:
        """Let some fall silent, and others be heard instead."""
        at = self._rng.choice(_DEVICES, round(_CHURN * _DEVICES), replace=False)
        leaving = self.number[at]
        old = round(_OLD * len(at)) if len(self._gone) > 2 * len(at) else 0
        back = self._rng.choice(len(self._gone), old, replace=False)
        new = np.arange(len(self.born), len(self.born) + len(at) - old)
        self.number[at] = np.concatenate([self._gone[back], new])
        self._gone = np.concatenate([np.delete(self._gone, back), leaving])
        self.born = np.concatenate([self.born, np.full(len(new), turn)])


def _run(readings: int, seed: int) -> list[Point]:
    with TemporaryDirectory() as folder:
        return _rounds(readings, np.random.default_rng(seed), _Disk(folder))


def _rounds(readings: int, rng: np.random.Generator, disk: _Disk) -> list[Point]:
    logic = cast(ReadingsLogic, make_readings(_SETTINGS)(0, 1))
    logic.connect(disk.__getitem__)
    rounds = max(2 * _POINTS, readings // _DEVICES)
    every = rounds // _POINTS
    fleet, offset, points = _Fleet(rng), 0, []
    began = time.perf_counter()
    for turn in range(rounds):
        if turn > rounds // 2:
            fleet.churn(turn)
        t_ms = _START_MS + turn * _INTERVAL_MS
        values = rng.normal(20.0, 1.0, _DEVICES)
        seq = turn - fleet.born[fleet.number]
        batch = [
            Record(offset + i, t_ms, None, value)
            for i, value in enumerate(_frames(fleet.number, seq, t_ms, values))
        ]
        logic.fold(batch)
        offset += len(batch)
        if turn % _CHECKPOINT_ROUNDS == 0:
            _checkpoint(logic, disk)
        if turn % every == every - 1:
            state = sum(len(logic.snapshot(str(s))) for s in range(_SETTINGS.topics.shards))
            per_s = every * _DEVICES / (time.perf_counter() - began)
            done, away = (turn + 1) * _DEVICES, int(logic.engine.registry.away.sum())
            seen = len(fleet.born)
            points.append(Point(done, seen, away, resident_mib(), state / (1 << 20), per_s))
            began = time.perf_counter()
    return points


def _checkpoint(logic: ReadingsLogic, disk: _Disk) -> None:
    """Take a snapshot of all that is dirty, and let who is quiet leave, as a worker does."""
    named = set()
    for key in logic.dirty():
        logic.snapshot(key)
        named |= set(logic.segments(key))
    for name in set(disk) - named:
        del disk[name]
    leaving = logic.leave()
    while leaving:
        for part in leaving:
            disk[part.id] = part.state
        logic.left([part.id for part in leaving])
        leaving = logic.leave()


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
