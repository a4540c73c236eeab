"""Batches over MQTT: claims from the spool, sends, hears, sends again.

Lanes go in this order: alerts, losses, windows, fresh readings, backlog, backfill; the backlog has
its share while fresh readings wait, too. *Fresh* readings come straight from the group commit, in
memory; those that cannot be sent soon are only on disk from then on, and are the *backlog*.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from edge import contents
from edge.commit import READINGS_LANE, SpoolThread
from edge.errors import SpoolError
from edge.spool.lane import Entry
from edge.spool.spool import LOSSES, Spool
from edge.uplink import meters
from edge.uplink.pace import BatchSize, Bucket, Hours, Shares
from edge.uplink.window import Batch, Window
from streams.adapters import zstd
from streams.adapters.mqtt_link import MqttLink
from streams.errors import DecodeError
from streams.intake.uplink_wire import (
    Ack,
    BatchHeader,
    Encoding,
    Kind,
    batch_id,
    decode_ack,
    encode_header,
    up_topic,
)
from streams.log import get_logger
from streams.settings import Edge

_log = get_logger(__name__)
ALERTS = "alerts"
BACKFILL = "backfill"
"""Lane of raw readings that somebody asked for; it goes last."""
WINDOWS = "windows"
"""Lane of results of windows that go up in place of readings."""
_TICK_S = 1.0
_LIST_RECORDS = 100
_FRESH, _BACKLOG = "fresh", "backlog"
_BOUNDED = (Kind.READINGS, Kind.BACKFILL, Kind.WINDOWS)


@dataclass(frozen=True, slots=True)
class Clocks:
    """What time it is."""

    monotonic_s: Callable[[], float]
    wall_ms: Callable[[], int]
    """Milliseconds since the epoch."""
    minute: Callable[[], int]
    """Of the local day."""


class Pump:
    """The uplink of one edge. Belongs to the event loop."""

    def __init__(
        self,
        thread: SpoolThread,
        link: MqttLink,
        edge: Edge,
        clocks: Clocks,
        rng: random.Random,
    ) -> None:
        """Wire the parts; :meth:`run` does the work."""
        up = edge.uplink
        self._thread, self._link, self._limits = thread, link, up
        self._clock, self._minute, self._wall_ms = clocks.monotonic_s, clocks.minute, clocks.wall_ms
        self._rng = rng
        self._topic = up_topic(edge.tenant, edge.site)
        self._life = f"{thread.spool.id}.{thread.spool.life}"
        self._number = 0
        now_s = self._clock()
        self._bucket = Bucket(up.max_bytes_per_s, now_s)
        self._hours = Hours(up.spans())
        self._shares = Shares(up.backlog_share)
        self.size = BatchSize(up.min_rows, up.max_rows, up.target_ms / 1000)
        timeout_s = (up.answer_min_ms / 1000, up.answer_max_ms / 1000)
        self.window = Window(up.window_batches, up.window_bytes, timeout_s, rng)
        self._fresh: deque[tuple[float, Entry]] = deque()
        self._fresh_rows = self._fresh_bytes = 0
        self._spilled: list[Entry] = []
        self._heard: list[Ack] = []
        self._maybe = dict.fromkeys((ALERTS, LOSSES, WINDOWS, _BACKLOG, BACKFILL), True)
        """Lanes on disk that may have something to send."""
        self._backlog_from_s = now_s
        self._wake = asyncio.Event()
        self.confirmed = 0
        """Readings confirmed in this life."""

    # -- what others tell ---------------------------------------------------------------------

    def stored(self, entries: Sequence[Entry]) -> None:
        """Take on new readings, which are on disk and claimed."""
        now_s = self._clock()
        for entry in entries:
            self._fresh.append((now_s, entry))
            self._fresh_rows += entry.record.rows
            self._fresh_bytes += entry.record.size
        while self._fresh and self._fresh_bytes > self._limits.max_fresh_bytes:
            self._spill()
        self._wake.set()

    def alerted(self) -> None:
        """Note that there is something in the lane of alerts."""
        self._maybe[ALERTS] = True
        self._wake.set()

    def windowed(self) -> None:
        """Note that there is something in the lane of windows."""
        self._maybe[WINDOWS] = True
        self._wake.set()

    def asked(self) -> None:
        """Note that there is something in the lane of what was asked for."""
        self._maybe[BACKFILL] = True
        self._wake.set()

    def connected(self) -> None:
        """Begin again after a connection."""
        now_s = self._clock()
        self.window.reconnected(now_s)
        self._backlog_from_s = now_s + self._rng.uniform(0, self._limits.spread_ms / 1000)
        self._wake.set()

    def hear(self, _topic: str, payload: bytes) -> None:
        """Take an acknowledgement."""
        try:
            self._heard.append(decode_ack(payload))
        except DecodeError as error:
            meters.BAD_ACKS.inc()
            _log.warning("acknowledgement not understood", detail=error.detail)
            return
        self._wake.set()

    @property
    def fresh_rows(self) -> int:
        """Fresh readings that wait."""
        return self._fresh_rows

    # -- the loop -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Send until cancelled.

        :raises SpoolError: if the spool cannot be read.
        """
        while True:
            self._wake.clear()
            await self._settle()
            wait_s = _TICK_S
            if self._link.connected:
                wait_s = await self._send()
            meters.show(self.window, self.size.rows, self._fresh_rows)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            self._maybe[LOSSES] = True  # the spool enters losses by itself

    async def _settle(self) -> None:
        """Note what was answered; give what cannot be sent soon back to the disk."""
        heard, self._heard = self._heard, []
        now_s = self._clock()
        for ack in heard:
            done, times = self.window.answered(ack.batches, now_s)
            for took_s in times:
                self.size.answered(took_s)
                meters.ROUND_TRIP.observe(took_s)
            entries = [entry for batch in done for entry in batch.entries]
            rows = sum(b.kind == Kind.READINGS and e.record.rows for b in done for e in b.entries)
            meters.CONFIRMED.inc(rows)
            self.confirmed += rows
            await self._thread.run(partial(_confirm, entries))
            for refusal in ack.refused:
                if refusal.retry_after_ms is not None:
                    until_s = now_s + refusal.retry_after_ms / 1000 * self._rng.uniform(1, 1.25)
                    self.window.postpone(refusal.batch, until_s)
                else:
                    await self._give_up(refusal.batch, refusal.reason, now_s)
        oldest_s = now_s - self._limits.fresh_ms / 1000
        open_now = self._hours.open(self._minute())
        while self._fresh and (not open_now or self._fresh[0][0] < oldest_s):
            self._spill()
        if self._spilled:
            spilled, self._spilled = self._spilled, []
            await self._thread.run(lambda spool: spool.release(spilled))
            self._maybe[_BACKLOG] = True

    async def _give_up(self, batch: str, reason: str, now_s: float) -> None:
        done, _ = self.window.answered([batch], now_s)
        for one in done:
            _log.error("the gateway refused a batch for ever", batch=one.id, reason=reason)
            await self._thread.run(partial(_refuse, one.entries, reason, self._wall_ms()))

    def _spill(self) -> None:
        _, entry = self._fresh.popleft()
        self._fresh_rows -= entry.record.rows
        self._fresh_bytes -= entry.record.size
        self._spilled.append(entry)

    async def _send(self) -> float:
        """Send what may go; return seconds until there may be more."""
        while True:
            now_s = self._clock()
            pause_s = self._bucket.wait_s(now_s)
            due = self.window.due(now_s)
            if due and pause_s and all(batch.kind in _BOUNDED for batch in due):
                return min(pause_s, _TICK_S)
            for batch in due:
                self._publish(batch, now_s)
            if due:
                continue
            chosen, wait_s = await self._next(now_s, held=pause_s > 0)
            if chosen is None:
                wait_s = min(wait_s, pause_s or _TICK_S, self.window.next_due_s() - now_s)
                return max(0.001, min(wait_s, _TICK_S))
            self.window.add(chosen, self._clock())
            if self._heard:
                return 0.001

    def _publish(self, batch: Batch, now_s: float) -> None:
        header = BatchHeader(batch.id, Kind(batch.kind), Encoding.ZSTD)
        self._link.publish(
            self._topic,
            batch.payload,
            encode_header(header),
            self._limits.message_expiry_s,
        )
        if batch.attempts:
            self.size.lost()
            meters.RESENT.inc()
        meters.SENT_BYTES.inc(len(batch.payload))
        self._bucket.take(len(batch.payload))
        self.window.sent(batch, now_s)

    # -- what goes next -----------------------------------------------------------------------

    async def _next(self, now_s: float, *, held: bool) -> tuple[Batch | None, float]:
        """Return the next batch, or None and how long to wait.

        :param held: whether the bandwidth for readings is used up.
        """
        for lane in (ALERTS, LOSSES):
            if self._maybe[lane] and self.window.room(backlog=False):
                batch = await self._listed(lane)
                if batch is not None:
                    return batch, 0.0
        if held or not self._hours.open(self._minute()):
            return None, _TICK_S
        return await self._next_bounded(now_s)

    async def _next_bounded(self, now_s: float) -> tuple[Batch | None, float]:
        """Return the next batch of what bandwidth and hours bound."""
        if self._maybe[WINDOWS] and self.window.room(backlog=False):
            batch = await self._windows()
            if batch is not None:
                return batch, 0.0
        backlog = (
            self._maybe[_BACKLOG]
            and now_s >= self._backlog_from_s
            and self.window.room(backlog=True)
        )
        wait_s = self._fresh_wait_s(now_s)
        fresh = wait_s <= 0 and self.window.room(backlog=False)
        if backlog and (not fresh or self._shares.backlog_first()):
            batch = await self._batched(READINGS_LANE, _BACKLOG)
            if batch is not None:
                return batch, 0.0
        if fresh:
            return await self._freshest(), 0.0
        if self._maybe[BACKFILL] and not self._maybe[_BACKLOG] and self.window.room(backlog=True):
            batch = await self._batched(BACKFILL, BACKFILL)
            if batch is not None:
                return batch, 0.0
        if self._maybe[_BACKLOG]:
            wait_s = min(wait_s, max(0.05, self._backlog_from_s - now_s))
        return None, max(wait_s, 0.005)

    def _fresh_wait_s(self, now_s: float) -> float:
        """Seconds until the fresh readings are enough, or have waited long enough."""
        if not self._fresh:
            return _TICK_S
        if self._fresh_rows >= self.size.rows:
            return 0.0
        return self._fresh[0][0] + self._limits.linger_ms / 1000 - now_s

    async def _freshest(self) -> Batch:
        taken: list[Entry] = []
        rows = size = 0
        while self._fresh:
            record = self._fresh[0][1].record
            too_much = rows + record.rows > self.size.rows
            if taken and (too_much or size + record.size > self._limits.max_batch_bytes):
                break
            taken.append(self._fresh.popleft()[1])
            rows += record.rows
            size += record.size
        self._fresh_rows -= rows
        self._fresh_bytes -= size
        return await self._batch(_FRESH, taken)

    async def _batched(self, lane: str, name: str) -> Batch | None:
        """Return readings of a lane on disk, which the ids of batches call *name*."""
        claim = partial(_claim, lane, self.size.rows, self._limits.max_batch_bytes)
        entries = await self._thread.run(claim)
        if not entries:
            self._maybe[name] = False
            return None
        return await self._batch(name, entries)

    async def _batch(self, lane: str, entries: list[Entry]) -> Batch:
        payloads = [entry.record.payload for entry in entries]
        payload = await self._thread.run(lambda _spool: contents.join(payloads))
        self._shares.sent(len(payload), backlog=lane != _FRESH)
        kind = Kind.BACKFILL if lane == BACKFILL else Kind.READINGS
        return Batch(self._id(lane), kind, payload, entries, lane != _FRESH)

    async def _listed(self, lane: str) -> Batch | None:
        """Return records of JSON as one list."""
        claim = partial(_claim, lane, _LIST_RECORDS, self._limits.max_batch_bytes)
        entries = await self._thread.run(claim)
        if not entries:
            self._maybe[lane] = False
            return None
        payload = b"[" + b",".join(entry.record.payload for entry in entries) + b"]"
        return Batch(self._id(lane), Kind(lane), zstd.compress(payload), entries, backlog=False)

    async def _windows(self) -> Batch | None:
        """Return results of windows, their frames one after the other."""
        claim = partial(_claim, WINDOWS, contents.MAX_RESULTS, self._limits.max_batch_bytes)
        entries = await self._thread.run(claim)
        if not entries:
            self._maybe[WINDOWS] = False
            return None
        payloads = [entry.record.payload for entry in entries]
        payload = await self._thread.run(lambda _spool: contents.join_windows(payloads))
        return Batch(self._id(WINDOWS), Kind.WINDOWS, payload, entries, backlog=False)

    def _id(self, lane: str) -> str:
        self._number += 1
        return batch_id(self._life, lane, self._number)

    def say_status(self, status: bytes) -> None:
        """Say how the edge is: once, kept nowhere, because the next one says more."""
        if self._link.connected:
            header = BatchHeader(self._id("status"), Kind.STATUS, Encoding.IDENTITY)
            properties = encode_header(header)
            self._link.publish(self._topic, status, properties, self._limits.message_expiry_s)


def _claim(lane: str, max_rows: int, max_bytes: int, spool: Spool) -> list[Entry]:
    try:
        return spool.claim(lane, max_rows, max_bytes)
    except SpoolError as error:
        _log.error("the spool cannot be read", error=str(error))
        return []


def _confirm(entries: list[Entry], spool: Spool) -> None:
    spool.confirm(entries)


def _refuse(entries: list[Entry], reason: str, now_ms: int, spool: Spool) -> None:
    spool.refuse(entries, reason, now_ms)
