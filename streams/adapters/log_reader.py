"""Reading whole topics, as far as they reach now."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError

from streams.errors import ServiceError, TopicMismatchError


async def read_all(bootstrap: str, topics: Sequence[str]) -> AsyncIterator[Any]:
    """Yield every record of the topics, in order per partition, up to their ends at the call.

    Without a consumer group: nobody else is disturbed.

    :raises TopicMismatchError: if a topic does not exist.
    :raises ServiceError: if Kafka cannot be reached.
    """
    places = await _places_of(bootstrap, topics)
    async for record in read_from(bootstrap, dict.fromkeys(places, 0)):
        yield record


async def read_from(bootstrap: str, starts: Mapping[tuple[str, int], int]) -> AsyncIterator[Any]:
    """Yield the records of some partitions from an offset on, up to their ends at the call.

    :param starts: (topic, partition) -> first offset; 0 for all that is there.
    :raises ServiceError: if Kafka cannot be reached.
    """
    async with _consumer(bootstrap) as consumer:
        places = {TopicPartition(*place): first for place, first in starts.items()}
        consumer.assign(list(places))
        ends = await consumer.end_offsets(list(places))
        begins = await consumer.beginning_offsets(list(places))
        for tp, first in places.items():
            consumer.seek(tp, min(max(first, begins[tp]), ends[tp]))
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    if record.offset < ends[tp]:
                        yield record


async def ends_of(bootstrap: str, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Return the offset that the next record of each partition will get.

    :raises ServiceError: if Kafka cannot be reached.
    """
    async with _consumer(bootstrap) as consumer:
        found = await consumer.end_offsets([TopicPartition(*place) for place in places])
    return {(tp.topic, tp.partition): int(offset) for tp, offset in found.items()}


async def begins_of(
    bootstrap: str, places: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """Return the first offset that each partition still holds, or will.

    :raises ServiceError: if Kafka cannot be reached.
    """
    async with _consumer(bootstrap) as consumer:
        found = await consumer.beginning_offsets([TopicPartition(*place) for place in places])
    return {(tp.topic, tp.partition): int(offset) for tp, offset in found.items()}


async def offsets_at(
    bootstrap: str, places: Iterable[tuple[str, int]], at_ms: int
) -> dict[tuple[str, int], int]:
    """Return the first offset of each partition whose record is not from before a log time.

    A partition is left out that has no such record.

    :raises ServiceError: if Kafka cannot be reached.
    """
    async with _consumer(bootstrap) as consumer:
        found = await consumer.offsets_for_times({TopicPartition(*p): at_ms for p in places})
    return {(tp.topic, tp.partition): int(at.offset) for tp, at in found.items() if at}


async def _places_of(bootstrap: str, topics: Sequence[str]) -> list[tuple[str, int]]:
    """Return the partitions of topics; to subscribe instead would take a second, and make some."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    try:
        await client.bootstrap()
        cluster = await client.fetch_all_metadata()
    except KafkaConnectionError as error:
        raise _unreachable(bootstrap, error) from error
    finally:
        await client.close()
    missing = [topic for topic in topics if topic not in cluster.topics()]
    if missing:
        raise TopicMismatchError(f"no such topic: {missing}; run: headwater topics apply")
    return [(topic, p) for topic in topics for p in sorted(cluster.partitions_for_topic(topic))]


@asynccontextmanager
async def _consumer(bootstrap: str) -> AsyncIterator[Any]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        await consumer.start()
        yield consumer
    except KafkaConnectionError as error:
        raise _unreachable(bootstrap, error) from error
    finally:
        await consumer.stop()


def _unreachable(bootstrap: str, error: Exception) -> ServiceError:
    return ServiceError(
        f"Kafka at {bootstrap} cannot be reached: {error}; start one: headwater services up"
    )
