"""Faults while worker, alerts process and Kafka are killed, receivers fail, and clocks jump."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial

import httpx
import orjson
import pytest
import uvicorn
from aiokafka import AIOKafkaProducer
from fastapi import FastAPI, Request, Response
from standardwebhooks.webhooks import Webhook as Signer
from standardwebhooks.webhooks import WebhookVerificationError

from streams.alerts.secrets import new_secret
from streams.core.placement import partition_of
from streams.services.ports import free_port
from streams.testing import frame
from tests import wall_clock
from tests.waiting import eventually
from tests.wall_clock import WallClock

TICK_MS = 1_000
PARTITIONS = 4
TOML = """
[[windows]]
name = "2s"
size_ms = 2000
horizon_ms = 3600000

[[rules]]
name = "hot"
kind = "threshold"
window = "2s"
over = 90.0
resolve_ms = 2000

[worker]
instance_id = "w1"

[alerts]
instance_id = "a1"
retry_min_ms = 100
retry_max_ms = 2000
"""
HOOK = """
[[webhooks]]
name = "{name}"
url = "http://127.0.0.1:{port}/"
secret_file = "{secret}"
allow_private = true
timeout_ms = 10000
"""


class Receiver:
    """A receiver that keeps what it verified, and does to a request what a test says."""

    def __init__(self, *secrets):
        self.port, self.mode, self.got, self.keys = free_port(), "ok", [], Counter()
        self._signers = [Signer(secret) for secret in secrets]
        app = FastAPI()

        @app.post("/")
        async def take(request: Request) -> Response:
            while self.mode == "hang":  # noqa: ASYNC110 set by another thread
                await asyncio.sleep(0.05)
            if self.mode != "ok":
                return Response(status_code=503)
            body = await request.body()
            key = self._verified(body, dict(request.headers))
            self.keys[key] += 1
            if key is None:
                return Response(status_code=401)
            self.got.append((request.headers["webhook-id"], orjson.loads(body)["data"]))
            return Response(status_code=204)

        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="error")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def _verified(self, body, headers):
        for number, signer in enumerate(self._signers):
            try:
                signer.verify(body, headers)
            except WebhookVerificationError:
                continue
            return number
        return None

    def __enter__(self):
        self._thread.start()
        eventually(lambda: self._server.started)
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join()

    def states(self):
        """(device, state) -> how many different messages said so."""
        once = {identity: (data["device"], data["state"]) for identity, data in self.got}
        return Counter(once.values())


def is_ready(env, name):
    port = env[f"HEADWATER_OPS__{name.upper()}_PORT"]
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").is_success
    except httpx.TransportError:
        return False


@dataclass(frozen=True)
class Play:
    """How much is played. ``happen`` says at which tick what is done."""

    faulty: int
    healthy: int
    ticks: int
    pause_s: float
    begins: int
    """In how many of the first ticks faults begin."""
    happen: dict[int, str]

    def begin(self, device):
        """The tick at which a device's fault begins."""
        return 5 + int(device.partition("-")[2]) % self.begins

    def value(self, device, tick):
        """A fault of four seconds, at a time of its own."""
        begin = self.begin(device)
        return 99.0 if device.startswith("faulty") and begin <= tick < begin + 4 else 20.0


WHOLE = Play(
    faulty=200,
    healthy=20,
    ticks=120,
    pause_s=0.25,
    begins=80,
    happen={
        8: "fail",
        20: "kill worker",
        30: "hang",
        45: "kill alerts",
        55: "both keys",
        60: "ok",
        65: "five hours forth",
        70: "kill kafka",
        80: "three hours back",
        85: "kill worker and alerts",
        95: "new key",
        100: "the right time",
    },
)
SHORT = Play(
    faulty=40,
    healthy=5,
    ticks=40,
    pause_s=0.15,
    begins=24,
    happen={
        6: "fail",
        10: "kill worker",
        14: "hang",
        18: "ok",
        20: "both keys",
        22: "five hours forth",
        24: "kill alerts",
        28: "three hours back",
        32: "new key",
        36: "the right time",
    },
)


async def publish(kafka, begin_ms, play, do, revive):
    names = [f"faulty-{i}" for i in range(play.faulty)]
    names += [f"healthy-{i}" for i in range(play.healthy)]
    places = {name: partition_of("default", name, PARTITIONS) for name in names}
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka, enable_idempotence=True, request_timeout_ms=60_000
    )
    await producer.start()
    try:
        for tick in range(play.ticks):
            if tick in play.happen:
                await asyncio.to_thread(do[play.happen[tick]])
            revive()
            await send(
                producer,
                [
                    (places[name], name, begin_ms + tick * TICK_MS, play.value(name, tick))
                    for name in names
                ],
            )
            await asyncio.sleep(play.pause_s)
    finally:
        await producer.stop()


async def send(producer, rows):
    sent = []
    for partition in {row[0] for row in rows}:
        made = frame(
            *(
                {"device": device, "metric": "celsius", "t_ms": t_ms, "value": value}
                for place, device, t_ms, value in rows
                if place == partition
            )
        )
        sent.append(await producer.send("readings", made, partition=partition))
    await asyncio.gather(*sent)


async def correct(kafka, play, device, begin_ms):
    """Send cold readings into every window of a device's fault: none of them was hot."""
    begins = play.begin(device)
    rows = [
        (partition_of("default", device, PARTITIONS), device, begin_ms + t_ms, 0.0)
        for t_ms in range((begins - 2) * TICK_MS + 1, (begins + 6) * TICK_MS, 100)
    ]
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await send(producer, rows)


@pytest.mark.parametrize(
    "play",
    [
        pytest.param(SHORT, id="short"),
        pytest.param(WHOLE, id="whole", marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
def test_each_fault_fires_once_and_resolves_once_whatever_is_killed(
    play, own_servers, processes, tmp_path
):
    old, new = new_secret(), new_secret()
    secret = tmp_path / "secret"
    secret.write_text(old)
    kafka = own_servers.addresses["kafka"]
    with Receiver(old, new) as steady, Receiver(old, new) as flaky:
        hooks = [
            HOOK.format(name=name, port=one.port, secret=secret)
            for name, one in (("steady", steady), ("flaky", flaky))
        ]
        config = tmp_path / "headwater.toml"
        config.write_text(TOML + "".join(hooks))
        clock = WallClock(tmp_path)
        env = own_servers.env(tmp_path, HEADWATER_CONFIG=str(config), **clock.env())

        def begin(name):
            return processes(name, env=env, module=wall_clock.MODULE)

        children = {name: begin(name) for name in ("worker", "alerts")}

        def kill(name):
            children[name].kill()
            children[name].wait()
            children[name] = begin(name)

        def kill_kafka():
            own_servers.kill("kafka")
            own_servers.start("kafka")

        def revive():
            """What a process that lost Kafka ends with, a supervisor starts again."""
            for name, child in children.items():
                if child.poll() is not None:
                    children[name] = begin(name)
            return True

        def said():
            return "".join(log.read_text() for log in tmp_path.glob("*.log"))

        def turn(mode):
            flaky.mode = mode

        def both_keys():
            eventually(
                lambda: revive() and steady.keys[0],
                every_s=0.2,
                what="a message under the old key alone",
            )
            secret.write_text(f"{new}\n{old}\n")

        clocks = {"off by": 0, "refused before": 0}

        def set_clocks(off_ms):
            """Not before a receiver has refused what was signed with the wrong time until now."""
            if clocks["off by"]:
                eventually(
                    lambda: revive() and steady.keys[None] > clocks["refused before"],
                    every_s=0.2,
                    what="a message that was signed with a wrong time",
                )
            clocks.update({"off by": off_ms, "refused before": steady.keys[None]})
            clock.move(off_ms)

        def recover():
            eventually(lambda: "no answer within" in said(), what="one has hung for too long")
            turn("ok")

        do = {
            **{mode: partial(turn, mode) for mode in ("fail", "hang")},
            "ok": recover,
            "kill worker": lambda: kill("worker"),
            "kill alerts": lambda: kill("alerts"),
            "kill worker and alerts": lambda: (kill("worker"), kill("alerts")),
            "kill kafka": kill_kafka,
            "both keys": both_keys,
            "new key": lambda: secret.write_text(f"{new}\n"),
            "five hours forth": partial(set_clocks, 5 * 3_600_000),
            "three hours back": partial(set_clocks, -3 * 3_600_000),
            "the right time": partial(set_clocks, 0),
        }
        for name in children:
            eventually(lambda name=name: is_ready(env, name), every_s=0.2)
        begin_ms = (int(time.time() * 1000) - 250_000) // 2_000 * 2_000
        asyncio.run(publish(kafka, begin_ms, play, do, revive))
        wanted = Counter(
            {
                (f"faulty-{i}", state): 1
                for i in range(play.faulty)
                for state in ("firing", "resolved")
            }
        )
        for receiver in (steady, flaky):
            eventually(
                lambda receiver=receiver: revive() and receiver.states() == wanted,
                every_s=0.5,
                what=lambda receiver=receiver: ("missing", wanted - receiver.states()),
            )
        asyncio.run(correct(kafka, play, "faulty-3", begin_ms))
        wanted["faulty-3", "retracted"] = 1
        for receiver in (steady, flaky):
            eventually(lambda receiver=receiver: receiver.states() == wanted)
            assert set(receiver.keys) <= {0, 1, None}
        # It took messages before the change of keys, and after.
        assert {0, 1} < set(steady.keys)
        assert "receivers refuse signatures: set the one that is wrong" in said()
        assert not [key for key in (old, new) if key.removeprefix("whsec_") in said()]
