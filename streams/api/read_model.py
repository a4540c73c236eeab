"""The newest state of every twin, followed from the compacted topic ``twin.state``."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Gauge

from streams.log import get_logger
from streams.topics import TWIN_STATE

_log = get_logger(__name__)
_TWINS = Gauge("headwater_api_twins", "Twins in the read model.")
_RETRY_MIN_S = 0.2
_RETRY_MAX_S = 10.0


class TwinStates:
    """Every twin's newest JSON, kept as bytes. :meth:`run` follows the topic until cancelled."""

    def __init__(self, bootstrap: str, partitions: int) -> None:
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._states: dict[str, bytes] = {}
        self.why_not_ready = "not connected to Kafka yet"

    def get(self, tenant: str, device: str) -> bytes | None:
        """Return a twin's JSON; None if there is none."""
        return self._states.get(f"{tenant}/{device}")

    def devices(self, tenant: str | None) -> list[dict[str, Any]]:
        """Return tenant and device of every twin (of one tenant), sorted."""
        keys = sorted(self._states)
        pairs = [key.partition("/") for key in keys]
        return [
            {"tenant": found, "device": device}
            for found, _, device in pairs
            if tenant in (None, found)
        ]

    async def run(self) -> None:
        """Follow the topic, from its beginning at every connection."""
        delay_s = _RETRY_MIN_S
        while True:
            try:
                await self._follow()
            except (KafkaError, OSError) as error:
                self.why_not_ready = f"Kafka at {self._bootstrap} cannot be read: {error!r}"
                _log.warning("twin.state cannot be read", error=repr(error))
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
            places = [TopicPartition(TWIN_STATE, number) for number in range(self._partitions)]
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            while True:
                self._take(await consumer.getmany(timeout_ms=200))
                if self.why_not_ready and not [
                    tp for tp in places if await consumer.position(tp) < ends[tp]
                ]:
                    self.why_not_ready = ""
        finally:
            await consumer.stop()

    def _take(self, fetched: dict[TopicPartition, list[Any]]) -> None:
        for records in fetched.values():
            for record in records:
                key = (record.key or b"").decode(errors="replace")
                if record.value is None:
                    self._states.pop(key, None)
                elif not self._is_older(key, record.value):
                    self._states[key] = record.value
        _TWINS.set(len(self._states))

    def _is_older(self, key: str, value: bytes) -> bool:
        """Whether a replay wrote this again behind what is known."""
        known = self._states.get(key)
        if known is None:
            return False
        new, old = orjson.loads(value), orjson.loads(known)
        # A topic made anew begins at offset 0, later.
        return bool(new["offset"] < old["offset"] and new["updated_ms"] <= old["updated_ms"])
