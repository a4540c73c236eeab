"""Delivers what waits in the outbox, the compacted topic ``deliveries``.

A message waits there until its last record is a tombstone (delivered) or says ``dead``. The
courier reads its partitions from the beginning at every assignment, so nothing that a crash
interrupted is forgotten; a message that was delivered just before the crash goes out again
under the same id. Messages of one alert, or of one group, to one endpoint keep their order; an
endpoint that hangs delays only itself, and one that fails is tried by one message at a time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from prometheus_client import Counter, Gauge, Histogram

from streams.adapters.patience import patiently
from streams.alerts.channel import Outcome, channels_of
from streams.alerts.charts import Charts
from streams.alerts.disabled import Disabled, is_note, write_note
from streams.alerts.outbox_http import alerts_of
from streams.alerts.pacing import Breaker, Pace, left_s
from streams.alerts.sender import body_of
from streams.log import get_logger
from streams.settings import Settings
from streams.topics import DELIVERIES

_log = get_logger(__name__)

GROUP = "headwater-courier"
_WAITING = Gauge("headwater_alerts_outbox_messages", "Messages waiting to be delivered.")
_OLDEST = Gauge("headwater_alerts_outbox_oldest_seconds", "Age of the oldest waiting message.")
_ATTEMPTS = Counter("headwater_alerts_attempts", "Attempts at endpoints.", ["endpoint", "outcome"])
_BREAKER = Gauge(
    "headwater_alerts_breaker_open", "1 while an endpoint fails and is only tried.", ["endpoint"]
)
_DISABLED = Gauge(
    "headwater_alerts_endpoint_disabled",
    "1 while an endpoint gets nothing: it said 410.",
    ["endpoint"],
)
_DELIVERY = Histogram(
    "headwater_alerts_delivery_seconds",
    "From the outbox to the answer, of delivered messages.",
    ["endpoint"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60, 600, 3600, 86400),
)
_LATENCY = Histogram(
    "headwater_alerts_sensor_to_webhook_seconds",
    "From receipt of the reading to the webhook's answer.",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 60, 600),
)


@dataclass(slots=True)
class Message:
    """One waiting message."""

    id: str
    partition: int
    endpoint: str
    entry: dict[str, Any]
    """The record of the outbox: ``alert``, and ``group`` where it is about several."""
    queued_ms: int
    queued_s: float
    """By the monotonic clock, as :attr:`give_up_s`: one that is set may not make messages old."""
    give_up_s: float
    failed: int = 0
    """Attempts of this process."""
    error: str = ""
    """Of the last of them."""
    next_s: float = 0.0
    """When the next one may come, by the monotonic clock."""
    is_first: bool = False
    """Whether it waits for no other one of its chain."""

    @property
    def chain(self) -> tuple[str, str]:
        """Return the messages among which it keeps its place."""
        return self.endpoint, (self.entry.get("group") or self.entry["alert"])["id"]


class Courier(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """See the module's docstring. Start it in a running loop.

    :raises SettingsError: as :func:`streams.alerts.channel.channels_of`.
    """

    def __init__(self, settings: Settings) -> None:
        self._channels = channels_of(settings)
        self._charts = Charts(settings)
        self._settings = settings
        self._limits = settings.alerts
        self._waiting: dict[str, Message] = {}
        self._chains: dict[tuple[str, str], deque[Message]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._catching_up: dict[TopicPartition, int] = {}
        self._disabled = Disabled.of(settings)
        limits = settings.alerts
        self._pace = Pace(
            limits.retry_min_ms / 1000, limits.retry_max_ms / 1000, limits.breaker_failures
        )
        self._breakers = {name: Breaker(self._pace) for name in self._channels}
        self._errors: dict[str, str] = {}
        """Endpoints that failed last, and why."""
        self._full = False
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and begin to deliver."""
        for channel in self._channels.values():
            await channel.open()
        self._gates = {name: asyncio.Semaphore(self._limits.concurrency) for name in self._channels}
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka, acks="all", enable_idempotence=True
        )
        await self._producer.start()
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka,
            group_id=GROUP,
            group_instance_id=self._limits.instance_id and f"{self._limits.instance_id}-courier",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=500,
            session_timeout_ms=10_000,
            heartbeat_interval_ms=2_000,
        )
        self._consumer.subscribe([DELIVERIES], listener=self)
        await self._consumer.start()
        self._reader = asyncio.create_task(self._read(), name="courier reader")

    async def stop(self) -> None:
        """Stop; what is under way is tried again at the next start."""
        tasks = [*self._tasks, *([self._reader] if self._reader else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._consumer.stop()
        await self._producer.stop()
        for channel in self._channels.values():
            await channel.close()

    def ready(self) -> tuple[bool, str]:
        """Whether deliveries are followed."""
        if self._reader is None:
            return False, "the courier is starting"
        if self._reader.done():
            return False, "the outbox is not read any more; see the log"
        return not self._catching_up, "reading the outbox" if self._catching_up else ""

    def about(self, alert: str) -> list[dict[str, Any]]:
        """Return why the messages about an alert wait, as far as they wait here.

        ``next_try_ms`` is wall time; None for one that waits for another of its chain.
        """
        now_s, now_ms = time.monotonic(), time.time() * 1000
        return [
            {
                "id": one.id,
                "endpoint": one.endpoint,
                "attempts": one.failed,
                "last_error": one.error or self._errors.get(one.endpoint, ""),
                "next_try_ms": round(now_ms + max(0.0, one.next_s - now_s) * 1000)
                if one.is_first
                else None,
            }
            for one in self._waiting.values()
            if alert in alerts_of(one.entry)
        ]

    # -- the outbox -----------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Forget the messages of partitions that are no longer ours."""
        gone = {tp.partition for tp in revoked}
        for identity in [i for i, m in self._waiting.items() if m.partition in gone]:
            del self._waiting[identity]

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Read the assigned partitions from the beginning."""
        assigned = list(assigned)
        if not assigned:
            return
        ends = await patiently("outbox", lambda: self._consumer.end_offsets(assigned))
        await self._consumer.seek_to_beginning(*assigned)
        self._catching_up = {tp: end for tp, end in ends.items() if end > 0}

    async def _read(self) -> None:
        while True:
            fetched = await patiently("outbox", lambda: self._consumer.getmany(timeout_ms=1000))
            for tp, records in fetched.items():
                for record in records:
                    self._take(record)
                end = self._catching_up.get(tp)
                if end is not None and await self._consumer.position(tp) >= end:
                    del self._catching_up[tp]
                    self._dispatch_all(tp.partition)
            self._show()
            self._hold_back()

    def _dispatch_all(self, partition: int) -> None:
        for message in list(self._waiting.values()):
            if message.partition == partition:
                self._dispatch(message)

    def _take(self, record: Any) -> None:
        if is_note(record.key):
            self._disabled.take(record.key, record.value)
            for name in self._channels:
                _DISABLED.labels(name).set(name in self._disabled.names)
            return
        identity = record.key.decode()
        entry = orjson.loads(record.value) if record.value else None
        if entry is None or entry["status"] != "pending":
            self._waiting.pop(identity, None)
            return
        if identity in self._waiting:
            return
        catches_up = TopicPartition(DELIVERIES, record.partition) in self._catching_up
        age_s, now_s = max(0.0, time.time() - record.timestamp / 1000), time.monotonic()
        # What comes while this process reads is new, whatever its wall clock says. What was there
        # before has no better witness of its age.
        more_s = left_s(self._limits.give_up_hours * 3600, age_s if catches_up else 0.0)
        message = Message(
            identity,
            record.partition,
            entry["endpoint"],
            entry,
            record.timestamp,
            now_s - age_s,
            now_s + more_s,
        )
        self._waiting[identity] = message
        if not catches_up:
            self._dispatch(message)

    def _show(self) -> None:
        _WAITING.set(len(self._waiting))
        oldest_s = min((m.queued_s for m in self._waiting.values()), default=None)
        _OLDEST.set(0 if oldest_s is None else time.monotonic() - oldest_s)

    def _hold_back(self) -> None:
        """Stop reading while the outbox in memory is full; go on at half."""
        limit = self._limits.max_outbox
        if not self._full and len(self._waiting) >= limit:
            _log.warning("outbox is full, reading pauses", messages=len(self._waiting))
            self._full = True
            self._consumer.pause(*self._consumer.assignment())
        elif self._full and len(self._waiting) <= limit // 2:
            self._full = False
            self._consumer.resume(*self._consumer.assignment())

    # -- delivery -------------------------------------------------------------------------

    def _dispatch(self, message: Message) -> None:
        key = message.chain
        chain = self._chains.get(key)
        if chain is not None:
            chain.append(message)
            return
        self._chains[key] = deque([message])
        task = asyncio.create_task(self._drive(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drive(self, key: tuple[str, str]) -> None:
        chain = self._chains[key]
        try:
            while chain:
                message = chain.popleft()
                if message.id in self._waiting:
                    message.is_first = True
                    await self._deliver(message)
        finally:
            del self._chains[key]

    async def _deliver(self, message: Message) -> None:
        channel = self._channels.get(message.endpoint)
        if channel is None:
            await self._bury(
                message, "the file that this process was started with has no such endpoint"
            )
            return
        breaker = self._breakers[message.endpoint]
        while message.id in self._waiting:
            if message.endpoint in self._disabled.names:
                await self._bury(message, "the receiver answered 410 Gone: endpoint disabled")
                return
            if breaker.is_open and time.monotonic() > message.give_up_s:
                await self._bury(message, "given up: its endpoint has failed for so long")
                return
            wait_s = breaker.wait_s(time.monotonic())
            if wait_s:
                message.next_s = time.monotonic() + wait_s
                await asyncio.sleep(wait_s)
                continue
            async with self._gates[message.endpoint]:
                body = body_of(message.entry, message.queued_ms)
                chart = await self._charts.of(message.entry, message.endpoint, time.monotonic())
                if chart is not None:
                    body["data"]["chart"] = chart
                outcome = await channel.send(message.id, body)
            if outcome.delivered:
                breaker.succeeded()
                self._errors.pop(message.endpoint, None)
                await self._delivered(message)
                return
            message.failed, message.error = message.failed + 1, outcome.reason
            await self._after_failure(message, outcome)

    async def _delivered(self, message: Message) -> None:
        _ATTEMPTS.labels(message.endpoint, "ok").inc()
        _BREAKER.labels(message.endpoint).set(0)
        _DELIVERY.labels(message.endpoint).observe(time.monotonic() - message.queued_s)
        received_s = message.entry["alert"]["sample"]["received_ms"] / 1000
        _LATENCY.observe(max(0.0, time.time() - received_s))
        await self._finish(message, None)

    async def _after_failure(self, message: Message, outcome: Outcome) -> None:
        attempt, self._errors[message.endpoint] = message.failed, outcome.reason
        _ATTEMPTS.labels(message.endpoint, "failed").inc()
        _log.warning(
            "delivery failed",
            endpoint=message.endpoint,
            message=message.id,
            attempt=attempt,
            reason=outcome.reason,
        )
        breaker = self._breakers[message.endpoint]
        breaker.failed(time.monotonic(), random.random(), outcome.retry_after_s)
        _BREAKER.labels(message.endpoint).set(breaker.is_open)
        if outcome.gone:
            await self._disable(message.endpoint)
            return
        pause_s = self._pace.pause_s(attempt, random.random(), outcome.retry_after_s)
        if time.monotonic() + pause_s > message.give_up_s:
            await self._bury(message, f"given up after {attempt} attempts: {outcome.reason}")
            return
        message.next_s = time.monotonic() + pause_s
        await asyncio.sleep(pause_s)

    async def _disable(self, endpoint: str) -> None:
        if endpoint in self._disabled.names:
            return
        self._disabled.names.add(endpoint)
        _DISABLED.labels(endpoint).set(1)
        _log.error(
            "the receiver answered 410 Gone: nothing more is sent to it; if it is back: "
            f"headwater alerts enable {endpoint}",
            endpoint=endpoint,
        )
        note = self._disabled.note(endpoint)
        await write_note(self._producer, self._settings.topics.partitions, *note)

    async def _bury(self, message: Message, reason: str) -> None:
        entry = {**message.entry, "status": "dead", "reason": reason}
        _log.error("delivery is dead", message=message.id, reason=reason)
        await self._finish(message, orjson.dumps(entry))

    async def _finish(self, message: Message, value: bytes | None) -> None:
        # What was delivered and cannot be noted would stay here, and keep what comes after it.
        key, partition = message.id.encode(), message.partition
        await patiently(
            "note of a delivery",
            lambda: self._producer.send_and_wait(DELIVERIES, value, key=key, partition=partition),
        )
        self._waiting.pop(message.id, None)
