"""An edge whose wall clock jumps: readings expire by how long they waited, and none is lost."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit

from streams.sim.proxy import Proxy
from tests.integration.edge_child import EdgeChild, edge_node
from tests.integration.gateway_child import gateway, reader, unique
from tests.integration.test_edge_readings import rows
from tests.waiting import eventually, eventually_async
from tests.wall_clock import WallClock

_HOUR_MS = 3_600_000
_EXPIRY_S = 2.0


def given_up_after_s(
    edge: EdgeChild, clock: WallClock, device: str, first: int, to_ms: int
) -> float:
    """Post ten readings and move the clock; return how long until they were given up."""
    began_s = time.monotonic()
    assert edge.post(rows(device, first, 10)).status_code == 202
    clock.move(to_ms)
    eventually(lambda: edge.status()["given_up"] == {"expired": first + 10}, what="expired")
    return time.monotonic() - began_s


def restarted(edge: EdgeChild, **env: str) -> None:
    edge.kill()
    edge.env |= env
    edge.start()


async def test_the_wall_clock_jumps_and_readings_expire_neither_early_nor_late(
    kafka: str, mqtt: str, tmp_path: Path
) -> None:
    parts = urlsplit(mqtt)
    assert parts.hostname and parts.port
    device, clock = unique("dev"), WallClock(tmp_path)
    arrived = await reader(kafka)
    with (
        Proxy(parts.hostname, parts.port) as link,
        gateway(kafka, mqtt, tmp_path, ""),
        edge_node(
            f"mqtt://127.0.0.1:{link.port}",
            tmp_path,
            unique("site"),
            clock=clock,
            HEADWATER_EDGE__SPOOL__EXPIRY_MS=str(int(_EXPIRY_S * 1000)),
            HEADWATER_EDGE__UPLINK__FRESH_MS="1",
            HEADWATER_EDGE__UPLINK__ANSWER_MIN_MS="500",
        ) as edge,
    ):
        link.cut()
        clock.move(_HOUR_MS)
        # An hour back: by the wall clock, they would be younger than nothing for an hour.
        assert given_up_after_s(edge, clock, device, 0, 0) > _EXPIRY_S
        # An hour forth: they would be an hour old at once.
        assert given_up_after_s(edge, clock, device, 10, _HOUR_MS) > _EXPIRY_S
        # With a link nothing waits for seconds, but on a busy machine it may: not for half an hour.
        restarted(edge, HEADWATER_EDGE__SPOOL__EXPIRY_MS=str(_HOUR_MS // 2))
        link.heal()
        eventually(lambda: edge.status()["uplink"]["connected"])
        for first, moved_ms in ((20, 0), (30, -_HOUR_MS), (40, _HOUR_MS), (50, 0)):
            clock.move(moved_ms)
            assert edge.post(rows(device, first, 10)).status_code == 202

        async def complete() -> bool:
            await arrived.read()
            return len(set(arrived.of(device))) >= 40

        await eventually_async(complete)
        eventually(lambda: edge.waiting() == edge.waiting("losses") == 0)
        assert edge.status()["given_up"] == {}
    # Those that were told as given up are not there, the others are.
    assert sorted(set(arrived.of(device))) == [float(n) for n in range(20, 60)]
    await arrived.consumer.stop()
