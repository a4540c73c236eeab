"""kill -9 to a worker with a million devices, under load: the time to the first fresh result.

A result is fresh if a reading is in it that came into the log after the kill: so all that was not
stored has been folded again, and the stream is where it was.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.report import Measure, at_most
from benchmarks.streams import headwater
from benchmarks.streams.broker import broker, load
from benchmarks.streams.compare import records
from benchmarks.streams.data import PARTITIONS, generated
from benchmarks.streams.engine import MIB
from benchmarks.streams.peers import Place
from benchmarks.streams.session import Session
from benchmarks.streams.steady import Load
from benchmarks.streams.tables import rows_of
from streams.adapters import results
from streams.adapters.log_reader import ends_of
from streams.errors import ServiceError
from streams.topics import AGGREGATES, READINGS

_DEVICES = 1_000_000
_INTERVAL_MS = 10_000
_SIZE_MS = 1_000
_ROWS = 500
_WARM_TURNS = 2
"""Each device is known, and has told a window, before the kill."""
_PER_S = 10_000
_LOADED_S = 15.0
"""Steady load before the kill."""
_TARGET_S = 10.0
_PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill and restart."""

    fresh_s: float
    """From the restart to the log time of the first fresh result."""
    opened_s: float
    """From the restart to the opening of the last partition."""
    lag_records: int
    stored_mib: float
    checkpoint_s: float
    """How long a checkpoint of all partitions took on average until the kill."""


def measure(session: Session) -> list[Measure]:
    """Return the time to the first fresh result, the lag at the kill and the checkpoints' pace."""
    found = [_kill(session, run) for run in range(session.runs)]
    about = f"{_DEVICES:,} devices, {_PER_S:,} readings/s, frames of {_ROWS}"
    columns = ("fresh s", "opened s", "lag, records", "changelog MiB", "a checkpoint s")
    rows = [
        (
            round(k.fresh_s, 1),
            round(k.opened_s, 1),
            k.lag_records,
            round(k.stored_mib),
            round(k.checkpoint_s, 1),
        )
        for k in found
    ]
    session.console.print(rows_of(f"kill -9 and restart, {about}", columns, rows))
    middle = sorted(found, key=lambda k: k.fresh_s)[len(found) // 2]
    return [
        at_most(f"{about}: restart to first fresh result", middle.fresh_s, "s", _TARGET_S),
        Measure(f"{about}: restart to all opened", round(middle.opened_s, 2), "s"),
        Measure(f"{about}: lag at the kill", middle.lag_records * _ROWS, "readings"),
        Measure(f"{about}: changelog at the kill", round(middle.stored_mib), "MiB"),
        Measure("checkpoint interval asked for", 1, "s"),
        Measure(f"{about}: a checkpoint took", round(middle.checkpoint_s, 2), "s"),
    ]


def _kill(session: Session, run: int) -> Kill:
    data = generated(
        "restart",
        devices=_DEVICES,
        readings=(_WARM_TURNS + 1) * _DEVICES,
        interval_ms=_INTERVAL_MS,
        seed=session.seed + run,
    )
    every = list(records(data, _ROWS))
    warm = len(every) * _WARM_TURNS // (_WARM_TURNS + 1)
    servers, work = session.folders(f"restart-{run}")
    with broker(servers) as kafka:
        place = Place(kafka, servers, work)
        worker = headwater.Worker(place, size_ms=_SIZE_MS)
        steady = Load(kafka, every[warm:], _ROWS, _PER_S)
        try:
            total = load(kafka, every[:warm])
            worker.child.until(lambda: worker.committed() >= total, _PATIENCE_S)
            session.console.print(f"restart: {_DEVICES:,} devices are stored")
            with steady.running():
                enough = _LOADED_S * _PER_S / _ROWS
                worker.child.until(lambda: steady.sent >= enough, _PATIENCE_S)
                took_s = _checkpoint_s(worker)
                worker.child.process.kill()
                worker.child.process.wait()
                killed_ms = int(time.time() * 1000)
                lag = _end(kafka) - worker.committed()
                stored = worker.state_bytes() / MIB
                worker = headwater.Worker(place, size_ms=_SIZE_MS, group=worker.group)
                restarted_s = time.time()
                told_ms = asyncio.run(_first_fresh(kafka, killed_ms))
                opened_s = max(at_s for at_s, _ in worker.openings())
        finally:
            worker.child.stop()
    fresh_s = told_ms / 1000 - restarted_s
    return Kill(fresh_s, opened_s - restarted_s, lag, stored, took_s)


def _checkpoint_s(worker: headwater.Worker) -> float:
    name = "headwater_host_checkpoint_seconds"
    return worker.metric(f"{name}_sum") / max(1.0, worker.metric(f"{name}_count"))


def _end(kafka: str) -> int:
    places = [(READINGS, partition) for partition in range(PARTITIONS)]
    return sum(asyncio.run(ends_of(kafka, places)).values())


async def _first_fresh(kafka: str, after_ms: int) -> int:
    """Return the log time in ms of the first result with a reading from after *after_ms*."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    async with consumer:
        places = [TopicPartition(AGGREGATES, partition) for partition in range(PARTITIONS)]
        consumer.assign(places)
        found = await consumer.offsets_for_times(dict.fromkeys(places, after_ms))
        ends = await consumer.end_offsets(places)
        for place in places:
            consumer.seek(place, found[place].offset if found[place] else ends[place])
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            for records_of in (await consumer.getmany(timeout_ms=200)).values():
                for record in records_of:
                    windows = results.decode_windows(record.value)
                    if windows.kafka_ms.max() >= after_ms:
                        return int(record.timestamp)
    raise ServiceError(f"no fresh result within {_PATIENCE_S:.0f} s")
