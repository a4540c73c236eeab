"""Devices under load, and what the log says that results of theirs have to be."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict

from streams.adapters.frames import decode
from streams.adapters.results import decode_rollups, decode_windows
from streams.ports import is_time_marker
from tests.oracle import Oracle, Record, Row

DEVICES = ["pump-1", "pump-2", "fan-1"]
HORIZON_MS = 600_000
HELD = ("w", "w@2")
"""Windows that roll-ups hold for so long that none is gone while a test runs."""
RULES = {"disorder": 0, "skew": 60_000, "idle": 1_000, "idle_final": 2_000}


class Fleet:
    """Devices that send all the time, some of it late, some of it twice."""

    def __init__(self, plant, base=0):
        self.plant, self.sent, self._base, self._stop = plant, 0, base, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        chance = random.Random(5)
        while not self._stop.wait(0.04):
            seq = self._base + self.sent
            now_ms = time.time_ns() // 1_000_000
            late_ms = chance.choice([0, 0, 0, 0, 300, 9_000])
            row = {"t_ms": now_ms - late_ms, "boot": 1, "seq": seq, "x": chance.uniform(-1, 1)}
            self.plant.publish(DEVICES[seq % 3], *[row] * chance.choice([1, 1, 1, 2]))
            self.sent += 1


def oracle_of(plant, size_ms, grace_ms):
    """What the definition makes of the log: (device, start) -> rank -> numbers."""
    logs = defaultdict(list)
    for record in plant.records("readings"):
        rows = ()
        if not is_time_marker(record):
            r = decode(record.value)
            rows = tuple(
                Row(r.device[i], r.metric[i], int(r.t_ms[i]), float(r.value[i]),
                    int(r.received_ms[i]), int(r.seq[i]), int(r.boot[i]))
                for i in range(len(r))
            )  # fmt: skip
        logs[record.partition].append(Record(record.timestamp, rows))
    found = {}
    for log in logs.values():
        oracle = Oracle([(size_ms, 0, grace_ms, HORIZON_MS)], **RULES).run(log)
        for (device, metric, _, start), ranks in oracle.results.items():
            if metric == "x" and device in DEVICES:
                found[device, start] = ranks
    return found


def told(plant, window):
    """All revisions that were told: (device, start) -> rank -> numbers."""
    found = defaultdict(dict)
    for record in plant.records("aggregates"):
        if is_time_marker(record):
            continue
        r = decode_windows(record.value)
        columns = (r.count, r.sum, r.min, r.max, r.mean, r.sd)
        for i in range(len(r)):
            if r.window[i] == window and r.rank[i] >= 0 and r.device[i] in DEVICES:
                numbers = tuple(float(column[i]) for column in columns)
                before = found[r.device[i], int(r.start_ms[i])].setdefault(int(r.rank[i]), numbers)
                assert repr(before) == repr(numbers)
    return found


def greatest(results):
    return {key: repr((max(ranks), ranks[max(ranks)])) for key, ranks in results.items()}


def floats(results):
    return {
        key: {rank: tuple(map(float, numbers)) for rank, numbers in ranks.items()}
        for key, ranks in results.items()
    }


def groups(plant):
    """The current count of each type's window: (group, window, start) -> count."""
    best = {}
    for record in plant.records("rollups"):
        if not is_time_marker(record):
            r = decode_rollups(record.value)
            for i in range(len(r)):
                if r.window[i] not in HELD:
                    continue
                key = r.group[i], r.window[i], int(r.start_ms[i])
                best[key] = max(best.get(key, (-1, 0)), (int(r.rank[i]), int(r.count[i])))
    return {key: count for key, (_, count) in best.items() if count}


def counted(plant, types):
    """What the types of the devices make of their current results."""
    found = defaultdict(int)
    for window in HELD:
        for (device, start), ranks in told(plant, window).items():
            if device in types:
                found[types[device], window, start] += int(ranks[max(ranks)][0])
    return found
