"""From the ring to windows in the spool: reads, folds, stores, and begins where a life has ended.

::

    ring ─▶ site (folds) ─▶ windows ─▶ the spool's lane ``windows``
                        └─▶ raw readings near anomalies ─▶ lane ``readings``, and a mark in the ring
                    └─▶ checkpoint, once both are on disk

The site and its checkpoints belong to one thread, the spool to its own, all else to the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from prometheus_client import Counter, Gauge

from crdt.sqlite_file import LogError
from edge import contents
from edge.commit import REFUSED, SpoolThread
from edge.errors import SpoolError, SpoolFullError
from edge.keeping import Keeping, tallies_wait
from edge.spool.lane import Entry
from edge.spool.records import Record
from edge.spool.spool import LOSSES, Spool
from edge.uplink.pump import WINDOWS
from edge.windowing.site import CLOCK_KEY, Outcome, SiteWindows
from edge.windowing.store import FILE, Checkpoints
from streams.adapters import shard_codec
from streams.core.readings import Readings, concat_readings
from streams.log import get_logger
from streams.settings import Settings

T = TypeVar("T")
_log = get_logger(__name__)
_PLACE_KEY = "place"
_TICK_S = 0.5
_RETRY_S = 1.0
_MAX_ROWS = 10_000
_RESULTS = Counter("headwater_edge_window_results", "Results of windows put into the spool.")
_AROUND = Counter(
    "headwater_edge_released_readings",
    "Readings that went up after all: near anomalies, or in no window.",
)
_WAITING = Gauge("headwater_edge_windowing_waiting_readings", "Readings in the ring to be folded.")
_UNSTORED = Counter("headwater_edge_windowing_unstored", "Checkpoints that the disk refused.")

Place = tuple[int, int]
"""Segment and place of a record of the ring."""
_Arrived = tuple[Place, int, Readings]
"""A record of the ring: where it lies, the running time of its write, its rows."""


class _StoppedError(Exception):
    """Asked to stop while the spool does not take what is there: the next life folds it anew."""


class EdgeWindows:
    """See the module. Make it inside the event loop, before the first reading is stored."""

    def __init__(
        self,
        settings: Settings,
        thread: SpoolThread,
        keeping: Keeping,
        clocks: tuple[Callable[[], int], Callable[[], int]],
        *,
        told: Callable[[], None],
        stored: Callable[[Sequence[Entry]], None],
    ) -> None:
        """Open the checkpoints.

        :param clocks: wall time and running time (:mod:`edge.running_time`), ms.
        :param told: is called when there is something in the lane of windows.
        :param stored: takes raw readings that go up after all, claimed.
        :raises LogError: if checkpoints cannot be used.
        """
        assert keeping.ring is not None and keeping.filters is not None
        self._limits = settings.edge.windows
        self._thread, self._keeping, self._ring = thread, keeping, keeping.ring
        self._wall_ms, self._running_ms = clocks
        self._told, self._stored = told, stored
        self._fingerprint = settings.fingerprint()
        self._site = SiteWindows(settings, keeping.filters)
        self._checkpoints = Checkpoints(settings.edge.data / FILE)
        # Segments of this life come by themselves; those of former ones are read.
        self._begins: Place = (thread.spool.life << 32, -1)
        self._place = self._begins
        self._arrived: deque[_Arrived] = deque()
        self._rows = 0
        self._wake = asyncio.Event()
        self._has_changed = False
        self._stored_s = self._said_s = 0.0
        self._tell_s = settings.edge.ring.tell_ms / 1000
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None
        self._pool = ThreadPoolExecutor(1, "windows")
        self._loop = asyncio.get_running_loop()
        keeping.windowed = self._hand_over

    def check_room(self, rows: int) -> None:
        """Let no more readings in while too many wait to be folded.

        :param rows: how many come.
        :raises SpoolFullError: if so.
        """
        if self._rows > self._limits.max_waiting_rows:
            REFUSED.labels("windows").inc(rows)
            raise SpoolFullError(f"{self._rows} readings wait for their windows already")

    def start(self) -> asyncio.Task[None]:
        """Begin; returns the task that must not end before :meth:`stop`."""
        self._task = asyncio.create_task(self._run(), name="windows")
        return self._task

    async def stop(self) -> None:
        """Fold what is in the ring, store, and end."""
        self._is_stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        await self._in_thread(self._checkpoints.close)
        self._pool.shutdown()

    # -- what arrives ----------------------------------------------------------------------------

    def _hand_over(self, entry: Entry, ring: Readings) -> None:
        """Take a record that was put into the ring; in the thread of the spool."""
        place = (entry.segment, entry.place)
        arrived = (place, entry.record.written_ms, ring)
        self._loop.call_soon_threadsafe(self._take, arrived)

    def _take(self, arrived: _Arrived) -> None:
        self._arrived.append(arrived)
        self._rows += len(arrived[2])
        _WAITING.set(self._rows)
        self._wake.set()

    def _next(self) -> list[_Arrived]:
        found: list[_Arrived] = []
        rows = 0
        while self._arrived and (not found or rows + len(self._arrived[0][2]) <= _MAX_ROWS):
            found.append(self._arrived.popleft())
            rows += len(found[-1][2])
        self._rows -= rows
        _WAITING.set(self._rows)
        return found

    # -- the loop --------------------------------------------------------------------------------

    async def _run(self) -> None:
        with suppress(_StoppedError):
            await self._resume()
            while self._arrived or not self._is_stopping:
                await self._step()
            await self._checkpoint()
            await self._say()

    async def _step(self) -> None:
        self._wake.clear()
        # Asked of the spool's thread: whatever was stamped before has arrived when it answers.
        now_ms = await self._thread.run(lambda _: self._running_ms())
        arrived = self._next()
        if arrived:
            await self._fold(arrived)
        else:
            outcome = await self._in_thread(self._site.pass_time, now_ms)
            await self._put(outcome)
            if outcome.windows:
                # Nothing in the ring says that it was this late.
                self._has_changed = True
                await self._checkpoint()
        due = self._loop.time() - self._stored_s >= self._limits.checkpoint_ms / 1000
        if self._has_changed and due:
            await self._checkpoint()
        if self._loop.time() - self._said_s >= self._tell_s:
            await self._say()
        if not self._arrived:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._wake.wait()

    async def _fold(self, arrived: Sequence[_Arrived]) -> None:
        records = [(at_ms, ring) for _, at_ms, ring in arrived]
        await self._put(await self._in_thread(self._site.fold, records))
        self._place = arrived[-1][0]
        self._has_changed = True

    async def _put(self, outcome: Outcome) -> None:
        """Store what came of some readings; until that is done nothing else goes on.

        :raises _StoppedError: if asked to stop meanwhile.
        """
        if not outcome.windows and not outcome.up:
            return
        windows = await self._in_thread(partial(self._packed, outcome))
        up = concat_readings(outcome.up) if outcome.up else None
        while True:
            try:
                if windows:
                    await self._thread.run(partial(_append, WINDOWS, windows, self._wall_ms()))
                    _RESULTS.inc(sum(record.rows for record in windows))
                    windows = []
                    self._told()
                if up is not None:
                    self._stored(await self._thread.run(partial(self._keeping.release, up)))
                    _AROUND.inc(len(up))
            except SpoolError as error:
                _log.error("windows wait for the spool", error=str(error))
                if self._is_stopping:
                    raise _StoppedError from error
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def _packed(self, outcome: Outcome) -> list[Record]:
        now_ms, written_ms = self._wall_ms(), self._running_ms()
        return [
            Record(payload, rows, now_ms, written_ms)
            for payload, rows in contents.pack_windows(outcome.windows, self._fingerprint)
        ]

    # -- checkpoints -----------------------------------------------------------------------------

    async def _checkpoint(self) -> None:
        self._stored_s = self._loop.time()
        if self._has_changed and await self._in_thread(self._store, self._place):
            self._has_changed = False

    async def _say(self) -> None:
        """Tell the ledger how many readings went into windows whose results are in the spool."""
        self._said_s = self._loop.time()
        now_ms = self._wall_ms()
        if await self._thread.run(tallies_wait):
            return
        entries = await self._in_thread(self._site.account.untold, now_ms)
        records = [Record(one.encode(), 1, now_ms, self._running_ms()) for one in entries]
        if not records:
            return
        try:
            await self._thread.run(partial(_append, LOSSES, records, now_ms))
        except SpoolError as error:
            await self._in_thread(self._site.account.retell)
            _log.error("the ledger is not told what is in windows", error=str(error))

    def _store(self, place: Place, *, anew: bool = False) -> bool:
        state = self._site.take_state()
        try:
            self._checkpoints.write({**state, _PLACE_KEY: _encoded(place)}, anew=anew)
        except LogError as error:
            _UNSTORED.inc()
            self._site.give_back(state)
            _log.error("the windows of this edge are not stored", error=str(error))
            return False
        return True

    async def _resume(self) -> None:
        """Go on where the life before has stored its windows."""
        state = await self._in_thread(self._checkpoints.read)
        if CLOCK_KEY not in state:
            # A crash before the first checkpoint must find where to begin.
            await self._in_thread(self._store, self._place)
            return
        place = _decoded(state.pop(_PLACE_KEY))
        rest = await self._in_thread(self._site.restore, state)
        former = [
            number
            for number in await self._thread.run(lambda _: self._ring.segments())
            if number < self._begins[0]
        ]
        await self._look_back(former, place)
        await self._put(rest)
        rows = 0
        for segment in former:
            entries = await self._entries(segment)
            later = [one for one in entries if (one.segment, one.place) > place]
            for first in range(0, len(later), _GROUP):
                group = [_arrived(one) for one in later[first : first + _GROUP]]
                rows += sum(len(ring) for _, _, ring in group)
                await self._fold(group)
        await self._in_thread(self._site.is_up_to_date)
        if rows:
            await self._checkpoint()
        if rest.windows:
            # Definitions that are gone must not be told of again.
            await self._in_thread(partial(self._store, self._place, anew=False))
        _log.info("windows", resumed_at=list(place), folded_anew=rows)

    async def _look_back(self, segments: Sequence[int], place: Place) -> None:
        """Look through the ring for readings near anomalies to come, and for what was sent."""
        if not self._site.keep_ms:
            return
        before: list[Entry] = []
        for segment in reversed([number for number in segments if number <= place[0]]):
            entries = await self._entries(segment)
            before[:0] = [one for one in entries if (one.segment, one.place) <= place]
            newest_ms = before[-1].record.written_ms if before else 0
            if before and before[0].record.written_ms < newest_ms - self._site.keep_ms:
                break
        for entry in before:
            (_, at_ms, ring) = _arrived(entry)
            await self._in_thread(self._site.remember, ring, at_ms)
        for segment in segments:
            if segment >= (before[0].segment if before else place[0]):
                rings = [_arrived(one)[2] for one in await self._entries(segment)]
                await self._in_thread(self._site.note_sent, rings)

    async def _entries(self, segment: int) -> list[Entry]:
        return await self._thread.run(lambda _: self._ring.entries(segment))

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await self._loop.run_in_executor(self._pool, work, *args)


_GROUP = 64
"""Records that are folded together after a start."""


def _append(lane: str, records: Iterable[Record], now_ms: int, spool: Spool) -> None:
    spool.append(lane, list(records), now_ms)


def _arrived(entry: Entry) -> _Arrived:
    place = (entry.segment, entry.place)
    return place, entry.record.written_ms, contents.unpack(entry.record.payload)


def _encoded(place: Place) -> bytes:
    return shard_codec.encode({"segment": place[0], "place": place[1]})


def _decoded(data: bytes) -> Place:
    found = shard_codec.decode(data)
    return int(found["segment"]), int(found["place"])
