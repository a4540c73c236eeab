"""Follows a topic for a read model, from its beginning at every connection."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.log import get_logger

_log = get_logger(__name__)
_RETRY_MIN_S = 0.2
_RETRY_MAX_S = 10.0


class Follower(ABC):
    """One topic. :meth:`run` follows it until cancelled."""

    def __init__(self, topic: str, bootstrap: str, partitions: int) -> None:
        self._topic = topic
        self._bootstrap = bootstrap
        self._partitions = partitions
        self.why_not_ready = "not connected to Kafka yet"

    @abstractmethod
    def take(self, record: Any) -> None:
        """Take one record; some come again."""

    def taken(self) -> None:  # noqa: B027 most have nothing to do
        """Know that a batch of records was taken."""

    async def run(self) -> None:
        """Follow the topic, from its beginning at every connection."""
        delay_s = _RETRY_MIN_S
        while True:
            try:
                await self._follow()
            except (KafkaError, OSError) as error:
                self.why_not_ready = f"Kafka at {self._bootstrap} cannot be read: {error!r}"
                _log.warning("a topic cannot be read", topic=self._topic, error=repr(error))
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _RETRY_MAX_S)

    async def _follow(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            places = [TopicPartition(self._topic, number) for number in range(self._partitions)]
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            while True:
                fetched = await consumer.getmany(timeout_ms=200)
                for records in fetched.values():
                    for record in records:
                        self.take(record)
                if fetched:
                    self.taken()
                if self.why_not_ready and not [
                    tp for tp in places if await consumer.position(tp) < ends[tp]
                ]:
                    self.why_not_ready = ""
        finally:
            await consumer.stop()
