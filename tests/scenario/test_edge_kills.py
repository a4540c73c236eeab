"""Whatever dies between a device and Kafka: what the edge accepted is there, counted once.

Of a filtered device it is there or in the ring, and a line through what is there is near all of it.
``headwater audit`` says so, too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import sin
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import orjson
import pytest

from streams.sim.proxy import Proxy
from tests.conftest import Servers
from tests.integration.edge_child import EdgeChild, edge_node
from tests.integration.gateway_child import Arrived, GatewayChild, gateway, reader, unique
from tests.integration.test_edge_full_disk import small_disk
from tests.waiting import eventually, eventually_async
from tests.wall_clock import WallClock

_ROWS = 50
_HOUR_MS = 3_600_000
_BOUND = 0.6
_FILTER = f"""
[[filters]]
devices = ["thin-*"]
mode = "swinging-door"
bound = {_BOUND}
"""


def wave(n: int) -> float:
    """The value of a filtered device: a course, and noise that a filter leaves out."""
    return 10 * sin(n / 40) + n * 7_919 % 101 / 101


class Sender:
    """Two devices that post numbered readings, and each again until the edge has accepted it."""

    def __init__(self, edge: EdgeChild, device: str) -> None:
        self._edge, self.device = edge, device
        self.thin = f"thin-{device}"
        """The one that the edge filters."""
        self._rng = random.Random(device)
        self._stop = threading.Event()
        self.accepted = 0
        """Readings of each."""
        self.posted = 0
        """Readings of each that were posted, repetitions and failures included."""
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        while not self._stop.is_set():
            done = self._post(range(self.accepted, self.accepted + _ROWS))
            self.accepted += _ROWS if done else 0
            self._stop.wait(0.02 if done else 0.2)

    def _post(self, numbers: Sequence[int]) -> bool:
        rows = [
            {"device": device, "t_ms": 1 + n, "boot": 1, "seq": n, "m": value(n)}
            for device, value in ((self.device, int), (self.thin, wave))
            for n in numbers
        ]
        self.posted += len(numbers)
        try:
            return self._edge.post(rows).status_code == 202
        except httpx.HTTPError:
            return False

    def sends_again(self) -> None:
        """Post what was accepted before once more, in another order."""
        numbers = list(range(max(0, self.accepted - 10 * _ROWS), self.accepted))
        self._rng.shuffle(numbers)
        self._post(numbers)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def sends_more(self) -> None:
        """Wait until the edge takes readings (again)."""
        before = self.accepted
        eventually(lambda: self.accepted >= before + 5 * _ROWS, what="readings accepted")


Act = Callable[[], None]
Story = Callable[[dict[str, Act], Sender], None]


@dataclass(frozen=True)
class Site:
    """All that things can happen to."""

    servers: Servers
    link: Proxy
    cloud: GatewayChild
    edge: EdgeChild
    sender: Sender
    clock: WallClock
    """Of the edge."""
    disk: Path
    """Where the edge keeps what it has; if it is a small one of its own, it gets full, too."""


def acts(site: Site) -> dict[str, Act]:
    """All that can happen, each undone before it returns."""
    servers, link, cloud, edge = site.servers, site.link, site.cloud, site.edge

    def cut_the_link() -> None:
        link.cut()
        eventually(lambda: edge.waiting() >= 10 * _ROWS, what="readings wait")
        link.heal()

    def kill_the_edge() -> None:
        edge.kill()
        edge.start()

    def kill_the_edge_without_a_link() -> None:
        link.cut()
        eventually(lambda: edge.waiting() >= 10 * _ROWS, what="readings wait")
        edge.kill()
        edge.start()
        link.heal()

    def kill_the_gateway() -> None:
        cloud.kill()
        cloud.start()

    def kill_the_broker() -> None:
        servers.kill("mqtt")
        servers.start("mqtt")

    def stop_the_broker_without_a_word() -> None:
        # Connections stay open and nothing comes through them: half-open, as after a pulled cable.
        pid = servers.pid("mqtt")
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: edge.waiting() >= 10 * _ROWS, what="readings wait")
        os.kill(pid, signal.SIGCONT)

    def silence_the_link() -> None:
        link.freeze()
        eventually(lambda: edge.waiting() >= 10 * _ROWS, what="readings wait")
        link.thaw()

    def set_the_clock_forth_and_back() -> None:
        for moved_ms in (_HOUR_MS, -_HOUR_MS, 0):
            site.clock.move(moved_ms)
            site.sender.sends_more()

    def fill_the_disk_and_kill_the_edge() -> None:
        refused = edge.metric("disk_full_total")
        filler = site.disk / "filler"
        fill(filler)
        eventually(lambda: edge.metric("disk_full_total") > refused, what="the disk is full")
        edge.kill()
        edge.start()
        filler.unlink()

    found = (
        cut_the_link,
        kill_the_edge_without_a_link,
        kill_the_gateway,
        kill_the_broker,
        stop_the_broker_without_a_word,
        kill_the_edge,
    )
    more = (silence_the_link, set_the_clock_forth_and_back, fill_the_disk_and_kill_the_edge)
    return {act.__name__: act for act in (*found, *(more if site.disk.is_mount() else ()))}


def fill(path: Path) -> None:
    """Take all the room that a disk has."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4_096))


@contextmanager
def running(servers: Servers, folder: Path) -> Iterator[tuple[dict[str, Act], Sender]]:
    """Gateway, link, edge and a device that sends; what the edge keeps is in ``disk``."""
    clock, disk = WallClock(folder), folder / "disk"
    disk.mkdir(exist_ok=True)
    address = servers.addresses
    parts = urlsplit(address["mqtt"])
    assert parts.hostname and parts.port
    with (
        Proxy(parts.hostname, parts.port) as link,
        gateway(address["kafka"], address["mqtt"], folder, "") as cloud,
        edge_node(
            f"mqtt://127.0.0.1:{link.port}",
            folder,
            unique("site"),
            _FILTER,
            clock=clock,
            HEADWATER_EDGE__DATA=str(disk / "edge"),
            HEADWATER_EDGE__SPOOL__EXPIRY_MS=str(_HOUR_MS // 2),
            HEADWATER_EDGE__RING__MAX_BYTES=str(1 << 24),
            HEADWATER_BROKER__KEEPALIVE_S="2",
        ) as edge,
        Sender(edge, unique("dev")) as sender,
    ):
        yield acts(Site(servers, link, cloud, edge, sender, clock, disk)), sender
        sender.__exit__()
        eventually(lambda: edge.waiting() == 0, what="all is up")
        assert edge.status()["given_up"] == {}
        # An orderly stop stores what waits in the filter, and how much was filtered.
        assert edge.stop() == 0
        edge.start()
        for lane in ("readings", "losses"):
            eventually(lambda: edge.waiting(lane) == 0, what="all is up")  # noqa: B023 called at once
        assert edge.status()["given_up"] == {}


def told(servers: Servers, folder: Path, story: Story) -> Sender:
    """Play a story to its end; return who sent."""
    with running(servers, folder) as (possible, sender):
        story(possible, sender)
    return sender


async def play(servers: Servers, folder: Path, story: Story) -> None:
    """Play a story; then every number that was accepted is in Kafka, and no other."""
    sender = await asyncio.to_thread(told, servers, folder, story)
    device, count = sender.device, sender.accepted
    arrived = await reader(servers.addresses["kafka"])
    try:
        await arrived.consumer.seek_to_beginning()

        async def complete() -> bool:
            await arrived.read()
            return set(arrived.of(device)) >= set(range(count))

        await eventually_async(complete, what=f"{count} readings")
        # The last post may have been stored though its answer was lost with the edge.
        found = set(arrived.of(device))
        assert set(range(count)) <= found <= set(range(count + _ROWS))
        assert numbered_as_sent(arrived, device)
        assert farthest_off(arrived, sender.thin, count) <= 2 * _BOUND + 1e-9
    finally:
        await arrived.consumer.stop()
    report = await audited(servers, folder)
    (counted,) = [one for one in report["devices"] if one["device"] == device]
    assert counted["accepted"] == len(found)
    (thin,) = [one for one in report["edges"] if one["device"] == sender.thin]
    assert count <= thin["measured"] <= sender.posted
    assert thin["measured"] == thin["sent"] + thin["filtered"]
    assert thin["filtered"] > 0
    assert thin["sent"] <= thin["in_log"]


async def audited(servers: Servers, folder: Path) -> dict[str, Any]:
    """Return the report of ``headwater audit``; every identity holds."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "streams.cli.main", "audit", "--json"),
        env=servers.env(folder, HEADWATER_SINK__TARGETS="[]"),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    report: dict[str, Any] = orjson.loads(out)
    assert (process.returncode, report["problems"]) == (0, [])
    return report


def farthest_off(arrived: Arrived, device: str, count: int) -> float:
    """Return how far a filtered device is off the line through its readings in Kafka.

    Each stretch between two corners keeps the bound. With readings that came again, or that a start
    sent once more, the line has further corners of the same stretch, and twice the bound holds.
    """
    points: dict[int, float] = {}
    for _, readings in arrived.readings:
        if device in readings.device.values:
            mine = readings.device.codes == readings.device.values.index(device)
            points |= dict(
                zip(readings.t_ms[mine].tolist(), readings.value[mine].tolist(), strict=True)
            )
    assert all(value == wave(t_ms - 1) for t_ms, value in points.items())
    t_ms = np.asarray(sorted(points))
    wanted = np.arange(count)
    line = np.interp(1 + wanted, t_ms, [points[one] for one in t_ms.tolist()])
    return float(np.abs(line - [wave(n) for n in wanted.tolist()]).max())


def numbered_as_sent(arrived: Arrived, device: str) -> bool:
    """Whether each copy carries the number by which the engine drops it."""
    for _, readings in arrived.readings:
        if device in readings.device.values:
            mine = readings.device.codes == readings.device.values.index(device)
            if not np.array_equal(readings.seq[mine], readings.value[mine].astype(np.int64)):
                return False
    return True


async def test_each_thing_that_can_die_dies_once(own_servers: Servers, tmp_path: Path) -> None:
    def story(possible: dict[str, Act], sender: Sender) -> None:
        for act in possible.values():
            sender.sends_more()
            act()
        sender.sends_more()

    await play(own_servers, tmp_path, story)


@pytest.mark.long
@pytest.mark.timeout(0)
async def test_things_die_at_random_for_minutes(
    own_servers: Servers, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    seed = int(os.environ.get("HEADWATER_TEST_SEED", random.randrange(1 << 32)))
    logging.getLogger(__name__).warning("HEADWATER_TEST_SEED=%d", seed)

    def story(possible: dict[str, Act], sender: Sender) -> None:
        rng = random.Random(seed)
        end_s = time.monotonic() + 60 * pytestconfig.getoption("--minutes")
        while time.monotonic() < end_s:
            time.sleep(rng.uniform(0, 2))  # when it dies is the point
            possible[rng.choice(sorted(possible))]()
            sender.sends_again()
            sender.sends_more()

    with small_disk(tmp_path / "disk", "64m"):
        await play(own_servers, tmp_path, story)
