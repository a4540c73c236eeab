"""Asks the edge of a site for raw readings of its ring, over MQTT, and hears how far it is."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress

from streams.adapters.mqtt_link import MqttLink
from streams.errors import DecodeError, HeadwaterError
from streams.intake.backfill_wire import (
    Progress,
    Request,
    State,
    decode_progress,
    encode,
    progress_topic,
    request_topic,
)
from streams.settings import Settings

_CONNECT_S = 10.0


async def ask(
    settings: Settings,
    tenant: str,
    site: str,
    request: Request,
    *,
    on_progress: Callable[[Progress], None],
    silence_s: float,
    expiry_s: int,
) -> Progress | None:
    """Ask, and return the last report; None if the edge said nothing.

    The broker keeps the request for an edge that is away, one for each site, the newest.

    :param silence_s: how long is waited for a sign of the edge.
    :param expiry_s: how long the broker keeps the request.
    :raises HeadwaterError: if the broker cannot be reached.
    """
    reports: asyncio.Queue[Progress] = asyncio.Queue()

    def hear(_topic: str, payload: bytes) -> None:
        with suppress(DecodeError):
            found = decode_progress(payload)
            if found.id == request.id:
                reports.put_nowait(found)

    # The edge is at one of them, and may go to another.
    brokers = dict.fromkeys([settings.mqtt, *settings.gateway.brokers, *settings.edge.brokers])
    links = [_Asking(settings, one, progress_topic(tenant, site), hear) for one in brokers]
    try:
        topic, body = request_topic(tenant, site), encode(request)
        heard = await asyncio.gather(*(link.ask(topic, body, expiry_s) for link in links))
        if not any(not why for why in heard):
            raise HeadwaterError("; ".join(heard))
        last: Progress | None = None
        with suppress(TimeoutError):
            while last is None or last.state is State.READING:
                last = await asyncio.wait_for(reports.get(), silence_s)
                on_progress(last)
        return last
    finally:
        await asyncio.gather(*(link.stop() for link in links))


class _Asking:
    """The request at one broker."""

    def __init__(
        self, settings: Settings, broker: str, topic: str, hear: Callable[[str, bytes], None]
    ) -> None:
        self._broker = broker
        client = f"backfill-{secrets.token_hex(6)}"
        self._link = MqttLink(
            [broker], settings.broker, client, retry_s=(0.2, 1.0), subscribe=(topic,)
        )
        self._connected = asyncio.Event()
        self._link.on_message, self._link.on_connect = hear, self._connected.set
        self._link.start()

    async def ask(self, topic: str, body: bytes, expiry_s: int) -> str:
        """Return why the broker does not have the request; empty if it does."""
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._connected.wait()
                sent = self._link.publish(topic, body, expiry_s=expiry_s, retain=True)
                if sent is not None:
                    await sent
        except TimeoutError:
            return f"{self._broker}: {self._link.why_not_ready or 'no answer'}"
        return "" if sent is not None else f"{self._broker}: the request was not taken"

    async def stop(self) -> None:
        """Disconnect."""
        await self._link.stop()
