"""An edge whose wall clock jumps: readings expire by how long they waited, and none is lost."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit

from streams.sim.proxy import Proxy
from tests.integration.edge_child import EdgeChild, WallClock, edge_node
from tests.integration.gateway_child import gateway, reader, unique
from tests.integration.test_edge_readings import rows
from tests.waiting import eventually, eventually_async

_HOUR_MS = 3_600_000
_EXPIRY_S = 2.0


def given_up_after_s(edge: EdgeChild, device: str, first: int) -> float:
    """Post ten readings; return how long they waited before they were given up."""
    began_s = time.monotonic()
    assert edge.post(rows(device, first, 10)).status_code == 202
    eventually(lambda: edge.status()["given_up"] == {"expired": first + 10}, what="expired")
    return time.monotonic() - began_s


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
        given_up_after_s(edge, device, 0)
        clock.move(0)  # an hour back: what is stamped now is younger than what was
        given_up_after_s(edge, device, 10)
        posted_s = time.monotonic()
        assert edge.post(rows(device, 20, 10)).status_code == 202
        clock.move(_HOUR_MS)
        eventually(lambda: edge.status()["given_up"] == {"expired": 30})
        assert time.monotonic() - posted_s > _EXPIRY_S
        link.heal()
        eventually(lambda: edge.status()["uplink"]["connected"])
        for first, moved_ms in ((30, 0), (40, -_HOUR_MS), (50, _HOUR_MS), (60, 0)):
            clock.move(moved_ms)
            assert edge.post(rows(device, first, 10)).status_code == 202

        async def complete() -> bool:
            await arrived.read()
            return len(set(arrived.of(device))) >= 40

        await eventually_async(complete)
        eventually(lambda: edge.waiting() == edge.waiting("losses") == 0)
        assert edge.status()["given_up"] == {"expired": 30}
    # Those that were told as given up are not there, the others are.
    assert sorted(set(arrived.of(device))) == [float(n) for n in range(30, 70)]
    await arrived.consumer.stop()
