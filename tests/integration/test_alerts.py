"""From scores in Kafka to a signed webhook, through the real alerts process."""

from __future__ import annotations

import asyncio
import base64
import io
import subprocess
import sys
import threading
import time
from collections import deque

import httpx
import jsonschema
import numpy as np
import orjson
import pytest
import uvicorn
from aiokafka import AIOKafkaProducer
from fastapi import FastAPI, Request, Response
from PIL import Image
from standardwebhooks.webhooks import Webhook as Signer

from streams.alerts.guard import pinned_address
from streams.alerts.secrets import new_secret
from streams.errors import DeliveryError
from streams.services.ports import free_port
from tests.documents import DOCS
from tests.lake_rows import write_readings
from tests.property.test_alert_states import frame
from tests.unit.test_edge_alerting import an_alert
from tests.waiting import eventually
from tests.windows import result, results_frame


class Receiver:
    """A webhook receiver in a thread, whose answers a test sets."""

    def __init__(self):
        self.port, self.got, self.answers = free_port(), [], deque()
        self.wants = b""
        """What a message must contain to be taken."""
        app = FastAPI()

        @app.post("/")
        async def take(request: Request) -> Response:
            body = await request.body()
            self.got.append((dict(request.headers), body))
            answer = 204 if self.wants in body else 503
            return Response(status_code=self.answers.popleft() if self.answers else answer)

        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="error")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self):
        self.thread.start()
        eventually(lambda: self.server.started)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join()

    def ids(self):
        return [headers["webhook-id"] for headers, _ in self.got]


TOKEN = "t0p-s3cret"
"""In the address of the receiver, which no log may hold."""


@pytest.fixture
def alerting(own_servers, processes, tmp_path):
    """The alerts process with one endpoint, and a way to publish scores to it."""
    secret = new_secret()
    (tmp_path / "secret").write_text(secret)
    with Receiver() as receiver:
        toml = tmp_path / "headwater.toml"
        toml.write_text(
            '[[rules]]\nname = "r"\nscore_over = 5.0\nresolve_ms = 0\n'
            '[[rules]]\nname = "hot"\nkind = "threshold"\nwindow = "1m"\nover = 90.0\n'
            f'[[webhooks]]\nname = "hook"\nurl = "http://127.0.0.1:{receiver.port}/?token={TOKEN}"\n'
            f'secret_file = "{tmp_path}/secret"\nallow_private = true\nchart = true\n'
            "timeout_ms = 180_000\n"
            "[alerts]\nretry_min_ms = 50\nretry_max_ms = 400\n"
            'instance_id = "a1"\n'
        )
        env = own_servers.env(tmp_path, HEADWATER_CONFIG=str(toml))

        def start():
            return processes("alerts", env=env)

        def publish(*rows, topic="anomalies"):
            headers = []
            if topic == "edge.alerts":
                value = orjson.dumps(rows)
                headers = [("hw-tenant", b"default"), ("hw-site", b"north")]
            else:
                value = frame(list(rows)) if topic == "anomalies" else results_frame(*rows)
            asyncio.run(_publish(own_servers.addresses["kafka"], topic, value, headers))

        def command(*words):
            return subprocess.run(
                [sys.executable, "-m", "streams.cli.main", *words],
                env=env,
                capture_output=True,
                text=True,
                check=True,
            ).stdout

        start.command = command
        yield start, publish, receiver, Signer(secret)
    said = "".join(log.read_text() for log in tmp_path.glob("*.log"))
    assert "partition opened" in said
    assert not [one for one in (TOKEN, secret.removeprefix("whsec_")) if one in said]


async def _publish(kafka, topic, value, headers):
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    await producer.send_and_wait(topic, value, partition=1, headers=headers)
    await producer.stop()


def test_an_alert_is_delivered_signed_and_retried_under_one_id(alerting, tmp_path):
    start, publish, receiver, signer = alerting
    start()
    receiver.answers.extend([503, 500, 302])
    # A chart is an extra: where the machine is too busy to draw it in time, a message has none.
    receiver.wants = b'"chart":'
    now_ms = int(time.time() * 1000)
    before_ms = now_ms - 300_000 + np.arange(30) * 10_000
    names = {"tenant": "t", "site": "s", "device": "pump", "metric": "m"}
    write_readings(tmp_path / "lake", before_ms, np.linspace(0.0, 1.0, 30), **names)
    publish(("pump", now_ms, 9.0))
    eventually(lambda: len(receiver.got) >= 4 and receiver.wants in receiver.got[-1][1])
    receiver.wants = b""
    assert len(set(receiver.ids())) == 1
    headers, body = receiver.got[-1]
    payload = signer.verify(body, headers)
    assert payload["type"] == "alert.firing"
    assert payload["data"]["device"] == "pump"
    chart = payload["data"]["chart"]
    image = Image.open(io.BytesIO(base64.b64decode(chart["base64"], validate=True)))
    image.load()
    assert (image.format, image.size) == ("PNG", (chart["width"], chart["height"]))
    hops = payload["data"]["hops"]
    order = ("event_ms", "received_ms", "kafka_ms", "worker_ms", "queued_ms", "sent_ms")
    assert [hops[name] for name in order] == sorted(hops[name] for name in order)
    publish(("pump", now_ms + 1, 1.0))
    eventually(lambda: len(set(receiver.ids())) == 2)
    assert signer.verify(receiver.got[-1][1], receiver.got[-1][0])["type"] == "alert.resolved"


def test_what_an_edge_tells_is_delivered_once_also_over_a_kill(alerting):
    start, publish, receiver, _ = alerting
    worker = start()
    fires = an_alert()
    over = fires | {"state": "resolved", "resolved_ms": 9_000}
    publish(fires, topic="edge.alerts")
    eventually(lambda: len(receiver.got) == 1)
    worker.kill()
    worker.wait()
    start()
    publish(fires, over, topic="edge.alerts")
    # A kill between a delivery and its note may deliver it again, under the same id.
    eventually(lambda: len(set(receiver.ids())) == 2)
    told = [orjson.loads(body) for _, body in receiver.got]
    assert {one["data"]["id"] for one in told} == {fires["id"]}
    assert {one["type"] for one in told} == {"alert.firing", "alert.resolved"}


def test_a_message_that_a_kill_interrupted_goes_out_under_its_id(alerting):
    start, publish, receiver, _ = alerting
    receiver.wants = b"what no message has"
    process = start()
    publish(("pump", 5, 9.0), ("fan", 5, 9.0))
    eventually(lambda: len(set(receiver.ids())) == 2)
    asked = set(receiver.ids())
    alert = orjson.loads(receiver.got[0][1])["data"]["id"]

    def explained(*options):
        return start.command("rules", "explain", alert, *options)

    def failing():
        (message,) = orjson.loads(explained("--json"))["messages"]
        return message if message.get("attempts") else None

    message = eventually(failing, what="the process says why the message is pending")
    assert (message["status"], message["endpoint"]) == ("pending", "hook")
    assert "503" in message["last_error"]
    assert message["next_try_ms"] > 0
    shown = explained()
    assert "503" in shown and "next try" in shown
    process.kill()
    process.wait()
    told = orjson.loads(explained("--json"))
    assert [one["status"] for one in told["messages"]] == ["pending"]
    assert "why they wait, the alerts process at http" in told["unasked"]
    receiver.wants = b""
    tried = len(receiver.got)
    start()
    eventually(lambda: set(receiver.ids()[tried:]) == asked)


def test_after_410_and_a_kill_messages_are_brought_back_and_a_correction_takes_one_back(alerting):
    start, publish, receiver, signer = alerting
    process = start()
    publish(result(1, 95.0), result(1, 60.0, device="fine"), topic="aggregates")
    eventually(lambda: len(receiver.got) == 1)
    receiver.answers.append(410)
    publish(result(1, 95.0, device="e"), topic="aggregates")
    dead = eventually(lambda: orjson.loads(start.command("alerts", "dead", "--json")))
    assert [(entry["endpoint"], entry["alert"]["device"]) for entry in dead] == [("hook", "e")]
    assert "410 Gone" in dead[0]["reason"]
    process.kill()
    process.wait()
    start()
    publish(result(2, 60.0, device="e"), topic="aggregates")
    eventually(lambda: len(orjson.loads(start.command("alerts", "dead", "--json"))) == 2)
    assert len(receiver.got) == 2  # The process that came back knows that the receiver is gone.
    assert orjson.loads(start.command("alerts", "enable", "--json")) == ["hook"]
    start.command("alerts", "enable", "hook")
    start.command("alerts", "redeliver", dead[0]["id"])
    eventually(lambda: receiver.ids().count(dead[0]["id"]) == 2)
    publish(result(1, 70.0, rank=1), topic="aggregates")
    eventually(lambda: len(set(receiver.ids())) == 3)
    fired, gone = (
        signer.verify(body, headers)["data"]
        for headers, body in (receiver.got[0], receiver.got[-1])
    )
    assert (fired["state"], gone["state"]) == ("firing", "retracted")
    assert fired["id"] == gone["id"]
    assert gone["why"] == "a correction shows that mean of m of d in 1m was 70, not over 90"
    schema = orjson.loads((DOCS / "alert.schema.json").read_bytes())
    for _, body in receiver.got:
        jsonschema.validate(orjson.loads(body), schema)

    def explained():
        told = orjson.loads(start.command("rules", "explain", gone["id"], "--json"))
        return told if {one["status"] for one in told["messages"]} == {"delivered"} else None

    told = eventually(explained, what="all of its messages are noted as delivered")
    assert "delivered" in start.command("rules", "explain", gone["id"])
    assert told["rule"]["over"] == 90.0
    assert "is empty" in told["missing"]


async def test_a_private_address_is_refused_unless_allowed():
    url = httpx.URL("https://127.0.0.1:9/")
    assert await pinned_address(url, allow_private=True) == "127.0.0.1"
    with pytest.raises(DeliveryError, match="allow_private"):
        await pinned_address(url, allow_private=False)
