"""Delivers what local rules tell to the webhooks of the site, uplink or not.

What waits lies in the journal, in the same transaction as the alert; here it is in memory, too.
Each endpoint is served by one task: one message at a time, those of one alert in their order, with
the attempts, pauses and breaker of the alerts process. A message that was delivered just before a
crash goes out again under the same id.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

from prometheus_client import Counter, Gauge

from crdt.sqlite_file import LogError
from streams.alerts.channel import Outcome
from streams.alerts.pacing import Breaker, Pace, left_s
from streams.alerts.sender import Sender, body_of
from streams.core.alert_states import message_id
from streams.log import get_logger
from streams.settings import Settings, Webhook

_log = get_logger(__name__)
_WAITING = Gauge("headwater_edge_webhook_messages", "Messages that wait for a webhook of the site.")
_ATTEMPTS = Counter(
    "headwater_edge_webhook_attempts", "Attempts at webhooks of the site.", ["endpoint", "outcome"]
)
_GIVEN_UP = Counter(
    "headwater_edge_webhook_given_up",
    "Messages that were not delivered: expired (alerts.give_up_hours), gone (410), unknown "
    "(no such endpoint any more), limit (edge.local.max_messages).",
    ["reason"],
)
Finish = Callable[[Sequence[str]], Awaitable[None]]
"""Removes messages from the journal; raises :class:`LogError` if it cannot."""


@dataclass(slots=True)
class Message:
    """One state of an alert for one endpoint."""

    id: str
    endpoint: str
    alert: Mapping[str, Any]
    queued_ms: int
    attempts: int = 0
    not_before_s: float = 0.0
    give_up_s: float = 0.0
    """By the monotonic clock, as ``not_before_s``."""


@dataclass(slots=True)
class _Endpoint:
    sender: Sender
    breaker: Breaker
    messages: dict[str, Message] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    gone: bool = False
    delivered: int = 0
    trouble: str = ""

    def next(self, now_s: float) -> tuple[Message | None, float]:
        """Return the message whose turn it is; or None, and how long to wait."""
        alerts: set[str] = set()
        wait_s = inf
        for message in self.messages.values():
            if message.alert["id"] not in alerts:
                alerts.add(message.alert["id"])
                if message.not_before_s <= now_s:
                    return message, 0.0
                wait_s = min(wait_s, message.not_before_s - now_s)
        return None, wait_s


class SiteCourier:
    """See the module. Make it inside the event loop.

    :raises SettingsError: if a signing secret cannot be read.
    """

    def __init__(self, settings: Settings, waiting: Iterable[Message], finish: Finish) -> None:
        """Go on with the messages that wait since before this start, the oldest first."""
        alerts, self._finish = settings.alerts, finish
        self._hooks: Sequence[Webhook] = settings.edge.webhooks
        self._give_up_s = alerts.give_up_hours * 3_600
        self._max_messages = settings.edge.local.max_messages
        self._pace = Pace(
            alerts.retry_min_ms / 1000, alerts.retry_max_ms / 1000, alerts.breaker_failures
        )
        self._endpoints = {
            hook.name: _Endpoint(Sender(hook), Breaker(self._pace)) for hook in self._hooks
        }
        self._count = 0
        self._out: list[str] = []
        """What is over, and still in the journal."""
        self.take(waiting)

    def endpoints(self, tenant: str) -> list[str]:
        """Return the names of the endpoints that take a tenant's alerts."""
        return [hook.name for hook in self._hooks if hook.takes(tenant)]

    def take(self, messages: Iterable[Message]) -> None:
        """Take messages that are in the journal."""
        now_s, wall_s = time.monotonic(), time.time()
        for message in messages:
            endpoint = self._endpoints.get(message.endpoint)
            if endpoint is None:
                self._out.append(message.id)
                _give_up(message, "unknown")
            elif message.id not in endpoint.messages:
                left = left_s(self._give_up_s, wall_s - message.queued_ms / 1000)
                message.give_up_s = now_s + left
                endpoint.messages[message.id] = message
                self._count += 1
                endpoint.news.set()
        while self._count > self._max_messages:
            queues = [one.messages for one in self._endpoints.values() if one.messages]
            queue = min(queues, key=lambda found: next(iter(found.values())).queued_ms)
            self._end(next(iter(queue.values())), "limit")
        _WAITING.set(self._count)

    def status(self) -> list[dict[str, Any]]:
        """Return how each endpoint is."""
        return [
            {
                "name": name,
                "waiting": len(one.messages),
                "delivered": one.delivered,
                "trouble": one.trouble,
            }
            for name, one in self._endpoints.items()
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[list[asyncio.Task[None]]]:
        """Deliver until the block ends; gives the tasks that must not end before."""
        await self._clean_up()
        for one in self._endpoints.values():
            await one.sender.open()
        tasks = [
            asyncio.create_task(self._serve(name, one), name=f"webhook {name}")
            for name, one in self._endpoints.items()
        ]
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for one in self._endpoints.values():
                await one.sender.close()

    # -- one endpoint --------------------------------------------------------------------------

    async def _serve(self, name: str, endpoint: _Endpoint) -> None:
        while True:
            await self._clean_up()
            message, wait_s = endpoint.next(time.monotonic())
            if message is None and self._out:
                continue  # the disk has failed, and is asked again after a pause
            if message is None:
                endpoint.news.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s if isfinite(wait_s) else None):
                        await endpoint.news.wait()
                continue
            if endpoint.gone:
                self._end(message, "gone")
                continue
            if endpoint.breaker.is_open and time.monotonic() > message.give_up_s:
                self._end(message, "expired")
                continue
            wait_s = endpoint.breaker.wait_s(time.monotonic())
            if wait_s:
                await asyncio.sleep(wait_s)
                continue
            body = body_of({"alert": message.alert}, message.queued_ms)
            outcome = await endpoint.sender.send(message.id, body)
            self._note(name, endpoint, message, outcome)

    def _note(self, name: str, endpoint: _Endpoint, message: Message, outcome: Outcome) -> None:
        _ATTEMPTS.labels(name, "ok" if outcome.delivered else "failed").inc()
        if outcome.delivered:
            endpoint.breaker.succeeded()
            endpoint.delivered, endpoint.trouble = endpoint.delivered + 1, ""
            self._remove(endpoint, message)
            return
        now_s = time.monotonic()
        message.attempts += 1
        endpoint.trouble = outcome.reason
        endpoint.breaker.failed(now_s, random.random(), outcome.retry_after_s)
        _log.warning("delivery failed", endpoint=name, message=message.id, why=outcome.reason)
        if outcome.gone:
            endpoint.gone = True
            _log.error("the receiver answered 410 Gone: nothing more is sent to it", endpoint=name)
            return
        pause_s = self._pace.pause_s(message.attempts, random.random(), outcome.retry_after_s)
        message.not_before_s = now_s + pause_s
        if message.not_before_s > message.give_up_s:
            self._end(message, "expired")

    def _end(self, message: Message, reason: str) -> None:
        self._remove(self._endpoints[message.endpoint], message)
        _give_up(message, reason)

    def _remove(self, endpoint: _Endpoint, message: Message) -> None:
        # One that was under way when it was given up for the limit is no more there.
        if endpoint.messages.pop(message.id, None) is not None:
            self._count -= 1
            self._out.append(message.id)
        _WAITING.set(self._count)

    async def _clean_up(self) -> None:
        """Let the journal forget what is over; what it cannot now it is asked for again."""
        out, self._out = self._out, []
        if not out:
            return
        try:
            await self._finish(out)
        except LogError as error:
            self._out += out
            _log.error("what was delivered cannot be noted", error=str(error))
            await asyncio.sleep(self._pace.min_s)


def _give_up(message: Message, reason: str) -> None:
    _GIVEN_UP.labels(reason).inc()
    _log.error("a message to a webhook of the site is given up", id=message.id, why=reason)


def messages_of(
    alert: Mapping[str, Any], endpoints: Iterable[str], queued_ms: int
) -> list[Message]:
    """Return the messages about a state of an alert."""
    return [
        Message(
            message_id(alert["id"], alert["state"], name, alert.get("turn", 0)),
            name,
            alert,
            queued_ms,
        )
        for name in endpoints
    ]
