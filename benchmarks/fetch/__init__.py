"""Records a second that reach a logic, and what they cost: our driver, and clients alone.

One topic of four partitions on real Kafka, 1,000,000 JSON readings of 1,000 devices. Each reader
is a process of its own and reads all of it; the figures are from its first batch to its last.
``driver`` is the Faust worker with a logic that only counts; ``aiokafka`` is the client below
it; ``librdkafka`` is read too where the package confluent-kafka is installed, as Headwater does
not need it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.report import Measure
from streams import collector
from streams.agents.host import HostOptions
from streams.app import AgentSpec, AppSpec, build
from streams.app import run as run_app
from streams.log import configure
from streams.ports import LogRecord, Produce
from streams.services import supervisor
from streams.services.ports import free_port
from streams.settings import Settings

TOPIC = "fetched"
RECORDS = 1_000_000
PARTITIONS = 4
DEVICES = 1_000
_RUNS = 3
_BATCH_BYTES = 250_000
_FIRST_MS = 1_764_000_000_000


def run(*, seconds: float, rate: float, seed: int) -> list[Measure]:
    """Measure, and return the figures: medians of three runs, the readers taking turns."""
    readers = ["driver", "aiokafka"]
    if importlib.util.find_spec("confluent_kafka"):
        readers.append("librdkafka")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in readers}
    with (
        tempfile.TemporaryDirectory() as folder,
        supervisor.services(Path(folder) / "servers", ["kafka"]) as addresses,
    ):
        asyncio.run(_produce(addresses["kafka"], seed))
        for turn in range(_RUNS):
            for name in readers:
                home = Path(folder) / f"{name}-{turn}"
                home.mkdir()
                found[name].append(_child(name, addresses["kafka"], home))
    return [
        Measure(f"{name}: {what}", median(one[what] for one in runs), unit)
        for name, runs in found.items()
        for what, unit in (("records", "1/s"), ("cpu", "s per million"))
    ]


async def _produce(kafka: str, seed: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    config = {"message.timestamp.type": "LogAppendTime"}
    await admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1, topic_configs=config)])
    await admin.close()
    draw = random.Random(seed)
    async with AIOKafkaProducer(
        bootstrap_servers=kafka, acks="all", max_batch_size=_BATCH_BYTES
    ) as producer:
        for partition in range(PARTITIONS):
            batch, sent = producer.create_batch(), []
            for n in range(RECORDS // PARTITIONS):
                device = draw.randrange(DEVICES // PARTITIONS) * PARTITIONS + partition
                value = b'{"t_ms":%d,"boot":1,"seq":%d,"temperature":%.2f}' % (
                    _FIRST_MS + n,
                    n,
                    draw.gauss(21, 1),
                )
                key = b"default/dev-%d" % device
                if batch.append(key=key, value=value, timestamp=None) is None:
                    sent.append(await producer.send_batch(batch, TOPIC, partition=partition))
                    batch = producer.create_batch()
                    batch.append(key=key, value=value, timestamp=None)
            sent.append(await producer.send_batch(batch, TOPIC, partition=partition))
            await asyncio.gather(*sent)


def _child(reader: str, kafka: str, home: Path) -> dict[str, float]:
    code = f"from benchmarks.fetch import read; read({reader!r}, {kafka!r}, {str(home)!r})"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = orjson.loads(done.stdout.splitlines()[-1])
    return found


def read(reader: str, kafka: str, home: str) -> None:
    """Read the topic with one reader, print the figures and end the process."""
    collector.settle()  # as the worker does
    {"driver": _driver, "aiokafka": _aiokafka, "librdkafka": _librdkafka}[reader](kafka, home)


class Meter:
    """Counts records; prints the figures and ends the process with the last."""

    def __init__(self) -> None:
        self._read = 0
        self._began = (0.0, 0.0)

    def count(self, records: int) -> None:
        """Count the records of a batch."""
        if not self._read:
            self._began = time.perf_counter(), time.process_time()
            self._first = records
        self._read += records
        if self._read >= RECORDS:
            self._end()

    def _end(self) -> NoReturn:
        took_s = time.perf_counter() - self._began[0]
        cpu_s = time.process_time() - self._began[1]
        timed = self._read - self._first
        print(orjson.dumps({"records": timed / took_s, "cpu": cpu_s / timed * 1e6}).decode())
        sys.stdout.flush()
        os._exit(0)  # the reader would close in its own time, which is not measured


class Counting:
    """A logic that counts."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        self._meter.count(len(records))
        return []

    def dirty(self) -> Mapping[str, int]:
        return {}

    def snapshot(self, key: str) -> bytes:
        raise KeyError(key)

    def restore(self, key: str, stamp: int, state: bytes) -> None:
        raise KeyError(key)

    def wants_time(self) -> bool:
        return False


def _driver(kafka: str, home: str) -> None:
    settings = Settings(kafka=kafka, state=Path(home), topics={"partitions": PARTITIONS})
    meter = Meter()
    configure(settings.log, "fetch")
    spec = AppSpec(
        name="fetch",
        id=f"fetch-{Path(home).name}",
        instance_id=None,
        agents=[AgentSpec(TOPIC, lambda partition, partitions: Counting(meter))],
        ops_port=free_port(),
        options=HostOptions(settings.worker.checkpoint_ms, settings.worker.silent_ms),
    )
    sys.argv = ["worker"]
    run_app(build(spec, settings))


def _aiokafka(kafka: str, home: str) -> None:
    async def main() -> None:
        meter = Meter()
        consumer = AIOKafkaConsumer(
            TOPIC,
            bootstrap_servers=kafka,
            auto_offset_reset="earliest",
            max_poll_records=Settings().worker.max_poll_records,
        )
        await consumer.start()
        while True:
            for records in (await consumer.getmany(timeout_ms=1_000)).values():
                meter.count(len(records))

    asyncio.run(main())


def _librdkafka(kafka: str, home: str) -> None:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    config: dict[str, Any] = {
        "bootstrap.servers": kafka,
        "group.id": Path(home).name,
        "enable.auto.commit": False,
        "queued.min.messages": 1_000_000,
        "fetch.queue.backoff.ms": 5,
    }
    consumer = Consumer(config)
    consumer.assign([TopicPartition(TOPIC, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
    meter = Meter()
    while True:
        found = consumer.consume(2_000, timeout=1.0)
        # A batch transport needs these of each record; here they are methods.
        for one in found:
            _ = one.offset(), one.timestamp()[1], one.key(), one.value(), one.headers()
        if found:
            meter.count(len(found))
