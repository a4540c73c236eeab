"""From a reading in the log to its result in the log, at a low steady rate, by the broker's clock.

As many devices as readings a second, in turn, and windows of one second: every reading closes
the window of its device before it, and so has a result of its own.
"""

from __future__ import annotations

import asyncio
import time

import numpy as np
import orjson
from aiokafka import AIOKafkaProducer

from benchmarks.report import Measure, at_least, at_most
from benchmarks.streams import headwater
from benchmarks.streams.broker import broker
from benchmarks.streams.data import PARTITIONS, TENANT
from benchmarks.streams.peers import Place
from benchmarks.streams.session import Session
from streams.adapters import results
from streams.adapters.log_reader import read_all
from streams.core.placement import partition_of
from streams.topics import AGGREGATES, READINGS

_SIZE_MS = 1_000
_TICK_S = 0.002
_WARM_TURNS = 5
"""Turns of all devices that are not counted: devices become known, code is loaded."""
_BOUND_MS = 50.0
_PATIENCE_S = 60.0

Stamps = dict[tuple[str, int], int]
"""(Device, start of the window) -> log time in ms."""


def measure(session: Session, per_s: int, seconds: float) -> list[Measure]:
    """Return percentiles of the time from a reading's log time to its result's."""
    servers, work = session.folders("latency")
    turns = _WARM_TURNS + max(2, round(seconds * 1000 / _SIZE_MS))
    session.console.print(f"publishing {per_s:,} readings/s for {turns} s")
    with broker(servers) as kafka:
        worker = headwater.Worker(Place(kafka, servers, work), size_ms=_SIZE_MS)
        try:
            worker.child.until(worker.is_ready, _PATIENCE_S)
            started = time.perf_counter()
            first_ms = asyncio.run(_publish(kafka, per_s, turns, session.seed))
            achieved = per_s * turns / (time.perf_counter() - started)
            worker.child.until(lambda: worker.committed() >= per_s * turns, _PATIENCE_S)
        finally:
            worker.child.stop()
        caused, shown = asyncio.run(_stamps(kafka))
    counted = [key for key in caused if key[1] >= first_ms + _WARM_TURNS * _SIZE_MS]
    waited = np.asarray([shown[key] - caused[key] for key in counted if key in shown])
    session.history.note("latency", {"waited_ms": np.bincount(waited).tolist()})
    p50, p99 = np.percentile(waited, [50, 99])
    name = f"reading to result at {per_s:,} readings/s, JSON, checkpoint 1 s"
    return [
        at_most(f"{name}, p99", float(p99), "ms", _BOUND_MS),
        Measure(f"{name}, p50", float(p50), "ms"),
        Measure(f"{name}, greatest", int(waited.max()), "ms"),
        at_least("results that were looked for and found", len(waited), "", len(counted)),
        at_least("rate published", achieved, "readings/s", 0.98 * per_s),
    ]


async def _publish(kafka: str, per_s: int, turns: int, seed: int) -> int:
    """Send all readings evenly; return the start of the first window."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=0)
    await producer.start()
    names = [f"sensor-{number:07d}" for number in range(per_s)]
    partitions = [partition_of(TENANT, name, PARTITIONS) for name in names]
    values = np.random.default_rng(seed).normal(20.0, 1.0, per_s * turns).tolist()
    first_ms = int(time.time() * 1000) // _SIZE_MS * _SIZE_MS
    started, sent = time.perf_counter(), 0
    try:
        while sent < len(values):
            until = min(len(values), int((time.perf_counter() - started) * per_s) + 1)
            for number in range(sent, until):
                turn, device = divmod(number, per_s)
                t_ms = first_ms + turn * _SIZE_MS + device * _SIZE_MS // per_s
                value = b'{"t_ms":%d,"boot":1,"seq":%d,"temperature":%.3f}'
                await producer.send(
                    READINGS,
                    value % (t_ms, turn, values[number]),
                    key=f"{TENANT}/{names[device]}".encode(),
                    partition=partitions[device],
                )
            sent = until
            await asyncio.sleep(_TICK_S)
    finally:
        await producer.stop()
    return first_ms


async def _stamps(kafka: str) -> tuple[Stamps, Stamps]:
    """Return when each window's closing reading, and its first result, came into the log."""
    caused: Stamps = {}
    async for record in read_all(kafka, [READINGS]):
        device = record.key.decode().partition("/")[2]
        reading = orjson.loads(record.value)
        if reading["seq"]:
            caused[device, reading["t_ms"] // _SIZE_MS * _SIZE_MS - _SIZE_MS] = record.timestamp
    shown: Stamps = {}
    async for record in read_all(kafka, [AGGREGATES]):
        windows = results.decode_windows(record.value)
        for device, start in zip(windows.device.to_list(), windows.start_ms.tolist(), strict=True):
            shown.setdefault((device, start), record.timestamp)
    return caused, shown
