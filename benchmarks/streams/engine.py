"""The engine alone, in a process of its own: no Kafka, no decoding, no encoding."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
import psutil

from benchmarks.streams.data import BOOT, METRIC, SITE, TENANT
from streams.core.engine import DeviceRules, LogRows, StreamEngine
from streams.core.readings import Labels, Readings
from streams.core.windows import Window

T = TypeVar("T")
MIB = 1 << 20
_SHARDS = 8
_YEARS_MS = 10**11
RULES = DeviceRules(
    disorder_ms=0,
    skew_ms=300_000,
    idle_ms=_YEARS_MS,
    idle_final_ms=_YEARS_MS,
    max_seq_holes=1_024,
    max_identities=1_000_000,
    max_devices=1_000_000,
    max_metrics=1_000,
)


def apart(work: Callable[..., T], *args: Any) -> T:
    """Run a function in a new process, whose memory is its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(work, args)


def resident_mib() -> float:
    """Return the resident size of this process, without garbage."""
    gc.collect()
    return float(psutil.Process().memory_info().rss / MIB)


class Turns:
    """Feeds an engine turn by turn: each turn brings a reading of every device."""

    def __init__(self, definitions: Sequence[Window], devices: int, seed: int) -> None:
        self.engine = StreamEngine(definitions, RULES, _SHARDS)
        self.results = 0
        self._names = tuple(f"sensor-{number:07d}" for number in range(devices))
        self._rng = np.random.default_rng(seed)
        self._turn = 0

    def fold(self, t_ms: int, batch: int) -> float:
        """Fold a turn at event time *t_ms* in batches; return the CPU seconds of the engine."""
        n = len(self._names)
        value = self._rng.normal(20.0, 1.0, n)
        spent = 0.0
        for begin in range(0, n, batch):
            device = np.arange(begin, min(n, begin + batch), dtype=np.int32)
            times = np.full(len(device), t_ms, np.int64)
            rows = log_rows(device, value[device], times, self._names, self._turn)
            started = time.process_time()
            folded = self.engine.fold(rows)
            spent += time.process_time() - started
            self.results += sum(len(part) for piece in folded for part in piece.results)
        self._turn += 1
        return spent


def log_rows(device: Any, value: Any, t_ms: Any, names: Sequence[str], turn: int) -> LogRows:
    """Return a batch: one record, or one a reading where their times differ.

    :param device, value, t_ms: arrays[n]; *device* indexes into *names*, times ascend.
    :param turn: how many readings each device has sent before.
    """
    n = len(device)
    readings = Readings(
        tenant=Labels.constant(TENANT, n),
        site=Labels.constant(SITE, n),
        device=Labels(device, names),
        metric=Labels.constant(METRIC, n),
        t_ms=t_ms,
        received_ms=t_ms,
        value=value,
        quality=np.zeros(n, np.uint8),
        boot=np.full(n, BOOT, np.int64),
        seq=np.full(n, turn, np.int64),
        exact_int={},
        text={},
    )
    one = int(t_ms[0]) == int(t_ms[-1])
    first = turn * len(names) + int(device[0])
    offset = np.full(n, first, np.int64) if one else np.arange(first, first + n)
    row = np.arange(n, dtype=np.int32) if one else np.zeros(n, np.int32)
    return LogRows(readings, offset, row, t_ms)
