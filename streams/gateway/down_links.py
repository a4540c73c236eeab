"""The way down to edges: one connection a broker, because nobody knows by which an edge is there.

An edge is connected to one of the brokers, and moves to another when that one dies. So what is for
a site goes to every broker that is there; those where the site has not subscribed drop it. A broker
that is away is not waited for while another is there: its edges move, and ask anew where they come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streams.adapters.mqtt_link import MqttLink
from streams.settings import Settings

_RETRY_S = (0.2, 10.0)
Message = tuple[str, bytes]
"""Topic and payload."""


class DownLinks:
    """Make it inside the event loop."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        """Make unconnected links.

        :raises SettingsError: if an address or a file of the login cannot be used.
        """
        self._links = [
            # Two addresses may lead to one broker, which knows a client by its id.
            MqttLink([address], settings.broker, f"{client_id}-{number}", retry_s=_RETRY_S)
            for number, address in enumerate([settings.mqtt, *settings.gateway.brokers])
        ]

    @property
    def why_not_ready(self) -> str:
        """Why no broker is there; nothing while one is."""
        troubles = [link.trouble for link in self._links if link.trouble]
        return "; ".join(troubles) if len(troubles) == len(self._links) else ""

    def start(self) -> None:
        """Begin to connect; returns at once."""
        for link in self._links:
            link.start()

    async def stop(self) -> None:
        """Disconnect."""
        await asyncio.gather(*(link.stop() for link in self._links))

    def tell(self, topic: str, payload: bytes) -> None:
        """Send once, and wait for nothing: whoever misses it asks again."""
        for link in self._there():
            link.publish(topic, payload)

    async def deliver(self, messages: Sequence[Message]) -> None:
        """Return when all brokers that are there have all messages, one broker at least."""
        while True:
            taken = await asyncio.gather(*(_by(link, messages) for link in self._there()))
            if any(taken):
                return
            await asyncio.sleep(_RETRY_S[0])

    def _there(self) -> list[MqttLink]:
        return [link for link in self._links if link.connected]


async def _by(link: MqttLink, messages: Sequence[Message]) -> bool:
    """Send by one broker; False if it went away before it had all."""
    waiting = set()
    for topic, payload in messages:
        while link.connected:
            future = link.publish(topic, payload)
            if future is not None:
                waiting.add(future)
                break
            await asyncio.sleep(_RETRY_S[0])  # paho's queue is full
    while waiting and link.connected:
        _, waiting = await asyncio.wait(waiting, timeout=_RETRY_S[0])
    return link.connected
