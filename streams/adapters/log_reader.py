"""Reading whole topics, as far as they reach now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer

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
        while any([await consumer.position(tp) < ends[tp] for tp in places]):
            for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    if record.offset < ends[tp]:
                        yield record
    finally:
        await consumer.stop()
