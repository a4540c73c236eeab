"""Raw readings of the ring go up because somebody asks for them.

One request at a time: its readings go through a small lane of the spool of their own, last of all,
and the request is done when Kafka has confirmed them. A crash begins it anew; its id is remembered
when it is done, so a request that a broker kept is not worked at twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial

import numpy as np

from edge import contents
from edge.commit import SpoolThread
from edge.errors import SpoolError, SpoolFullError
from edge.filters import raw_of
from edge.ring import Ring
from edge.spool.records import Record
from edge.spool.spool import Spool
from edge.uplink.pump import BACKFILL
from streams.core.readings import Bool, Labels, Readings
from streams.errors import DecodeError
from streams.intake.backfill_wire import Progress, Request, State, decode_request, encode
from streams.log import get_logger

_log = get_logger(__name__)
MAX_WAITING = 16
"""Requests that wait; further ones are refused."""
_PAUSE_S = 0.2


class Backfills:
    """Requests of one site. Belongs to the event loop."""

    def __init__(
        self,
        thread: SpoolThread,
        ring: Ring | None,
        wall_ms: Callable[[], int],
        *,
        found: Callable[[], None],
        say: Callable[[bytes], None],
    ) -> None:
        """Make an idle one.

        :param ring: None where nothing is filtered: then every request finds nothing.
        :param found: is called when there is something in the lane.
        :param say: takes reports.
        """
        self._thread, self._ring, self._wall_ms = thread, ring, wall_ms
        self._found, self._say = found, say
        self._waiting: deque[Request] = deque()
        self._current = ""
        self._arrived = asyncio.Event()

    def hear(self, payload: bytes) -> None:
        """Take a request; one that is known already is left alone."""
        if not payload:
            return
        try:
            request = decode_request(payload)
        except DecodeError as error:
            _log.warning("request for a backfill not understood", detail=error.detail)
            return
        if request.id == self._current or any(one.id == request.id for one in self._waiting):
            return
        if len(self._waiting) >= MAX_WAITING:
            why = f"{MAX_WAITING} requests wait already; ask again later"
            self._report(Progress(request.id, State.FAILED, 0, 0, 0, why))
            return
        self._waiting.append(request)
        self._arrived.set()

    async def run(self) -> None:
        """Work at requests until cancelled."""
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            request = self._waiting.popleft()
            self._current = request.id
            try:
                await self._work(request)
            except SpoolError as error:
                _log.error("backfill failed", id=request.id, error=str(error))
                self._report(Progress(request.id, State.FAILED, 0, 0, 0, str(error)))
            self._current = ""

    async def _work(self, request: Request) -> None:
        ring = self._ring
        if ring is None:
            why = "this edge has no ring: no [[filters]] are set, so all its readings went up"
            self._report(Progress(request.id, State.DONE, 0, 0, 0, why))
            return
        if await self._thread.run(lambda _: request.id in ring.done()):
            return
        _log.info("backfill", id=request.id, from_ms=request.from_ms, to_ms=request.to_ms)
        segments = await self._thread.run(lambda _: ring.segments())
        rows = 0
        for at, segment in enumerate(segments):
            self._report(Progress(request.id, State.READING, at, len(segments), rows))
            records = await self._thread.run(partial(_records, ring, segment))
            for record in records:
                chosen = await asyncio.to_thread(chosen_of, record.payload, request)
                if len(chosen):
                    await self._put(chosen)
                    rows += len(chosen)
        while await self._thread.run(_waiting_records):
            self._report(Progress(request.id, State.READING, len(segments), len(segments), rows))
            await asyncio.sleep(_PAUSE_S)
        await self._thread.run(lambda _: ring.note_done(request.id))
        self._report(Progress(request.id, State.DONE, len(segments), len(segments), rows))
        _log.info("backfill done", id=request.id, readings=rows)

    async def _put(self, readings: Readings) -> None:
        """Store readings in the lane; wait while it is full."""
        payload = await asyncio.to_thread(contents.pack, readings)
        now_ms = self._wall_ms()
        record = Record(payload, len(readings), now_ms, now_ms)
        while True:
            try:
                await self._thread.run(lambda spool: spool.append(BACKFILL, [record], now_ms))
            except SpoolFullError:
                self._found()
                await asyncio.sleep(_PAUSE_S)
                continue
            self._found()
            return

    def _report(self, progress: Progress) -> None:
        self._say(encode(progress))


def _records(ring: Ring, segment: int, _spool: Spool) -> list[Record]:
    return ring.records(segment)


def _waiting_records(spool: Spool) -> int:
    return next(lane.records for lane in spool.status if lane.name == BACKFILL)


def chosen_of(payload: bytes, request: Request) -> Readings:
    """Return the raw readings of a record of the ring that are asked for."""
    readings = raw_of(contents.unpack(payload))
    wanted = (readings.t_ms >= request.from_ms) & (readings.t_ms < request.to_ms)
    wanted &= _named(readings.device, request.devices) & _named(readings.metric, request.metrics)
    return readings.take(wanted)


def _named(labels: Labels, globs: tuple[str, ...]) -> Bool:
    names = [any(fnmatchcase(name, glob) for glob in globs) for name in labels.values]
    found: Bool = np.asarray(names, np.bool_)[labels.codes]
    return found
