"""Routes through the real alerts process: a storm, a silence, an acknowledgement, a kill."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import jsonschema
import orjson
import pytest
from aiokafka import AIOKafkaProducer

from streams.alerts.secrets import new_secret
from tests.documents import DOCS
from tests.integration.test_alerts import Receiver
from tests.property.test_alert_states import frame
from tests.waiting import eventually


@pytest.fixture
def routed(own_servers, processes, tmp_path):
    (tmp_path / "secret").write_text(new_secret())
    with Receiver() as receiver:
        toml = tmp_path / "headwater.toml"
        toml.write_text(
            '[[rules]]\nname = "r"\nscore_over = 5.0\nresolve_ms = 0\n'
            f'[[webhooks]]\nname = "hook"\nurl = "http://127.0.0.1:{receiver.port}/"\n'
            f'secret_file = "{tmp_path}/secret"\nallow_private = true\n'
            '[[routes]]\nname = "all"\ngroup_by = ["rule"]\n'
            "group_wait_ms = 1500\ngroup_interval_ms = 1500\n"
            '[alerts]\ninstance_id = "a1"\nmax_listed = 5\n'
            "[worker]\nsilent_ms = 200\n"
        )
        env = own_servers.env(tmp_path, HEADWATER_CONFIG=str(toml))

        def command(*words):
            found = subprocess.run(
                [sys.executable, "-m", "streams.cli.main", "alerts", *words],
                env=env,
                capture_output=True,
                text=True,
                check=True,
            )
            return found.stdout

        def publish(*rows, partition=1):
            asyncio.run(_publish(own_servers.addresses["kafka"], rows, partition))

        yield lambda: processes("alerts", env=env), publish, command, receiver


async def _publish(kafka, rows, partition):
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    await producer.send_and_wait("anomalies", frame(list(rows)), partition=partition)
    await producer.stop()


def bodies(receiver):
    seen = {headers["webhook-id"]: orjson.loads(body) for headers, body in receiver.got}
    return list(seen.values())


def told(receiver):
    """How many alerts each kind of message was about."""
    return [(b["type"], b["data"].get("count", 1)) for b in bodies(receiver)]


def test_a_storm_is_grouped_over_partitions_and_survives_a_kill(routed):
    start, publish, command, receiver = routed
    process = start()
    publish(("first", 5, 9.0))
    eventually(lambda: told(receiver) == [("alert.firing", 1)])
    for partition in range(4):
        publish(*((f"d{partition}-{i}", 5, 9.0) for i in range(500)), partition=partition)
    process.kill()
    process.wait()
    start()
    eventually(lambda: sum(n for _, n in told(receiver)) == 2_001)
    groups = [b for b in bodies(receiver) if b["type"] == "group.changed"]
    assert 1 <= len(groups) < 100, "a message now and then, not one for each alert"
    schema = orjson.loads((DOCS / "group.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    for body in groups:
        jsonschema.validate(body, schema)
        assert len(body["data"]["alerts"]) <= 5

    command("silence", "--device", "s*", "--for", "1h", "--author", "ada")
    (silenced,) = orjson.loads(command("silences", "--json"))
    now_ms = int(time.time() * 1000)
    publish(("s1", now_ms, 9.0), ("t1", now_ms, 9.0))
    eventually(lambda: bodies(receiver)[-1]["data"].get("device") == "t1")

    def listed():
        return orjson.loads(command("list", "--json"))

    def muted():
        return [a["device"] for a in listed() if a.get("muted") == "silenced"] == ["s1"]

    eventually(muted)
    shown = listed()
    command("unsilence", silenced["id"])
    eventually(lambda: bodies(receiver)[-1]["data"].get("device") == "s1")

    (one,) = [a["id"] for a in shown if a["device"] == "t1"]
    command("ack", one, "--author", "ada")
    (other,) = [a["id"] for a in shown if a["device"] == "first"]
    command("resolve", other)
    eventually(lambda: bodies(receiver)[-1]["type"] == "alert.resolved")
    assert bodies(receiver)[-1]["data"]["device"] == "first"

    def acted():
        shown = {a["device"]: a for a in listed()}
        return (shown["t1"].get("acknowledged_by"), shown["first"]["state"]) == ("ada", "resolved")

    eventually(acted, what="what was done is listed")
