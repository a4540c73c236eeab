"""The rules of time, identity and windows, one row at a time and as plainly as they can be said.

Shares no code with the engine but its classes: what it is compared with must not be itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from streams.core.classes import Class


@dataclass(frozen=True)
class Row:
    """One reading of a record; ``seq`` -1 and ``timed`` false mean: nothing identifies it."""

    device: str
    metric: str
    t_ms: int
    value: float
    received_ms: int
    seq: int = -1
    boot: int = -1
    timed: bool = True


@dataclass(frozen=True)
class Record:
    log_ms: int
    rows: tuple[Row, ...]


@dataclass
class Pane:
    values: list[float] = field(default_factory=list)
    late: int = 0
    closed: bool = False
    idle: bool = False
    shown: int = 0

    def result(self) -> tuple[float, ...]:
        n, first = len(self.values), self.values[0]
        total = s1 = s2 = 0.0
        for value in self.values:
            total += value
            s1 += value - first
            s2 += (value - first) * (value - first)
        sd = math.sqrt(max((s2 - s1 * s1 / n) / (n - 1.0), 0.0)) if n > 1 else math.nan
        return (n, total, min(self.values), max(self.values), total / n, sd)


@dataclass
class Device:
    max_t: int = -1
    log_ms: int = -1
    deadline: float = math.inf
    final: bool = False
    seen: dict[tuple[int, int], int] = field(default_factory=dict)
    identities: set[tuple[str, int]] = field(default_factory=set)
    panes: dict[tuple[str, int, int], Pane] = field(default_factory=dict)


class Oracle:
    """``windows``: (size, offset, grace, horizon) of each definition, all for every metric."""

    def __init__(self, windows, *, disorder, skew, idle, idle_final):
        self.windows = windows
        self.disorder, self.skew = disorder, skew
        self.idle, self.idle_final = idle, max(idle, idle_final)
        self.memory = disorder + max(s + g + h for s, _, g, h in windows)
        self.devices: dict[str, Device] = {}
        self.verdicts: list[Class] = []
        self.results: dict[tuple, dict[int, tuple]] = {}
        self.provisional: list[tuple] = []

    def run(self, records):
        for offset, record in enumerate(records):
            self.advance(record.log_ms)
            inside: set[tuple] = set()
            for row in record.rows:
                self.verdicts.append(self.take(row, offset, inside))
            for name in {row.device for row in record.rows}:
                device = self.devices[name]
                device.log_ms = record.log_ms
                waiting = any(not p.closed for p in device.panes.values())
                device.deadline = record.log_ms + self.idle if waiting else math.inf
                device.final = self.idle >= self.idle_final
        return self

    def advance(self, log_ms):
        while True:
            due = [d for d in self.devices.values() if d.deadline < log_ms]
            if not due:
                return
            for device in due:
                name = next(n for n, d in self.devices.items() if d is device)
                for (metric, w, start), pane in device.panes.items():
                    if pane.closed:
                        continue
                    key = (name, metric, w, start)
                    if device.final:
                        pane.closed = pane.idle = True
                        self.emit(key, pane)
                    elif pane.shown != len(pane.values):
                        pane.shown = len(pane.values)
                        self.provisional.append((key, pane.result()))
                device.deadline = math.inf if device.final else device.log_ms + self.idle_final
                device.final = True

    def emit(self, key, pane):
        self.results.setdefault(key, {})[pane.late] = pane.result()

    def take(self, row, offset, inside):
        device = self.devices.setdefault(row.device, Device())
        if not math.isfinite(row.value):
            self.mark(device, row, offset)
            return Class.REJECTED
        before = device.max_t - self.disorder if device.max_t >= 0 else -1
        if row.seq != -1:
            new = self.mark(device, row, offset)
            again = (row.device, row.boot, row.seq, row.metric, row.t_ms)
            if not new or again in inside:
                return Class.DUPLICATE
            inside.add(again)
        elif row.timed and row.t_ms > before - self.memory:
            identity = (row.metric, row.t_ms)
            if identity in device.identities:
                return Class.DUPLICATE
            device.identities.add(identity)
        if row.t_ms > row.received_ms + self.skew:
            return Class.QUARANTINED
        device.max_t = max(device.max_t, row.t_ms)
        return self.fold(device, row, before)

    @staticmethod
    def mark(device, row, offset):
        """A message is new in the first record that brings it, and as a whole."""
        if row.seq == -1:
            return True
        return device.seen.setdefault((row.boot, row.seq), offset) == offset

    def fold(self, device, row, before):
        taken = False
        for w, (size, shift, grace, horizon) in enumerate(self.windows):
            start = (row.t_ms - shift) // size * size + shift
            closes = start + size + grace
            if before >= closes + horizon:
                continue
            taken = True
            pane = device.panes.setdefault((row.metric, w, start), Pane())
            late = before >= closes or pane.idle
            pane.values.append(row.value + 0.0)  # 0.0 for -0.0
            pane.late += late
            if late and pane.closed:
                self.emit((row.device, row.metric, w, start), pane)
        for (metric, w, start), pane in device.panes.items():
            size, _, grace, _ = self.windows[w]
            if not pane.closed and device.max_t - self.disorder >= start + size + grace:
                pane.closed = True
                self.emit((row.device, metric, w, start), pane)
        return Class.ACCEPTED if taken else Class.LATE
