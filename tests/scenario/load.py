"""Load for scenarios: frames and JSON, with disorder, repetition and late readings, by a seed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import orjson
from aiokafka import AIOKafkaProducer

from streams.adapters.frames import encode
from streams.core.placement import device_key, partition_of, shard_of
from streams.core.readings import Labels, Readings
from streams.topics import READINGS

TENANT, SITE = "t", "s"
PARTITIONS, SHARDS = 4, 8
DEVICES = 40
ROWS = 60
STEP_MS = 10
FIRST_MS = 1_700_000_000_000
CROWD_EVERY = 25
"""Ticks between two readings of the crowd."""
CROWD_REST = 50
"""Ticks for which one half of the crowd is silent, then the other."""
BEHIND_MS = (0, 0, 0, 0, 500, 500, 15_000, 90_000)
"""In order, out of order, a correction, and beyond every horizon."""


@dataclass(frozen=True, slots=True)
class Row:
    device: str
    metric: str
    t_ms: int
    seq: int
    value: float


@dataclass(frozen=True, slots=True)
class Sent:
    partition: int
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


def crowd_of(n: int) -> list[str]:
    """Return *n* devices that all live in one shard of one partition."""
    names = (f"c{number}" for number in count())
    mine = (name for name in names if shard_of(TENANT, name, SHARDS) == 0)
    return list(islice((n for n in mine if partition_of(TENANT, n, PARTITIONS) == 0), n))


class Load:
    """Endless readings; the same seed gives the same ones, whenever they are sent."""

    def __init__(self, seed: int, crowd: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._crowd = crowd_of(crowd)
        self._seqs: dict[str, int] = {}
        self._recent: deque[Row] = deque(maxlen=500)
        self._ticks = 0
        self.rows = 0
        """Readings made so far, repeated ones included."""

    def tick(self) -> list[Sent]:
        """Return the next records: a third of the readings as JSON, the others as frames."""
        first_ms = FIRST_MS + self._ticks * ROWS * STEP_MS
        rng = self._rng
        # Every device falls silent now and then, so that idle rules fire.
        awake = [d for d in range(DEVICES) if (self._ticks // 40 + d) % 5]
        rows = [
            self._row(f"d{rng.choice(awake)}", "m", first_ms + i * STEP_MS - rng.choice(BEHIND_MS))
            for i in range(ROWS)
        ]
        again = [self._recent[i] for i in rng.integers(len(self._recent), size=3)]
        self._recent.extend(rows)
        rows += again
        as_json = rng.random(len(rows)) < 1 / 3
        sent = [_json(row) for row, alone in zip(rows, as_json, strict=True) if alone]
        framed = [row for row, alone in zip(rows, as_json, strict=True) if not alone]
        if self._crowd and self._ticks % CROWD_EVERY == 0:
            half = self._crowd[self._ticks // CROWD_REST % 2 :: 2]
            crowd = [self._row(name, "cd"[i % 2], first_ms) for i, name in enumerate(half)]
            framed += crowd
            rows += crowd
        self._ticks += 1
        self.rows += len(rows)
        return sent + list(_frames(framed))

    def _row(self, device: str, metric: str, t_ms: int) -> Row:
        seq = self._seqs[device] = self._seqs.get(device, -1) + 1
        value = self._rng.normal() * self._rng.choice([1, 1, 1, 9])
        row = Row(device, metric, int(t_ms), seq, float(value))
        if not self._recent:
            self._recent.append(row)
        return row


def _json(row: Row) -> Sent:
    value = {"t_ms": row.t_ms, "boot": 0, "seq": row.seq, row.metric: row.value}
    partition = partition_of(TENANT, row.device, PARTITIONS)
    headers = [("hw-site", SITE.encode())]
    return Sent(partition, device_key(TENANT, row.device), orjson.dumps(value), headers)


def _frames(rows: list[Row]) -> Iterator[Sent]:
    by_partition: dict[int, list[Row]] = {}
    for row in rows:
        by_partition.setdefault(partition_of(TENANT, row.device, PARTITIONS), []).append(row)
    for partition, mine in by_partition.items():
        n = len(mine)
        readings = Readings(
            Labels.constant(TENANT, n),
            Labels.constant(SITE, n),
            Labels.of(row.device for row in mine),
            Labels.of(row.metric for row in mine),
            np.asarray([row.t_ms for row in mine], np.int64),
            np.full(n, time.time_ns() // 1_000_000, np.int64),
            np.asarray([row.value for row in mine]),
            np.zeros(n, np.uint8),
            np.zeros(n, np.int64),
            np.asarray([row.seq for row in mine], np.int64),
            {},
            {},
        )
        yield Sent(partition, None, encode(readings), [])


async def produce(kafka: str, load: Load, ended: threading.Event, pause_s: float = 0.0) -> None:
    """Write the load to ``readings`` until *ended*; all that was made is in the log then.

    :param pause_s: rest between two ticks, which sets the rate.
    """
    async with AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True) as producer:
        while not ended.is_set():
            sent = [
                await producer.send(
                    READINGS, s.value, key=s.key, partition=s.partition, headers=s.headers
                )
                for s in load.tick()
            ]
            await asyncio.gather(*sent)
            await asyncio.sleep(pause_s)


@contextmanager
def under(kafka: str, load: Load, pause_s: float) -> Iterator[None]:
    """Write the load from another thread for as long as the block lasts."""
    ended = threading.Event()
    with ThreadPoolExecutor(1, "load") as pool:
        running = pool.submit(lambda: asyncio.run(produce(kafka, load, ended, pause_s)))
        try:
            yield
        finally:
            ended.set()
        running.result()
