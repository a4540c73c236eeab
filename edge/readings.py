"""The way of the readings through an edge: intake, spool, uplink, wired together."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from typing import Any

import orjson

from edge import contents
from edge.backfill import Backfills
from edge.boot_clock import BootClock
from edge.brokers import in_turn, pauses_s
from edge.commit import READINGS_LANE, GroupCommit, SpoolThread
from edge.errors import SpoolError
from edge.filters import Filters
from edge.intake import LocalBroker, SiteRequests, as_take
from edge.keeping import Keeping
from edge.latest import Latest
from edge.ring import RING, Ring
from edge.running_time import RunningTime
from edge.spool.disk import Disk
from edge.spool.plan import LaneSpec, WhenFull
from edge.spool.records import Record
from edge.spool.spool import LOSSES, Contents, Spool
from edge.uplink.pump import ALERTS, BACKFILL, WINDOWS, Clocks, Pump
from edge.windowing.store import FILE
from edge.windowing.work import EdgeWindows
from streams.adapters.mqtt_link import MqttLink
from streams.core.readings import Readings
from streams.errors import SettingsError
from streams.intake.backfill_wire import progress_topic, request_topic
from streams.intake.coap import serve_coap
from streams.intake.http import serve_http
from streams.intake.mapping import TopicMap
from streams.intake.reception import Reception
from streams.intake.uplink_wire import ack_topic
from streams.log import get_logger
from streams.settings import Edge, EdgeSpool, Settings, Window
from streams.settings.edge import EdgeWindows as EdgeWindowsLimits

_log = get_logger(__name__)
_SMALL_LANE_BYTES = 1 << 24
_EXPIRE_S = 5.0
_REPORT_S = 86_400
"""How long a broker keeps the last report on a backfill."""


def wall_ms() -> int:
    """Return the wall clock, milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def minute_of_day() -> int:
    """Return the minute of the local day."""
    now = time.localtime()
    return now.tm_hour * 60 + now.tm_min


def open_disk(edge: Edge) -> Disk:
    """Return where the spool lies.

    :raises SpoolError: if it cannot be used.
    """
    try:
        return Disk(edge.data / "spool")
    except OSError as error:
        raise SpoolError(f"{edge.data}: cannot hold a spool: {error}") from error


def open_spool(edge: Edge, now_ms: int) -> Spool:
    """Open the spool of an edge, or make it.

    :raises SpoolError: if it cannot be used.
    """
    limits = edge.spool
    contained = Contents(contents.count_devices, contents.thinner(limits.thin_ms))
    return Spool(
        open_disk(edge),
        _lanes(limits, edge.windows),
        contained,
        mint=partial(secrets.token_hex, 8),
        now_ms=now_ms,
        segment_bytes=limits.segment_bytes,
    )


def open_keeping(
    settings: Settings, life: int, wall_ms: Callable[[], int], running_ms: Callable[[], int]
) -> Keeping:
    """Open filters and ring of an edge; a ring that is there is read though no filter is left.

    :param life: of the spool.
    :raises SpoolError: if the ring cannot be used.
    """
    edge, limits = settings.edge, settings.edge.ring
    folder = edge.data / RING
    if not any(one.mode != "all" for one in settings.filters) and not folder.exists():
        return Keeping(wall_ms, running_ms)
    try:
        disk = Disk(folder)
    except OSError as error:
        raise SpoolError(f"{folder}: cannot hold a ring: {error}") from error
    ring = Ring(
        disk,
        max_bytes=limits.max_bytes,
        retention_ms=limits.retention_ms,
        life=life,
        segment_bytes=limits.segment_bytes,
    )
    filters = Filters(settings.filters, limits.max_series, has_windows(settings.windows))
    return Keeping(wall_ms, running_ms, filters, ring, tell_ms=limits.tell_ms)


def has_windows(windows: Sequence[Window]) -> Callable[[str], bool]:
    """Return whether a metric has windows."""
    globs = {glob for window in windows for glob in window.metrics}
    return lru_cache(1 << 16)(lambda metric: any(fnmatchcase(metric, glob) for glob in globs))


def _lanes(limits: EdgeSpool, windows: EdgeWindowsLimits) -> list[LaneSpec]:
    keeps = limits.when_full == "refuse"
    windows_full = WhenFull.REFUSE if keeps else WhenFull.DROP_OLDEST
    return [
        LaneSpec(ALERTS, 0, _SMALL_LANE_BYTES, 0, WhenFull.DROP_OLDEST),
        LaneSpec(LOSSES, 1, _SMALL_LANE_BYTES, 0, WhenFull.REFUSE),
        LaneSpec(READINGS_LANE, 3, limits.max_bytes, limits.expiry_ms, WhenFull(limits.when_full)),
        LaneSpec(WINDOWS, 2, windows.max_bytes, 0, windows_full),
        LaneSpec(BACKFILL, 4, _SMALL_LANE_BYTES, 0, WhenFull.REFUSE),
    ]


class ReadingsPath:
    """Intake, spool and uplink of one site. Make it inside the event loop."""

    def __init__(self, settings: Settings) -> None:
        """Wire the parts.

        :raises SettingsError: if mappings, addresses or logins cannot be used.
        :raises SpoolError: if the spool cannot be used.
        """
        edge = settings.edge
        if edge.local_mqtt in (settings.mqtt, *edge.brokers):
            raise SettingsError(
                f"edge.local_mqtt and mqtt are both {edge.local_mqtt}: the edge would take its own "
                "uplink for readings; the local broker is another one than that of the gateways"
            )
        self._edge = edge
        rng = random.Random()
        self._link = MqttLink(
            in_turn(settings, rng),
            settings.broker,
            f"edge-up-{edge.tenant}-{edge.site}",
            retry_s=pauses_s(settings, rng),
            subscribe=(ack_topic(edge.tenant, edge.site), request_topic(edge.tenant, edge.site)),
        )
        spool = open_spool(edge, wall_ms())
        self._running_ms = RunningTime(open_disk(edge), BootClock(), wall_ms())
        self._keeping = open_keeping(settings, spool.life, wall_ms, self._running_ms)
        gaps_ms = (one.max_gap_ms for one in settings.filters)
        recovered = self._keeping.recover(spool, max(gaps_ms, default=0))
        _log.info("spool and ring", life=spool.life, sent_after_all=recovered)
        self._thread = SpoolThread(spool)
        clocks = Clocks(time.monotonic, wall_ms, minute_of_day)
        self._pump = Pump(self._thread, self._link, edge, clocks, rng)
        self._windows = self._open_windows(settings)
        self._backfills = Backfills(
            self._thread,
            self._keeping.ring,
            wall_ms,
            found=self._pump.asked,
            say=self._tell_backfill,
        )
        self._link.on_message, self._link.on_connect = self._hear, self._pump.connected
        self._store = GroupCommit(
            self._thread,
            self._keeping.keep,
            self._pump.stored,
            linger_s=edge.spool.linger_ms / 1000,
            max_rows=edge.spool.max_rows,
            max_waiting_rows=edge.spool.max_waiting_rows,
        )
        topics = TopicMap(settings.mappings)
        requests = SiteRequests(settings, topics)
        self._reception = Reception(edge.intake, lambda: requests, as_take(self._take))
        self._broker = LocalBroker(settings, topics, self._take) if edge.local_mqtt else None
        self.latest = Latest(edge.max_latest)
        self.coap: Mapping[tuple[str, ...], Any] = {}
        """Resources that are shown over CoAP beside the intake."""
        self.taken: Callable[[Readings], None] = _nobody
        """Is told of readings that are stored."""
        self.local_status: Callable[[], dict[str, Any] | None] = lambda: None
        """Says how local work is; None where there is none."""

    def _open_windows(self, settings: Settings) -> EdgeWindows | None:
        """Return what computes windows, if a filter says so, or did: some may be open yet."""
        is_wanted = any(one.is_windowed for one in settings.filters)
        if not is_wanted and not (self._edge.data / FILE).exists():
            return None
        return EdgeWindows(
            settings,
            self._thread,
            self._keeping,
            (wall_ms, self._running_ms),
            told=self._pump.windowed,
            stored=self._pump.stored,
        )

    async def _take(self, readings: Readings) -> None:
        if self._windows is not None:
            self._windows.check_room(len(readings))
        await self._store(readings)
        self.latest.update(readings)
        self.taken(readings)

    async def tell(self, alerts: Sequence[bytes]) -> None:
        """Put alerts, JSON each, into their lane of the spool.

        :raises SpoolError: if the disk fails.
        """
        now_ms = wall_ms()

        def store(spool: Spool) -> None:
            written_ms = self._running_ms()
            records = [Record(alert, 1, now_ms, written_ms) for alert in alerts]
            spool.append(ALERTS, records, now_ms)

        await self._thread.run(store)
        self._pump.alerted()

    def _hear(self, topic: str, payload: bytes) -> None:
        if topic == request_topic(self._edge.tenant, self._edge.site):
            self._backfills.hear(payload)
        else:
            self._pump.hear(topic, payload)

    def _tell_backfill(self, report: bytes) -> None:
        if self._link.connected:
            topic = progress_topic(self._edge.tenant, self._edge.site)
            self._link.publish(topic, report, expiry_s=_REPORT_S, retain=True)

    @property
    def why_not_ready(self) -> str:
        """Why readings do not come in; empty if they do. The uplink may be down."""
        return self._broker.why_not_ready if self._broker else ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[list[asyncio.Task[None]]]:
        """Carry readings until the block ends; gives the tasks that must not end before."""
        work = [
            self._pump.run(),
            self._keep_house(),
            self._tell_status(),
            self._backfills.run(),
        ]
        if self._broker:
            work.append(self._broker.run())
        tasks = [asyncio.create_task(one) for one in work]
        # It ends by itself: what it has folded is not to be lost.
        folding = [self._windows.start()] if self._windows is not None else []
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(serve_http(self._reception))
                await stack.enter_async_context(serve_coap(self._reception, self.coap))
                self._link.start()
                yield [*tasks, *folding]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._link.stop()
            if self._windows is not None:
                await self._windows.stop()
            await self._let_go()
            self._thread.close()

    async def _let_go(self) -> None:
        """Store what waits in the filters, to be sent by the next life."""
        try:
            await self._thread.run(partial(self._keeping.flush, everything=True))
            await self._thread.run(self._keeping.tell)
            await self._thread.run(lambda _: self._keeping.close())
        except SpoolError as error:
            # It lies in the ring, and the next life sends it from there.
            _log.error("what waits in the filters is not in the spool", error=str(error))

    async def status(self) -> dict[str, Any]:
        """Return how lanes, filters, local work, link and window are."""
        keeping = self._keeping
        lanes, ring = await self._thread.run(lambda spool: (spool.status, keeping.status))
        now_ms = wall_ms()
        spool = self._thread.spool
        return {
            "spool": spool.id,
            "life": spool.life,
            "stored": self._store.stored,
            "filtered": keeping.filtered,
            "confirmed": self._pump.confirmed,
            "given_up": dict(spool.lost),
            "lanes": [
                {
                    "lane": lane.name,
                    "records": lane.records,
                    "readings": lane.rows,
                    "bytes": lane.size,
                    "max_bytes": lane.max_bytes,
                    "lag_ms": now_ms - lane.oldest_ms if lane.records and lane.oldest_ms else 0,
                }
                for lane in lanes
            ],
            "ring": ring
            and {
                "readings": ring.rows,
                "bytes": ring.size,
                "max_bytes": ring.max_bytes,
                "reaches_back_ms": now_ms - ring.oldest_ms if ring.oldest_ms else 0,
                "retention_ms": self._edge.ring.retention_ms,
            },
            "filters": ring
            and {
                "series": keeping.series,
                "max_series": self._edge.ring.max_series,
                "sent": keeping.sent,
                "filtered": keeping.filtered,
            },
            "local": self.local_status(),
            "uplink": {
                "connected": self._link.connected,
                "why": self._link.trouble,
                "unanswered_batches": len(self._pump.window),
                "resent_batches": self._pump.window.resent,
                "round_trip_ms": round(self._pump.window.round_trip_s * 1000, 1),
                "batch_readings": self._pump.size.rows,
                "fresh_readings": self._pump.fresh_rows,
            },
        }

    async def filters(self, device: str) -> list[dict[str, Any]]:
        """Return how the series of a device are filtered."""
        return await self._thread.run(lambda _: self._keeping.filters_of(device))

    async def _keep_house(self) -> None:
        pause_s = min(_EXPIRE_S, (self._edge.spool.expiry_ms or 1e9) / 4_000)
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._thread.run(self._expire)
                self._pump.stored(await self._thread.run(self._keeping.keep_house))
            except SpoolError as error:
                _log.error("spool or ring cannot be kept", error=str(error))

    def _expire(self, spool: Spool) -> None:
        spool.expire(wall_ms(), self._running_ms())
        self._running_ms.note_now_and_then()

    async def _tell_status(self) -> None:
        identity = {"tenant": self._edge.tenant, "site": self._edge.site}
        while True:
            await asyncio.sleep(self._edge.uplink.status_ms / 1000)
            status = {**identity, "at_ms": wall_ms(), **await self.status()}
            self._pump.say_status(orjson.dumps(status))


def _nobody(_readings: Readings) -> None:
    return None
