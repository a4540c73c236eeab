"""Group commit: what arrives while the disk is busy is written together, with one flush.

:class:`GroupCommit` is the ``take`` of the edge's intake over MQTT, HTTP and CoAP: it returns when
the readings are in the spool, so their sender may forget them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram

from edge.errors import SpoolError, SpoolFullError
from edge.spool.lane import Entry
from edge.spool.spool import Spool
from streams.core.readings import Readings, concat_readings

T = TypeVar("T")
READINGS_LANE = "readings"
_STORED = Counter("headwater_edge_stored_readings", "Readings in the spool, acknowledged.")
REFUSED = Counter("headwater_edge_refused_readings", "Readings not taken, by reason.", ["reason"])
_WAITING = Gauge("headwater_edge_waiting_readings", "Readings that wait for the disk.")
_SECONDS = Histogram(
    "headwater_edge_commit_seconds",
    "One group commit, packing included.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
)


class SpoolThread:
    """The one thread that the spool belongs to."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self._pool = ThreadPoolExecutor(1, "spool")

    async def run(self, work: Callable[[Spool], T]) -> T:
        """Do *work* with the spool; its errors come back."""
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, partial(work, self.spool)
        )

    def close(self) -> None:
        """Finish what is under way, close the files."""
        self._pool.submit(self.spool.close).result()
        self._pool.shutdown()


class GroupCommit:
    """Takes readings; many callers at once share a write."""

    def __init__(
        self,
        thread: SpoolThread,
        keep: Callable[[Readings, Spool], list[Entry]],
        on_stored: Callable[[list[Entry]], None],
        *,
        max_rows: int,
        max_waiting_rows: int,
        linger_s: float = 0.0,
    ) -> None:
        """Make an idle one.

        :param keep: stores readings, and returns what is to go up, in the thread of the spool.
        :param on_stored: gets the new entries, claimed, in order.
        :param linger_s: how long more is waited for before a write that is not full.
        :param max_rows: readings of one record.
        :param max_waiting_rows: readings that may wait for the disk; more are not taken.
        """
        self._thread, self._keep, self._on_stored = thread, keep, on_stored
        self._max_rows, self._max_waiting_rows = max_rows, max_waiting_rows
        self._linger_s = linger_s
        self._waiting: deque[tuple[Readings, asyncio.Future[None]]] = deque()
        self._rows = 0
        self.stored = 0
        """Readings stored in this life."""
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, readings: Readings) -> None:
        """Return when *readings* are on disk.

        :raises SpoolFullError: if there is no room; nothing was taken, it may be sent again.
        :raises SpoolError: if the disk fails; nothing was taken.
        """
        if not len(readings):
            return
        if self._rows and self._rows + len(readings) > self._max_waiting_rows:
            REFUSED.labels("busy").inc(len(readings))
            raise SpoolFullError(f"{self._rows} readings wait for the disk already")
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((readings, done))
        self._rows += len(readings)
        _WAITING.set(self._rows)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await done

    async def _write(self) -> None:
        group: list[tuple[Readings, asyncio.Future[None]]] = []
        try:
            while self._waiting:
                if self._linger_s and self._rows < self._max_rows:
                    await asyncio.sleep(self._linger_s)
                group = self._next()
                readings = [part for part, _ in group]
                error: SpoolError | None = None
                with _SECONDS.time():
                    try:
                        entries = await self._thread.run(partial(self._store, readings))
                    except SpoolError as failed:
                        error, entries = failed, []
                rows = sum(map(len, readings))
                self._rows -= rows
                _WAITING.set(self._rows)
                if error is None:
                    _STORED.inc(rows)
                    self.stored += rows
                    self._on_stored(entries)
                else:
                    full = isinstance(error, SpoolFullError)
                    REFUSED.labels("full" if full else "disk").inc(rows)
                for _, done in group:
                    if done.done():
                        continue
                    if error is None:
                        done.set_result(None)
                    else:
                        done.set_exception(error)
        finally:
            self._writing = None
            for _, done in (*group, *self._waiting):
                done.cancel()  # only where a defect ended this; whoever waits must not wait on

    def _next(self) -> list[tuple[Readings, asyncio.Future[None]]]:
        group = [self._waiting.popleft()]
        rows = len(group[0][0])
        while self._waiting and rows + len(self._waiting[0][0]) <= self._max_rows:
            group.append(self._waiting.popleft())
            rows += len(group[-1][0])
        return group

    def _store(self, readings: list[Readings], spool: Spool) -> list[Entry]:
        return self._keep(concat_readings(readings), spool)
