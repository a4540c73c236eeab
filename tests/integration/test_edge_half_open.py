"""A link that is open and silent: the edge notices, and what it sent into it counts once."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from streams.sim.proxy import Proxy
from tests.integration.edge_child import EdgeChild, edge_node
from tests.integration.gateway_child import gateway, reader, unique
from tests.integration.test_edge_readings import all_arrived, rows
from tests.waiting import eventually

_KEEPALIVE_S = 2
_ROWS = 100
_NOTICE_S = 60.0
"""Far above twice the keepalive, after which the MQTT client gives up; far below TCP's minutes."""


def sent_into_silence(edge: EdgeChild, link: Proxy, device: str) -> int:
    """Freeze the link and post, until the edge has sent that twice; return the next number.

    The broker gets all of it, from the old connection too.
    """
    first = 0
    while True:
        eventually(lambda: edge.status()["uplink"]["connected"])
        assert edge.post(rows(device, first, _ROWS)).status_code == 202
        eventually(lambda: edge.waiting() == 0)
        before = edge.status()["uplink"]["resent_batches"]
        link.freeze()
        assert edge.post(rows(device, first + _ROWS, _ROWS)).status_code == 202
        first += 2 * _ROWS

        def settled(before: int = before) -> str:
            up = edge.status()["uplink"]
            if up["resent_batches"] > before:
                return "sent again"
            return "" if up["connected"] else "noticed"

        if eventually(settled) == "sent again":
            return first
        # A machine that is busy for so long notices the silence before it sends again.
        link.thaw()


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
            HEADWATER_EDGE__UPLINK__ANSWER_MAX_MS="200",
        ) as edge,
    ):
        first = sent_into_silence(edge, link, device)
        eventually(lambda: not edge.status()["uplink"]["connected"], within_s=_NOTICE_S)
        assert edge.waiting() == _ROWS
        link.thaw()
        assert edge.post(rows(device, first, _ROWS)).status_code == 202
        await all_arrived(arrived, device, first + _ROWS)
        eventually(lambda: edge.waiting() == 0)
        assert edge.status()["given_up"] == {}
    for _, readings in arrived.readings:
        mine = [n for n, name in enumerate(readings.device.to_list()) if name == device]
        # By its number the engine knows a copy, however often and in which order it came.
        assert [int(readings.value[n]) for n in mine] == [int(readings.seq[n]) for n in mine]
    await arrived.consumer.stop()
