"""Carries records from Kafka to one target, in a consumer group of its own.

Each target has its own group, so one that is down holds back only its own offsets: its buffer
fills up to a bound, then its partitions pause, and its lag grows and says so.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError
from prometheus_client import Counter, Gauge

from streams.errors import DeliveryError
from streams.log import get_logger
from streams.settings import Settings
from streams.sink.target import Target

_log = get_logger(__name__)

_LAG = Gauge("headwater_sink_lag_records", "Records that are not written yet.", ["target"])
_ROWS = Counter("headwater_sink_rows", "Rows written.", ["target"])
_FAILURES = Counter("headwater_sink_failed_flushes", "Flushes that failed.", ["target"])
_POLL_MS = 200
_GATHER_MS = 250
"""The broker gathers records for so long: storage is no hurry, and each answer has its cost."""
_GATHER_BYTES = 65_536
_SHOW_LAG_S = 1.0
_SESSION_MS = 10_000
_AWAY_S = 5.0
"""A pause after which somebody else may own what was ours: a session counts from the last heartbeat
that the broker saw, which is older than the pause by up to its interval and its way."""


class Carrier(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """Runs one target; see the module's docstring."""

    def __init__(self, target: Target, settings: Settings) -> None:
        self._target = target
        self._settings = settings
        self._sink = settings.sink
        self._read: dict[TopicPartition, int] = {}
        self._failures = 0
        self._retry_at = 0.0
        self._flushed_at = self._stepped_at = time.monotonic()
        self._shown_at = 0.0
        self._was_away = False
        self._paused = False
        self._stopping = False
        self.down_because = ""

    async def run(self) -> None:
        """Carry until :meth:`stop`; the last buffer is flushed, if the target takes it."""
        await self._target.open()
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka,
            group_id=f"headwater-sink-{self._target.name}",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=2_000,
            fetch_min_bytes=_GATHER_BYTES,
            fetch_max_wait_ms=_GATHER_MS,
        )
        self._consumer.subscribe(list(self._target.topics), listener=self)
        await self._consumer.start()
        try:
            while not self._stopping:
                await self._step()
            if self._target.rows() and not self.down_because:
                await self._flush()
        finally:
            await self._consumer.stop()
            await self._target.close()

    def stop(self) -> None:
        """Ask :meth:`run` to end after its current step."""
        self._stopping = True

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Drop what is buffered: it will be read again by whoever owns it then."""
        self._target.forget()
        self._read.clear()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Go on where the target says that it stands, or else at the committed offset."""
        for partition in assigned:
            position = await self._target.assigned(partition)
            if position is not None:
                self._consumer.seek(partition, position)

    async def _step(self) -> None:
        self._notice_absence()
        fetched = await self._consumer.getmany(timeout_ms=_POLL_MS)
        for partition, records in fetched.items():
            self._target.add(partition, records)
            self._read[partition] = records[-1].offset + 1
        now = time.monotonic()
        due = now - self._flushed_at >= self._target.flush_ms / 1000
        full = self._target.rows() >= self._sink.batch_rows
        if self._read and (due or full) and now >= self._retry_at:
            await self._flush()
        self._hold_back()
        if now - self._shown_at >= _SHOW_LAG_S:
            self._shown_at = now
            await self._show_lag()

    async def _flush(self) -> None:
        if not await self._still_ours():
            return
        rows, read = self._target.rows(), dict(self._read)
        try:
            await self._target.flush()
        except DeliveryError as error:
            self._failed(str(error))
            return
        # A partition that was revoked meanwhile is its new owner's to commit.
        with suppress(CommitFailedError, IllegalStateError):
            await self._consumer.commit(read)
        if self._failures:
            _log.info("target is back", target=self._target.name, failures=self._failures)
        _ROWS.labels(self._target.name).inc(rows)
        self._read = {tp: at for tp, at in self._read.items() if read.get(tp) != at}
        self._failures, self._retry_at, self.down_because = 0, 0.0, ""
        self._flushed_at = time.monotonic()

    async def _still_ours(self) -> bool:
        """Whether what is buffered may be written by this process.

        After a pause beyond the session (a stopped process, a machine that slept) somebody else
        may have read on and written higher ranks, while what was fetched before still waits here.
        Committing what is committed already asks the broker; what is not ours is dropped, and its
        new owner reads it.
        """
        self._notice_absence()
        if not self._was_away:
            return True
        self._was_away = False
        try:
            held = {tp: await self._consumer.committed(tp) or 0 for tp in self._read}
            await self._consumer.commit(held)
        except (CommitFailedError, IllegalStateError):
            self._target.forget()
            self._read.clear()
            return False
        return bool(self._read)

    def _notice_absence(self) -> None:
        now = time.monotonic()
        self._was_away |= now - self._stepped_at >= _AWAY_S
        self._stepped_at = now

    def _failed(self, reason: str) -> None:
        self._failures += 1
        self.down_because = reason
        ceiling = min(
            self._sink.retry_max_ms, self._sink.retry_min_ms * (1 << min(self._failures - 1, 30))
        )
        pause_s = ceiling / 1000 * random.uniform(0.5, 1.0)
        self._retry_at = time.monotonic() + pause_s
        _FAILURES.labels(self._target.name).inc()
        _log.warning(
            "target is down; nothing is lost, its lag grows",
            target=self._target.name,
            reason=reason,
            rows_waiting=self._target.rows(),
            next_try_s=round(pause_s, 1),
        )

    def _hold_back(self) -> None:
        full = self._target.rows() >= self._sink.max_buffered_rows
        if full != self._paused:
            assignment = self._consumer.assignment()
            (self._consumer.pause if full else self._consumer.resume)(*assignment)
            self._paused = full

    async def _show_lag(self) -> None:
        lag = 0
        for partition in self._consumer.assignment():
            done = await self._consumer.committed(partition) or 0
            # Partitions may have gone to somebody else while we waited.
            if partition in self._consumer.assignment():
                lag += max(0, (self._consumer.highwater(partition) or 0) - done)
        _LAG.labels(self._target.name).set(lag)


async def run_all(carriers: list[Carrier], stop: asyncio.Event) -> None:
    """Run carriers until *stop*; one that fails for good ends all, with its error."""
    tasks = [asyncio.create_task(carrier.run()) for carrier in carriers]
    waiter = asyncio.create_task(stop.wait())
    await asyncio.wait([*tasks, waiter], return_when=asyncio.FIRST_COMPLETED)
    for carrier in carriers:
        carrier.stop()
    waiter.cancel()
    await asyncio.gather(*tasks)
