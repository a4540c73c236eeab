"""Reading whole topics, as far as they reach now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.errors import TopicMismatchError

_METADATA_S = 30.0


async def read_all(bootstrap: str, topics: Sequence[str]) -> AsyncIterator[Any]:
    """Yield every record of the topics, in order per partition, up to their ends at the call.

    Without a consumer group: nobody else is disturbed.

    :raises TopicMismatchError: if a topic does not exist.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        known = await consumer.topics()
        missing = [topic for topic in topics if topic not in known]
        if missing:
            raise TopicMismatchError(f"no such topic: {missing}; run: headwater topics apply")
        # Without a group all partitions are assigned, as soon as their metadata is there.
        consumer.subscribe(list(topics))
        async with asyncio.timeout(_METADATA_S):
            while not consumer.assignment():  # noqa: ASYNC110 aiokafka tells nobody
                await asyncio.sleep(0.01)
        places = sorted(consumer.assignment())
        ends = await consumer.end_offsets(places)
        await consumer.seek_to_beginning(*places)
        async for record in _until(consumer, ends):
            yield record
    finally:
        await consumer.stop()


async def read_from(bootstrap: str, starts: Mapping[tuple[str, int], int]) -> AsyncIterator[Any]:
    """Yield the records of some partitions from an offset on, up to their ends at the call.

    :param starts: (topic, partition) -> first offset; 0 for all that is there.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        places = {TopicPartition(*place): first for place, first in starts.items()}
        consumer.assign(list(places))
        ends = await consumer.end_offsets(list(places))
        begins = await consumer.beginning_offsets(list(places))
        for tp, first in places.items():
            consumer.seek(tp, min(max(first, begins[tp]), ends[tp]))
        async for record in _until(consumer, ends):
            yield record
    finally:
        await consumer.stop()


async def ends_of(bootstrap: str, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Return the offset that the next record of each partition will get."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        found = await consumer.end_offsets([TopicPartition(*place) for place in places])
    finally:
        await consumer.stop()
    return {(tp.topic, tp.partition): int(offset) for tp, offset in found.items()}


async def _until(consumer: Any, ends: Mapping[Any, int]) -> AsyncIterator[Any]:
    while any([await consumer.position(tp) < end for tp, end in ends.items()]):
        for tp, records in (await consumer.getmany(timeout_ms=500)).items():
            for record in records:
                if record.offset < ends[tp]:
                    yield record
