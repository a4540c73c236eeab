"""A Kafka of its own for one data set: filled once, then read from the beginning by all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError

from benchmarks.streams.data import PARTITIONS
from streams.adapters import topic_admin
from streams.adapters.log_reader import ends_of
from streams.services import supervisor
from streams.settings import Settings
from streams.topics import READINGS

_BATCH_BYTES = 262_144
_IN_FLIGHT = 64

Record = tuple[int, bytes | None, bytes, list[tuple[str, bytes]]]
"""Partition, key, value, headers."""


@contextmanager
def broker(state: Path) -> Iterator[str]:
    """Run a new Kafka with Headwater's topics; yields its address."""
    address = supervisor.up(state, ["kafka"])["kafka"]
    try:
        asyncio.run(topic_admin.apply(address, Settings().topics))
        yield address
    finally:
        supervisor.down(state)


def load(address: str, records: Iterable[Record]) -> int:
    """Write records to ``readings`` in batches of 256 KiB; return how many there are now."""
    asyncio.run(_load(address, records))
    places = [(READINGS, partition) for partition in range(PARTITIONS)]
    return sum(asyncio.run(ends_of(address, places)).values())


def committed(address: str, group: str) -> int:
    """Return the sum of the offsets of ``readings`` that a group has committed."""
    return asyncio.run(_committed(address, group))


def make_topic(address: str, name: str) -> None:
    """Create a topic with as many partitions as ``readings``."""
    asyncio.run(_make_topic(address, name))


def log_bytes(state: Path, part: str) -> int:
    """Return the bytes in the logs of all topics whose name has *part* in it and is a changelog."""
    data = state / "kafka" / "data"
    return sum(
        path.stat().st_size
        for path in data.glob(f"*{part}*/*.log")
        if "changelog" in path.parent.name
    )


async def _load(address: str, records: Iterable[Record]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=address, max_batch_size=_BATCH_BYTES, acks="all")
    await producer.start()
    waiting: list[Awaitable[Any]] = []
    batches = {p: producer.create_batch() for p in range(PARTITIONS)}
    try:
        for partition, key, value, headers in records:
            fields = {"key": key, "value": value, "timestamp": None, "headers": headers}
            if batches[partition].append(**fields) is None:
                full = batches[partition]
                waiting.append(await producer.send_batch(full, READINGS, partition=partition))
                batches[partition] = producer.create_batch()
                batches[partition].append(**fields)
            if len(waiting) > _IN_FLIGHT:
                await asyncio.gather(*waiting)
                waiting.clear()
        for partition, batch in batches.items():
            if batch.record_count():
                waiting.append(await producer.send_batch(batch, READINGS, partition=partition))
        await asyncio.gather(*waiting)
    finally:
        await producer.stop()


async def _committed(address: str, group: str) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(group)
    except GroupCoordinatorNotAvailableError:
        return 0  # The topic of the offsets is being made.
    else:
        return sum(max(0, m.offset) for tp, m in found.items() if tp.topic == READINGS)
    finally:
        await admin.close()


async def _make_topic(address: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, PARTITIONS, 1)])
    finally:
        await admin.close()
