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

    link = MqttLink(
        settings.mqtt,
        settings.broker,
        f"backfill-{secrets.token_hex(6)}",
        retry_s=(0.2, 1.0),
        subscribe=(progress_topic(tenant, site),),
    )
    connected = asyncio.Event()
    link.on_message, link.on_connect = hear, connected.set
    link.start()
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(connected.wait(), _CONNECT_S)
        topic = request_topic(tenant, site)
        sent = link.publish(topic, encode(request), expiry_s=expiry_s, retain=True)
        if not link.connected or sent is None:
            raise HeadwaterError(f"{settings.mqtt}: {link.why_not_ready}")
        await asyncio.wait_for(sent, _CONNECT_S)
        last: Progress | None = None
        with suppress(TimeoutError):
            while last is None or last.state is State.READING:
                last = await asyncio.wait_for(reports.get(), silence_s)
                on_progress(last)
        return last
    finally:
        await link.stop()
