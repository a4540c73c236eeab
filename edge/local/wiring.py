"""Local work with its real parts: the site's broker, the desk, the spool, the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from edge.commands import CommandDesk
from edge.local.actuator import Actuator, commanding
from edge.local.work import LocalWork, Tell
from streams.adapters.mqtt_link import MqttLink
from streams.settings import Settings


def steady_ms(wall_ms: int) -> Callable[[], int]:
    """Return a clock that begins with *wall_ms* and knows no jumps."""
    began_ns = time.monotonic_ns()
    return lambda: wall_ms + (time.monotonic_ns() - began_ns) // 1_000_000


@dataclass(slots=True)
class Outlet:
    """The way to the site's broker; nothing goes there while ``link`` is None."""

    link: MqttLink | None = field(default=None)

    def publish(self, topic: str, payload: bytes, ttl_ms: int) -> bool:
        """Publish with QoS 1; return False if the broker is away."""
        if self.link is None or not self.link.connected:
            return False
        return self.link.publish(topic, payload, expiry_s=-(-ttl_ms // 1000)) is not None


class Local:
    """The local work of a site. Make it inside the event loop."""

    def __init__(
        self, settings: Settings, desk: CommandDesk, tell: Tell, wall_ms: Callable[[], int]
    ) -> None:
        """Wire the parts.

        :raises SettingsError: if a rule's command has a topic, and the site has no broker.
        :raises LogError: if alerts cannot be stored.
        :raises StateError: if what is stored is of another version.
        """
        self._outlet = Outlet()
        actuator = Actuator(settings, desk.issue, self._outlet.publish, wall_ms)
        self.work = LocalWork(settings, actuator, tell, steady_ms(wall_ms()))
        self._link = _link(settings)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[list[asyncio.Task[None]]]:
        """Work until the block ends; gives the task that must not end before."""
        async with self.work.running() as tasks:
            if self._link is None:
                yield tasks
                return
            self._link.on_connect = self.work.broker_is_back
            self._outlet.link = self._link
            self._link.start()
            try:
                yield tasks
            finally:
                await self._link.stop()


def _link(settings: Settings) -> MqttLink | None:
    """Return a link to the site's broker, if a rule publishes commands there."""
    edge = settings.edge
    publishes = any(one.topic for rule in commanding(settings.rules) for one in rule.commands)
    if edge.local_mqtt is None or not publishes:
        return None
    return MqttLink(
        [edge.local_mqtt],
        edge.local_broker,
        f"edge-rules-{edge.tenant}-{edge.site}",
        retry_s=(edge.retry_min_ms / 1000, edge.retry_max_ms / 1000),
    )
