"""A backlog that takes longer on a narrow link than any wait here, and what passes it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from aiokafka import AIOKafkaConsumer

from streams.sim.proxy import Proxy
from streams.topics import COMMANDS, TWIN_UPDATES
from tests import web
from tests.integration.edge_child import edge_node
from tests.integration.gateway_child import gateway, unique
from tests.integration.test_edge_readings import rows
from tests.waiting import PATIENCE_S, eventually, eventually_async

_BYTES_PER_S = 125
_ROWS, _ROWS_PER_POST = 20_000, 2_000
_LEAST_S = _ROWS * 53 / 8 / _BYTES_PER_S
"""The backlog takes longer: no code is shorter than the 53 random bits in each value."""
assert _LEAST_S > 5 * PATIENCE_S


def _incompressible(device: str, first: int, chance: Random) -> list[dict]:
    return [row | {"m": chance.random()} for row in rows(device, first, _ROWS_PER_POST)]


async def test_twins_and_commands_pass_the_backlog(kafka: str, mqtt: str, tmp_path: Path) -> None:
    parts = urlsplit(mqtt)
    assert parts.hostname and parts.port
    device, site = unique("dev"), unique("site")
    consumer = AIOKafkaConsumer(TWIN_UPDATES, COMMANDS, bootstrap_servers=kafka)
    await consumer.start()
    heard: set[str] = set()

    async def both() -> bool:
        for place, records in (await consumer.getmany(timeout_ms=100)).items():
            heard.update(place.topic for one in records if device.encode() in (one.key or b""))
        return heard == {TWIN_UPDATES, COMMANDS}

    with (
        Proxy(parts.hostname, parts.port) as link,
        gateway(kafka, mqtt, tmp_path, ""),
        edge_node(
            f"mqtt://127.0.0.1:{link.port}",
            tmp_path,
            site,
            HEADWATER_EDGE__UPLINK__MAX_BYTES_PER_S=str(_BYTES_PER_S),
            HEADWATER_EDGE__UPLINK__MAX_BATCH_BYTES="500",
            HEADWATER_EDGE__UPLINK__FRESH_MS="1",
        ) as edge,
    ):
        link.cut()
        chance = Random(1)
        for first in range(0, _ROWS, _ROWS_PER_POST):
            assert edge.post(_incompressible(device, first, chance)).status_code == 202
        backlog = edge.waiting()
        link.heal()
        eventually(lambda: edge.waiting() < backlog, what="the backlog goes up")
        base = f"http://127.0.0.1:{edge.port}/v1/devices/{device}"
        edited = web.patch(f"{base}/twin", json={"tags.room": "hall 3"})
        assert edited.status_code == 200
        issued = web.post(f"{base}/commands", json={"name": "beep", "id": "e1"})
        assert issued.is_success
        await eventually_async(both)
        assert edge.waiting() > 0
    await consumer.stop()
