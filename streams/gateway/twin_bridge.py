"""Twins between MQTT and Kafka: edges' messages up, the cloud's answers down.

Up: ``hw/v1/{tenant}/{site}/twin/up`` is split by device into ``twin.updates``; the PUBACK goes
back when Kafka has all of it (acks=all). Down: records of ``twin.down`` are published to
``…/twin/down`` and committed when the broker has them. Both are at least once, which the sync
protocol expects. The bridge keeps no state and does not look into the messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from crdt.core.errors import WireError
from crdt.core.messages import decode_batch
from streams.adapters.mqtt_link import MqttLink
from streams.adapters.rejected import rejected_record
from streams.adapters.twin_records import SITE, TENANT, sync_record
from streams.errors import DecodeError
from streams.gateway.link import Delivery, Link, Session
from streams.gateway.process import client_id
from streams.gateway.producer import Batch, OrderedProducer
from streams.log import get_logger
from streams.ports import Produce
from streams.settings import Settings
from streams.topics import TWIN_DOWN

_log = get_logger(__name__)
UP = "hw/v1/+/+/twin/up"
_GROUP = "headwater-twin-down"
_WINDOW = 64
_RECEIVE_MAXIMUM = 256
_MAX_UP_BYTES = 1_900_000
"""A message over this would not fit into a record of ``twin.updates``."""
_RETRY_S = (0.2, 10.0)
_STOP_S = 5.0
_UP = Counter("headwater_gateway_twin_up_messages", "Twin messages confirmed by Kafka.")
_DOWN = Counter("headwater_gateway_twin_down_messages", "Twin messages taken by the MQTT broker.")
_REJECTED = Counter("headwater_gateway_twin_rejected_messages", "Twin messages refused.")


async def run_twin_bridge(settings: Settings, stop: asyncio.Event) -> None:
    """Carry twin messages both ways until *stop* is set; waits for servers that are not there.

    :raises SettingsError: if address or login of the broker cannot be used.
    :raises TopicMismatchError: if Kafka's topics are not as the settings say.
    """
    await TwinBridge(settings).run(stop)


class TwinBridge:
    """See the module's docstring. Make it inside the event loop."""

    def __init__(self, settings: Settings) -> None:
        """Wire the parts.

        :raises SettingsError: if address or login of the broker cannot be used.
        """
        identity = client_id(settings)
        self._settings = settings
        self._producer = OrderedProducer(
            settings.kafka, f"{identity}-twins", _WINDOW, settings.topics.partitions
        )
        self._up = Link(
            Session(
                settings.mqtt,
                settings.broker,
                f"{identity}-twins",
                f"{settings.gateway.group}-twins",
                [(UP, 1)],
                _RECEIVE_MAXIMUM,
                settings.gateway.session_expiry_s,
            ),
            self._receive,
            _never,
        )
        self._down = MqttLink(
            settings.mqtt, settings.broker, f"{identity}-twins-down", retry_s=_RETRY_S
        )
        self._incoming: asyncio.Queue[Delivery] = asyncio.Queue()

    def ready(self) -> tuple[bool, str]:
        """Whether twin messages flow, and if not, why."""
        reasons = (self._producer, self._up, self._down)
        why = "; ".join(part.why_not_ready for part in reasons if part.why_not_ready)
        return not why, why or "twins flow"

    async def run(self, stop: asyncio.Event) -> None:
        """Carry until *stop* is set."""
        stopping = asyncio.create_task(stop.wait(), name="twins-stop")
        carrying = asyncio.create_task(self._carry(), name="twins")
        try:
            await asyncio.wait((stopping, carrying), return_when=asyncio.FIRST_COMPLETED)
            if carrying.done():
                carrying.result()
        finally:
            stopping.cancel()
            carrying.cancel()
            await asyncio.gather(stopping, carrying, return_exceptions=True)

    async def _carry(self) -> None:
        try:
            await self._producer.start()
            self._down.start()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._producer.run())
                group.create_task(self._up.run())
                group.create_task(self._send_up())
                group.create_task(self._send_down())
        finally:
            self._up.disconnect()
            await self._down.stop()
            await self._producer.stop()

    # -- up -----------------------------------------------------------------------------------

    def _receive(self, deliveries: list[Delivery]) -> None:
        # Bounded by the receive maximum: the broker sends no more before it is acknowledged.
        for delivery in deliveries:
            self._incoming.put_nowait(delivery)

    async def _send_up(self) -> None:
        while True:
            delivery = await self._incoming.get()
            records = up_records(delivery, self._settings)
            await self._producer.submit(Batch(records, self._acknowledging(delivery)))

    def _acknowledging(self, delivery: Delivery) -> Any:
        def confirmed() -> None:
            self._up.ack([(delivery.epoch, delivery.mid)])
            _UP.inc()

        return confirmed

    # -- down ---------------------------------------------------------------------------------

    async def _send_down(self) -> None:
        pause_s = _RETRY_S[0]
        while True:
            try:
                await self._consume()
            except (KafkaError, OSError) as error:
                _log.warning("twin.down cannot be read", error=repr(error))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _RETRY_S[1])

    async def _consume(self) -> None:
        consumer = AIOKafkaConsumer(
            TWIN_DOWN,
            bootstrap_servers=self._settings.kafka,
            group_id=_GROUP,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=10_000,
            heartbeat_interval_ms=2_000,
            max_poll_records=_RECEIVE_MAXIMUM,
        )
        await consumer.start()
        try:
            while True:
                fetched = await consumer.getmany(timeout_ms=1_000)
                for tp, records in fetched.items():
                    await self._publish(records)
                    await consumer.commit({TopicPartition(*tp): records[-1].offset + 1})
        finally:
            # Its stop() waits for a coordinator that may be gone.
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await consumer.stop()

    async def _publish(self, records: Sequence[Any]) -> None:
        """Publish records in order; return when the broker has them all."""
        sent = []
        for record in records:
            headers = dict(record.headers)
            tenant, site = headers.get(TENANT, b"").decode(), headers.get(SITE, b"").decode()
            topic = f"hw/v1/{tenant}/{site}/twin/down"
            future = self._down.publish(topic, record.value)
            while future is None:
                # paho's queue is full: the broker is away.
                await asyncio.sleep(_RETRY_S[0])
                future = self._down.publish(topic, record.value)
            sent.append(future)
        await asyncio.gather(*sent)
        _DOWN.inc(len(sent))


def up_records(delivery: Delivery, settings: Settings) -> list[Produce]:
    """Return the records of one message: one for each device in it, or one of ``rejected``."""
    _, _, tenant, site, *_ = delivery.topic.split("/")
    try:
        parts = _parts(delivery.payload)
    except WireError as error:
        _REJECTED.inc()
        return [
            rejected_record(
                delivery.payload,
                DecodeError(error.reason, error.detail),
                source=f"mqtt:{delivery.topic}",
                received_ms=delivery.received_ms,
                max_bytes=settings.gateway.max_rejected_bytes,
                tenant=tenant,
                site=site,
            )
        ]
    partitions = settings.topics.partitions
    return [sync_record(tenant, site, device, data, partitions) for device, data in parts]


def _parts(payload: bytes) -> list[tuple[str, bytes]]:
    if len(payload) > _MAX_UP_BYTES:
        raise WireError("too-big", f"{len(payload)} bytes; at most {_MAX_UP_BYTES} are taken")
    return decode_batch(payload)


def _never(_topic: str, _filters: list[int]) -> bool:
    """One filter makes no copies."""
    return False
