"""What delivers alerts: webhooks, and the channels of other packages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from streams.extensions import CHANNELS, load
from streams.settings import Channel as ChannelSettings
from streams.settings import Settings

WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.

    ``gone`` ends all deliveries to this endpoint until ``headwater alerts enable``;
    ``retry_after_s`` is what the receiver asked for.
    """

    delivered: bool
    gone: bool = False
    retry_after_s: float | None = None
    reason: str = ""


class Channel(Protocol):
    """Delivers messages to one endpoint.

    The courier keeps the order of an alert's messages, tries again with growing pauses until
    ``alerts.give_up_hours``, and survives restarts. A message may come twice under one id, after a
    crash between its delivery and the note of it.
    """

    async def open(self) -> None:
        """Connect; called once, before all else. What cannot be reached yet is no error."""
        ...

    async def send(self, message_id: str, body: Mapping[str, Any]) -> Outcome:
        """Make one attempt; the body is what a webhook would get (``docs/webhooks.md``)."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


class _Guarded:
    """A channel of another package: each attempt has an end, and no exception gets out."""

    def __init__(self, settings: ChannelSettings, channel: Channel) -> None:
        self._timeout_s = settings.timeout_ms / 1000
        self._channel = channel
        self.open, self.close = channel.open, channel.close

    async def send(self, message_id: str, body: Mapping[str, Any]) -> Outcome:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._channel.send(message_id, body)
        except Exception as error:  # noqa: BLE001 whatever it is, the message is tried again
            return Outcome(False, reason=f"{type(error).__name__}: {error}")


def channels_of(settings: Settings) -> dict[str, Channel]:
    """Return all webhooks and channels by name, not yet open.

    :raises SettingsError: if a signing secret cannot be read, a channel cannot be loaded, or
        refuses its options.
    """
    webhook = load(CHANNELS, WEBHOOK)
    ways: dict[str, Channel] = {hook.name: webhook(hook) for hook in settings.webhooks}
    for way in settings.channels:
        ways[way.name] = _Guarded(way, load(CHANNELS, way.kind)(way))
    return ways
