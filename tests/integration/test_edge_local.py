"""An edge without an uplink: readings in, a local alert and a local command out."""

from __future__ import annotations

from pathlib import Path
from queue import Queue

import orjson
import paho.mqtt.client as mqtt_client
from aiokafka import AIOKafkaConsumer
from standardwebhooks.webhooks import Webhook as Signer

from streams.agents.edge_alerting import make_edge_alerting
from streams.alerts.secrets import new_secret
from streams.services.ports import free_port
from streams.settings import Settings
from streams.testing import Driver
from streams.topics import EDGE_ALERTS
from tests.integration.edge_child import edge_node
from tests.integration.gateway_child import gateway, publish, publisher, unique
from tests.integration.test_alerts import Receiver
from tests.integration.test_edge_readings import broker_of_the_site, coap_get
from tests.waiting import PATIENCE_S, eventually, eventually_async

QUIET = """
[devices]
idle_ms = 3600000
idle_final_ms = 7200000
"""
"""Nothing is told because a device was silent for as long as a busy machine took."""
CONFIG = (
    QUIET
    + """
[[mappings]]
topic = "plant/{device}"
site = "north"

[[windows]]
name = "each"
kind = "sliding"
last = 1

[[rules]]
name = "hot"
kind = "threshold"
window = "each"
metrics = ["t"]
over = 80.0
clear = 70.0
resolve_ms = 0
where = "edge"
commands_every_ms = 0

[[rules.commands]]
name = "fan"
args = {on = true}
topic = "set/{device}"

[[rules.commands]]
when = "resolved"
name = "fan"
args = {on = false}
topic = "set/{device}"

[[rules.commands]]
name = "lamp"
device = "lamp-{device}"
ttl_ms = 3600000
"""
)


def send(client: mqtt_client.Client, first: int, values: list[float]) -> None:
    for n, value in enumerate(values, first):
        told = {"t_ms": 1_750_000_000_000 + n, "boot": 1, "seq": n, "t": value}
        publish(client, "plant/boiler", orjson.dumps(told).decode())


def test_a_site_without_an_uplink_acts_by_itself_also_after_a_kill(tmp_path: Path) -> None:
    coap_port = free_port()
    heard: Queue[tuple[str, dict]] = Queue()
    with (
        broker_of_the_site(tmp_path) as local_broker,
        publisher(local_broker) as client,
        edge_node(
            f"mqtt://127.0.0.1:{free_port()}",
            tmp_path,
            "north",
            CONFIG,
            HEADWATER_EDGE__LOCAL_MQTT=local_broker,
            HEADWATER_EDGE__INTAKE__COAP_PORT=str(coap_port),
        ) as edge,
    ):
        client.on_message = lambda _c, _d, m: heard.put((m.topic, orjson.loads(m.payload)))
        client.subscribe("set/#", qos=1)
        send(client, 0, [20.0, 90.0, 85.0])
        topic, told = heard.get(timeout=PATIENCE_S)
        (alert,) = eventually(lambda: edge.get("/v1/alerts"))
        assert topic == "set/boiler"
        assert (told["name"], told["args"], told["device"]) == ("fan", {"on": True}, "boiler")
        assert (told["alert"], told["state"]) == (alert["id"], "firing")
        assert (alert["rule"], alert["state"], alert["site"]) == ("hot", "firing", "north")
        # The other one waits for its device.
        (lamp,) = eventually(lambda: edge.get("/v1/devices/lamp-boiler/commands"))
        assert (lamp["name"], lamp["state"]) == ("lamp", "ready")
        # What was told waits in the spool for the uplink.
        assert eventually(lambda: edge.waiting("alerts")) == 1
        kept = "/v1/devices/boiler/windows?metric=t&window=each"
        windows = eventually(lambda: len(found := edge.get(kept)) >= 2 and found)
        assert [one["mean"] for one in windows] == [20.0, 90.0]
        local = edge.status()["local"]
        assert local["rules"] == [{"rule": "hot", "where": "edge", "firing": 1, "commands": 2}]
        assert [one["id"] for one in local["newest_firing"]] == [alert["id"]]

        edge.kill()
        edge.start()
        assert eventually(lambda: edge.get("/v1/alerts?state=firing"))[0]["id"] == alert["id"]
        send(client, 3, [20.0, 20.0, 20.0, 20.0])
        topic, told = heard.get(timeout=PATIENCE_S)
        assert (topic, told["args"], told["alert"]) == ("set/boiler", {"on": False}, alert["id"])
        eventually(lambda: edge.get("/v1/alerts")[0]["state"] == "resolved")
        assert eventually(lambda: edge.waiting("alerts") == 2)
        assert heard.empty()


def test_a_site_without_an_uplink_tells_its_own_webhook_also_after_a_kill(tmp_path: Path) -> None:
    secret = new_secret()
    (tmp_path / "secret").write_text(secret)
    rules = CONFIG.split("[[rules.commands]]", maxsplit=1)[0]
    with Receiver() as receiver:
        hook = (
            f'[[edge.webhooks]]\nname = "pager"\nurl = "http://127.0.0.1:{receiver.port}/"\n'
            f'secret_file = "{tmp_path}/secret"\nallow_private = true\n'
        )
        nowhere = f"mqtt://127.0.0.1:{free_port()}"
        with edge_node(nowhere, tmp_path, "north", rules + hook) as edge:
            receiver.answers.extend([503] * 1_000)
            rows = [
                {"device": "boiler", "t_ms": 1_750_000_000_000 + n, "boot": 1, "seq": n, "t": t}
                for n, t in enumerate([20.0, 90.0, 90.0])
            ]
            assert edge.post(rows).status_code == 202
            eventually(lambda: receiver.got)
            (told,) = edge.status()["local"]["webhooks"]
            assert (told["name"], told["waiting"], told["delivered"]) == ("pager", 1, 0)
            edge.kill()
            receiver.answers.clear()
            edge.start()
            eventually(lambda: edge.status()["local"]["webhooks"][0]["delivered"] == 1)
            (alert,) = edge.get("/v1/alerts")
    headers, body = receiver.got[-1]
    data = Signer(secret).verify(body, headers)["data"]
    assert (data["id"], data["state"], data["rule"]) == (alert["id"], "firing", "hot")
    # However often it was tried: one message.
    assert len(set(receiver.ids())) == 1
    # The cloud is told who knows of it already.
    assert alert["told_by_edge"] == ["pager"]


async def test_windows_can_be_read_over_coap(tmp_path: Path) -> None:
    coap_port = free_port()
    with edge_node(
        f"mqtt://127.0.0.1:{free_port()}",
        tmp_path,
        "north",
        QUIET,
        HEADWATER_EDGE__INTAKE__COAP_PORT=str(coap_port),
    ) as edge:
        rows = [
            {"device": "d", "t_ms": 1_750_000_000_000 + n * 60_000, "boot": 1, "seq": n, "m": n}
            for n in range(100)
        ]
        assert edge.post(rows).status_code == 202
        eventually(lambda: edge.metric("recent_windows") == 1)
        # More than one block.
        expected = [float(n) for n in range(39, 99)]
        kept = "/v1/devices/d/windows"
        eventually(lambda: [one["mean"] for one in edge.get(kept)] == expected)
        assert await coap_get(coap_port, "v1/windows/d/m") == edge.get(kept)


async def test_alerts_of_an_edge_reach_their_topic_and_are_told_from_there(
    kafka: str, mqtt: str, tmp_path: Path
) -> None:
    site = unique("site")
    config = CONFIG.split("[[rules.commands]]", maxsplit=1)[0].replace("north", site)
    consumer = AIOKafkaConsumer(EDGE_ALERTS, bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        with gateway(kafka, mqtt, tmp_path, ""), edge_node(mqtt, tmp_path, site, config) as edge:
            rows = [
                {"device": "boiler", "t_ms": 1_750_000_000_000 + n, "boot": 1, "seq": n, "t": t}
                for n, t in enumerate([20.0, 90.0, 90.0])
            ]
            assert edge.post(rows).status_code == 202
            (alert,) = eventually(lambda: edge.get("/v1/alerts"))
            driver = Driver(make_edge_alerting(Settings()))

            async def told() -> bool:
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    for record in records:
                        headers = dict(record.headers)
                        if headers.get("hw-site") == site.encode():
                            driver.send(record.value, at_ms=record.timestamp, headers=headers)
                return bool(driver.output)

            await eventually_async(told)
            eventually(lambda: edge.waiting("alerts") == 0)
        assert driver.rows("alerts") == [alert]
    finally:
        await consumer.stop()
