"""Readings of the site: over its MQTT broker and over HTTP, durable before acknowledged.

A message is acknowledged to the local broker, and a request answered, when its readings are in the
spool. The PUBACK that a device gets from the broker says only that the *broker* has the message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import numpy as np
from prometheus_client import Counter

from edge.errors import SpoolError
from streams.core.readings import Bool, Readings
from streams.errors import BusyError, SettingsError
from streams.gateway.link import Delivery, Link, Session
from streams.intake.decode import BatchDecoder, Message
from streams.intake.identities import ForeignReadingsError, Identity
from streams.intake.mapping import TopicMap
from streams.intake.requests import Asked, RequestDecoder
from streams.log import get_logger
from streams.ports import Take
from streams.settings import Settings

_log = get_logger(__name__)
_REFUSED = Counter(
    "headwater_edge_refused_local_messages",
    "Messages of the local broker that were refused.",
    ["reason"],
)
_RECEIVE_MAXIMUM = 2_000
_SESSION_S = 86_400
_RETRY_S = 1.0
Store = Callable[[Readings], Awaitable[None]]


class SiteRequests(RequestDecoder):
    """Decodes requests over HTTP and CoAP: of this site, and of no other."""

    def __init__(self, settings: Settings, topics: TopicMap) -> None:
        """Make it after the mappings and the metric catalogue."""
        self._site = Identity(settings.edge.tenant, settings.edge.site)
        limits = settings.edge.intake
        super().__init__(
            topics, settings.metrics, limits.max_readings, limits.max_body_bytes, settings.codecs
        )

    def decode(
        self, payload: bytes, asked: Asked, received_ms: int, identity: Identity | None
    ) -> Readings:
        """As :meth:`RequestDecoder.decode`; who has no identity sends as the site."""
        readings = super().decode(payload, asked, received_ms, identity or self._site)
        if not of_site(readings, self._site.tenant, self._site.site).all():
            raise ForeignReadingsError(
                "foreign", f"this edge takes readings of {self._site} only: its uplink is theirs"
            )
        return readings


def of_site(readings: Readings, tenant: str, site: str) -> Bool:
    """Return which rows are of a site."""
    found = np.ones(len(readings), dtype=np.bool_)
    for labels, name in ((readings.tenant, tenant), (readings.site, site)):
        mine = np.array([value == name for value in labels.values], dtype=np.bool_)
        found &= mine[labels.codes]
    return found


def as_take(store: Store) -> Take:
    """Return *store* as a :class:`streams.ports.Take`: a spool without room is a busy one."""

    async def take(readings: Readings) -> None:
        try:
            await store(readings)
        except SpoolError as error:
            raise BusyError(str(error), retry_after_s=5) from error

    return take


class LocalBroker:
    """Takes the mapped topics of the site's broker. Make it inside the event loop."""

    def __init__(self, settings: Settings, topics: TopicMap, store: Store) -> None:
        """Wire the parts.

        :raises SettingsError: if there are no mappings, or the address cannot be used.
        """
        edge = settings.edge
        assert edge.local_mqtt is not None
        if not settings.mappings:
            raise SettingsError(
                "edge.local_mqtt is set, but no [[mappings]] say which of its topics are readings"
            )
        self._store, self._topics = store, topics
        self._tenant, self._site = edge.tenant, edge.site
        limits = settings.gateway
        self._decoder = BatchDecoder(
            topics, settings.metrics, limits.max_rows, limits.max_payload_bytes, settings.codecs
        )
        self._waiting: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._link = Link(
            Session(
                edge.local_mqtt,
                edge.local_broker,
                f"edge-intake-{edge.tenant}-{edge.site}",
                "edge",
                tuple(zip(topics.filters, topics.filter_ids, strict=True)),
                _RECEIVE_MAXIMUM,
                _SESSION_S,
            ),
            self._receive,
            lambda topic, ids: bool(ids) and topics.delivering_id(topic) not in ids,
        )

    @property
    def why_not_ready(self) -> str:
        """Why nothing comes from the local broker; empty if it does."""
        return self._link.why_not_ready and f"local broker: {self._link.why_not_ready}"

    async def run(self) -> None:
        """Take messages until cancelled; what is taken and not stored comes again."""
        linking = asyncio.create_task(self._link.run())
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting:
                    taken = list(self._waiting)
                    self._waiting.clear()
                    await self._take(taken)
        finally:
            self._link.disconnect()
            linking.cancel()

    def _receive(self, deliveries: list[Delivery]) -> None:
        self._waiting.extend(deliveries)
        # QoS 0 knows no receive maximum.
        if len(self._waiting) > 2 * _RECEIVE_MAXIMUM:
            self._link.pause()
        self._arrived.set()

    async def _take(self, deliveries: list[Delivery]) -> None:
        messages = [Message(d.topic, d.payload, d.received_ms) for d in deliveries]
        decoded = self._decoder.decode(messages)
        for refused in decoded.refused:
            _REFUSED.labels(refused.reason).inc()
            topic = messages[refused.index].topic
            _log.warning("message refused", topic=topic[:200], detail=refused.detail)
        readings = decoded.readings
        mine = of_site(readings, self._tenant, self._site)
        if not mine.all():
            _REFUSED.labels("wrong-site").inc(int((~mine).sum()))
            _log.warning(
                "readings refused: a mapping gives them another tenant or site than edge.tenant "
                "and edge.site",
                readings=int((~mine).sum()),
            )
            readings = readings.take(mine)
        while True:
            try:
                await self._store(readings)
                break
            except SpoolError as error:
                # Not acknowledged: the broker keeps what comes, and the device may see it.
                self._link.pause()
                _log.warning("readings wait at the local broker", why=str(error))
                await asyncio.sleep(_RETRY_S)
        self._link.ack([(delivery.epoch, delivery.mid) for delivery in deliveries])
        self._link.resume()
