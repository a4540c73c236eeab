"""Sparkplug B nodes into Kafka: a connection of its own, for their groups are not shared.

What the host remembers of births is lost with the process; it then asks each node that it hears for
rebirth. A message is acknowledged when Kafka has its readings, or its bytes in ``rejected``.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import Counter

from streams.adapters.rows import RowBuilder, Source, check_name
from streams.adapters.sparkplug_payload import rebirth
from streams.errors import DecodeError
from streams.gateway import meters
from streams.gateway.link import Delivery, Session
from streams.gateway.links import Links
from streams.gateway.records import frame_records, refused_records
from streams.intake.decode import Message, Refused
from streams.intake.sparkplug import SparkplugHost, command_topic, filters
from streams.log import get_logger
from streams.ports import Produce
from streams.settings import Settings

_log = get_logger(__name__)
_COMMAND_EXPIRY_S = 10
_MESSAGES = Counter("headwater_gateway_sparkplug_messages_total", "Messages of Sparkplug nodes")
_REBIRTHS = Counter("headwater_gateway_sparkplug_rebirths_total", "Nodes asked for rebirth")

Write = Callable[[Sequence[Produce]], Awaitable[None]]


class SparkplugBridge:
    """See the module's docstring. Make it inside the event loop; without groups it is not run."""

    def __init__(self, settings: Settings, client_id: str, write: Write) -> None:
        """Wire the parts.

        :param write: returns when Kafka has confirmed records.
        :raises SettingsError: if address or login of a broker cannot be used.
        """
        self._settings = settings
        self._limits = settings.gateway
        self._write = write
        self._rows = RowBuilder(settings.metrics, self._limits.max_rows)
        self._host = SparkplugHost(self._limits.sparkplug_max_metrics)
        self._incoming: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._links = Links(
            Session(
                settings.mqtt,
                settings.broker,
                f"{client_id}-sparkplug",
                "",
                [(one, number) for number, one in enumerate(filters(self._limits.sparkplug), 1)],
                self._limits.receive_maximum,
                self._limits.session_expiry_s,
            ),
            [settings.mqtt, *self._limits.brokers],
            self._receive,
            _never,
        )

    async def run(self) -> None:
        """Carry messages until cancelled."""
        _log.info("sparkplug", groups=self._limits.sparkplug)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._links.run())
                group.create_task(self._carry())
        finally:
            self._links.disconnect()

    @property
    def why_not_ready(self) -> str:
        """Why no node is heard; nothing while one can be, or none is to be."""
        return self._links.why_not_ready if self._limits.sparkplug else ""

    def _receive(self, deliveries: list[Delivery]) -> None:
        self._incoming.extend(deliveries)
        self._arrived.set()
        # QoS 0, which nodes use for data, knows no receive maximum.
        if len(self._incoming) > 2 * self._limits.receive_maximum:
            self._links.pause()

    async def _carry(self) -> None:
        while True:
            await self._arrived.wait()
            count = min(len(self._incoming), self._limits.receive_maximum)
            taken = [self._incoming.popleft() for _ in range(count)]
            if not self._incoming:
                self._arrived.clear()
            self._links.resume()
            await self._write(self._records(taken))
            self._links.ack(taken)
            _MESSAGES.inc(len(taken))

    def _records(self, deliveries: Sequence[Delivery]) -> list[Produce]:
        refused: list[Refused] = []
        for at, delivery in enumerate(deliveries):
            mark = self._rows.mark()
            topic, payload, now_ms = delivery.topic, delivery.payload, delivery.received_ms
            try:
                _check_size(payload, self._limits.max_payload_bytes)
                asked = self._host.receive(topic, payload, now_ms, self._rows)
            except DecodeError as error:
                self._rows.rollback(mark)
                refused.append(Refused(at, error.reason, error.detail, _source(topic)))
                meters.REJECTED.labels(error.reason).inc()
                asked = self._host.wants_rebirth(topic, now_ms)
            if asked is not None:
                self._ask(delivery.origin, *asked)
        readings = self._rows.finish()
        meters.READINGS.inc(len(readings))
        messages = [Message(one.topic, one.payload, one.received_ms) for one in deliveries]
        partitions = self._settings.topics.partitions
        return [
            *frame_records(readings, partitions, self._limits.max_rows),
            *refused_records(messages, refused, self._limits.max_rejected_bytes),
        ]

    def _ask(self, origin: int, group: str, node: str) -> None:
        _log.info("asking for rebirth", group=group, node=node)
        _REBIRTHS.inc()
        command = rebirth(time.time_ns() // 1_000_000)
        self._links.publish(origin, command_topic(group, node), command, _COMMAND_EXPIRY_S)


def _check_size(payload: bytes, max_bytes: int) -> None:
    if len(payload) > max_bytes:
        raise DecodeError(
            "payload-too-large",
            f"{len(payload)} bytes; at most {max_bytes} are taken (gateway.max_payload_bytes)",
        )


def _source(topic: str) -> Source | None:
    levels = topic.split("/")
    try:
        names = [check_name(kind, levels[at]) for kind, at in (("tenant", 1), ("site", 3))]
    except (DecodeError, IndexError):
        return None
    return Source(names[0], names[1], levels[-1], None)


def _never(_topic: str, _filters: list[int]) -> bool:
    """Filters of groups do not overlap."""
    return False
