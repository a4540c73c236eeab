"""Twins and commands between MQTT and Kafka: edges' messages up, the cloud's answers down.

Up: ``hw/v1/{tenant}/{site}/twin/up`` is split by device into ``twin.updates``, and ``…/cmd/status``
into ``commands``; the PUBACK goes back when Kafka has all of it (acks=all). Down: records of
``twin.down`` are published to ``…/twin/down``, those of ``commands.down`` to ``…/cmd``, and
committed when the brokers have them. All are at least once, which both protocols expect. The
bridge hears all brokers and speaks by all; it keeps no state and does not look into the messages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from crdt.core.commands.wire import CALL
from crdt.core.errors import WireError
from crdt.core.messages import MAX_BATCH, decode_batch, encode_batch
from crdt.core.refusals import NAME as REFUSED
from crdt.core.refusals import Refusal
from crdt.core.rolls import NAME
from streams.adapters.challenges import Challenger
from streams.adapters.command_records import call_record, report_record
from streams.adapters.envelopes import (
    COMMAND_DOWN,
    COMMAND_UP,
    MAX_ENVELOPE_BYTES,
    Opener,
    Sealer,
    UnansweredError,
)
from streams.adapters.envelopes import DOWN as DOWN_WAY
from streams.adapters.envelopes import UP as UP_WAY
from streams.adapters.rejected import rejected_record
from streams.adapters.replica_keys import Registry, load_signer
from streams.adapters.twin_records import SITE, TENANT, roll_record, sync_record
from streams.errors import DecodeError, SettingsError
from streams.gateway.down_links import DownLinks
from streams.gateway.link import Delivery, Session
from streams.gateway.links import Links
from streams.gateway.process import client_id
from streams.gateway.producer import Batch, OrderedProducer
from streams.log import get_logger
from streams.ports import Produce
from streams.settings import Settings
from streams.topics import COMMANDS_DOWN, TWIN_DOWN

_log = get_logger(__name__)
UP = "hw/v1/+/+/twin/up"
COMMAND_STATUS = "hw/v1/+/+/cmd/status"
_DOWN_TO = {TWIN_DOWN: "twin/down", COMMANDS_DOWN: "cmd"}
_GROUP = "headwater-twin-down"
_WINDOW = 64
_RECEIVE_MAXIMUM = 256
_DOWN_BYTES = 131_072
"""Messages for a site go together up to this size."""
_RETRY_S = (0.2, 10.0)
_STOP_S = 5.0
_REFUSAL_S = 0.5
_MAX_PLACES = 10_000
_UP = Counter("headwater_gateway_twin_up_messages", "Twin messages confirmed by Kafka.")
_DOWN = Counter("headwater_gateway_twin_down_messages", "Twin messages taken by the MQTT broker.")
_REJECTED = Counter(
    "headwater_gateway_twin_rejected_messages", "Twin messages refused, by reason.", ["reason"]
)


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
        self._up = Links(
            Session(
                settings.mqtt,
                settings.broker,
                f"{identity}-twins",
                f"{settings.gateway.group}-twins",
                [(UP, 1), (COMMAND_STATUS, 1)],
                _RECEIVE_MAXIMUM,
                settings.gateway.session_expiry_s,
            ),
            [settings.mqtt, *settings.gateway.brokers],
            self._receive,
            _never,
        )
        self._down = DownLinks(settings, f"{identity}-twins-down")
        self._openers, self._sealers = signing(settings)
        self._refused_s: dict[tuple[str, str, str], float] = {}
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
            records = up_records(delivery, self._settings, self._openers, self._tell_refusal)
            await self._producer.submit(Batch(records, self._acknowledging(delivery)))

    def _acknowledging(self, delivery: Delivery) -> Any:
        def confirmed() -> None:
            self._up.ack([delivery])
            _UP.inc()

        return confirmed

    def _tell_refusal(self, kind: str, tenant: str, site: str, refusal: Refusal) -> None:
        """Tell a site why an envelope was refused, so often at most: it may not be the sender."""
        now_s, place = time.monotonic(), (kind, tenant, site)
        if now_s - self._refused_s.get(place, -_REFUSAL_S) < _REFUSAL_S:
            return
        if len(self._refused_s) >= _MAX_PLACES:
            self._refused_s.clear()
        self._refused_s[place] = now_s
        source = {"twin": TWIN_DOWN, "cmd": COMMANDS_DOWN}[kind]
        envelope = self._seal(source, tenant, site, [(REFUSED, refusal.encode())])
        # If the broker is away it is lost: whoever was refused asks again.
        self._down.tell(f"hw/v1/{tenant}/{site}/{_DOWN_TO[source]}", envelope)

    # -- down ---------------------------------------------------------------------------------

    async def _send_down(self) -> None:
        pause_s = _RETRY_S[0]
        while True:
            try:
                await self._consume()
            except (KafkaError, OSError) as error:
                _log.warning("what is for edges cannot be read", error=repr(error))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _RETRY_S[1])

    async def _consume(self) -> None:
        consumer = AIOKafkaConsumer(
            *_DOWN_TO,
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
                    await self._publish(tp.topic, records)
                    await consumer.commit({TopicPartition(*tp): records[-1].offset + 1})
        finally:
            # Its stop() waits for a coordinator that may be gone.
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await consumer.stop()

    async def _publish(self, source: str, records: Sequence[Any]) -> None:
        """Publish records in order; return when the brokers have them all."""
        sent = []
        for tenant, site, parts in down_batches(records):
            topic = f"hw/v1/{tenant}/{site}/{_DOWN_TO[source]}"
            envelope = self._seal(source, tenant, site, parts)
            sent.append((topic, envelope))
        await self._down.deliver(sent)
        _DOWN.inc(len(sent))

    def _seal(self, source: str, tenant: str, site: str, parts: list[tuple[str, bytes]]) -> bytes:
        if not self._sealers:
            return encode_batch(parts)
        return self._sealers[source].seal(tenant, site, parts)


Openers = Mapping[str, Opener]
"""By the kind of message: ``twin`` or ``cmd``, as it stands in the MQTT topic."""


def signing(settings: Settings) -> tuple[Openers, Mapping[str, Sealer]]:
    """Return what verifies, and what signs what a Kafka topic holds; nothing where no key is named.

    :raises SettingsError: if a key is missing or cannot be used.
    """
    path, key = settings.twins.registry, settings.gateway.twin_key
    if path is None:
        return {}, {}
    if key is None:
        raise SettingsError("twins.registry needs gateway.twin_key, the key of the hub")
    registry, signer = Registry(path), load_signer(key)
    ask = Challenger(signer.key)
    return (
        {"twin": Opener(registry, UP_WAY, ask), "cmd": Opener(registry, COMMAND_UP, ask)},
        {TWIN_DOWN: Sealer(signer, DOWN_WAY), COMMANDS_DOWN: Sealer(signer, COMMAND_DOWN)},
    )


def down_batches(records: Sequence[Any]) -> Iterator[tuple[str, str, list[tuple[str, bytes]]]]:
    """Yield tenant, site and messages of records in order, those for one site together."""
    batches: dict[tuple[str, str], list[tuple[str, bytes]]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for record in records:
        headers = dict(record.headers)
        place = headers.get(TENANT, b"").decode(), headers.get(SITE, b"").decode()
        parts = decode_batch(record.value)
        size = sizes.get(place, 0) + len(record.value)
        batch = batches.get(place, [])
        if batch and (len(batch) + len(parts) > MAX_BATCH or size > _DOWN_BYTES):
            yield *place, batch
            batch, size = [], len(record.value)
        batches[place], sizes[place] = [*batch, *parts], size
    for (tenant, site), batch in batches.items():
        yield tenant, site, batch


def up_records(
    delivery: Delivery,
    settings: Settings,
    openers: Openers | None = None,
    refused: Callable[[str, str, str, Refusal], None] | None = None,
) -> list[Produce]:
    """Return the records of one message: one for each device in it, or one of ``rejected``.

    :param openers: verify signed envelopes; without them only unsigned ones are taken.
    :param refused: is told kind of message, tenant, site and why, where an envelope is refused.
    """
    _, _, tenant, site, kind, *_ = delivery.topic.split("/")
    try:
        if not openers:
            parts = _parts(delivery.payload)
        else:
            parts = list(openers[kind].open(delivery.payload, tenant, site))
        record = _command_record if kind == "cmd" else _up_record
        return [record(tenant, site, *part, settings.topics.partitions) for part in parts]
    except WireError as error:
        _REJECTED.labels(error.reason).inc()
        if refused is not None:
            challenge = error.challenge if isinstance(error, UnansweredError) else b""
            refused(kind, tenant, site, Refusal(error.reason, error.detail, challenge))
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


def _up_record(tenant: str, site: str, name: str, data: bytes, partitions: int) -> Produce:
    record = roll_record if name.startswith(NAME) else sync_record
    return record(tenant, site, name, data, partitions)


def _command_record(tenant: str, site: str, name: str, data: bytes, partitions: int) -> Produce:
    record = call_record if name.startswith(CALL) else report_record
    return record(tenant, site, name, data, partitions)


def _parts(payload: bytes) -> list[tuple[str, bytes]]:
    if len(payload) > MAX_ENVELOPE_BYTES:
        raise WireError("too-big", f"{len(payload)} bytes; at most {MAX_ENVELOPE_BYTES} are taken")
    return decode_batch(payload)


def _never(_topic: str, _filters: list[int]) -> bool:
    """The filters have no topic in common."""
    return False
