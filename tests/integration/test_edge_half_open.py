"""A link that is open and silent: the edge notices, and what it sent into it counts once."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from streams.sim.proxy import Proxy
from tests.integration.edge_child import edge_node
from tests.integration.gateway_child import gateway, reader, unique
from tests.integration.test_edge_readings import all_arrived, rows
from tests.waiting import eventually

_KEEPALIVE_S = 1
_NOTICE_S = 60.0
"""Far above twice the keepalive, after which the MQTT client gives up; far below TCP's minutes."""


async def test_a_link_that_falls_silent_is_noticed_and_nothing_is_lost_or_counted_twice(
    kafka: str, mqtt: str, tmp_path: Path
) -> None:
    parts = urlsplit(mqtt)
    assert parts.hostname and parts.port
    device = unique("dev")
    arrived = await reader(kafka)
    with (
        Proxy(parts.hostname, parts.port) as link,
        gateway(kafka, mqtt, tmp_path, ""),
        edge_node(
            f"mqtt://127.0.0.1:{link.port}",
            tmp_path,
            unique("site"),
            HEADWATER_BROKER__KEEPALIVE_S=str(_KEEPALIVE_S),
            HEADWATER_EDGE__UPLINK__ANSWER_MIN_MS="200",
        ) as edge,
    ):
        eventually(lambda: edge.status()["uplink"]["connected"])
        assert edge.post(rows(device, 0, 100)).status_code == 202
        eventually(lambda: edge.waiting() == 0)
        link.freeze()
        assert edge.post(rows(device, 100, 100)).status_code == 202
        # Sent again into the silence: the broker gets all of it, from the old connection too.
        eventually(lambda: edge.status()["uplink"]["resent_batches"] > 0)
        eventually(lambda: not edge.status()["uplink"]["connected"], within_s=_NOTICE_S)
        assert edge.waiting() == 100
        link.thaw()
        assert edge.post(rows(device, 200, 100)).status_code == 202
        await all_arrived(arrived, device, 300)
        eventually(lambda: edge.waiting() == 0)
        assert edge.status()["given_up"] == {}
    for _, readings in arrived.readings:
        mine = [n for n, name in enumerate(readings.device.to_list()) if name == device]
        # By its number the engine knows a copy, however often and in which order it came.
        assert [int(readings.value[n]) for n in mine] == [int(readings.seq[n]) for n in mine]
    await arrived.consumer.stop()
