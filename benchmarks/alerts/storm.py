"""10,000 alerts in a second through the real alerts process, beside an endpoint that hangs."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
from aiokafka import AIOKafkaProducer

from benchmarks.report import Measure, at_least, at_most
from streams.adapters import results, topic_admin
from streams.alerts.secrets import write_secret
from streams.core.readings import Labels
from streams.core.results import Scores
from streams.demo.processes import Processes
from streams.services import supervisor
from streams.services.ports import HOST, free_port
from streams.settings import Settings

_ALERTS, _FRAME = 10_000, 500
_SINGLE, _SINGLE_EVERY_S = 100, 0.05
_PATIENCE_S = 120.0
_SETTINGS = """[[rules]]
name = "anomaly"

[[webhooks]]
name = "good"
url = "http://127.0.0.1:{good}/"
secret_file = "{home}/secret"
allow_private = true

[[webhooks]]
name = "hangs"
url = "http://127.0.0.1:{hangs}/"
secret_file = "{home}/secret"
allow_private = true

[[routes]]
name = "storm"
sites = ["storm"]
group_by = ["rule", "site"]
group_wait_ms = 2000
group_interval_ms = 5000
"""


def measure_storm(seed: int) -> list[Measure]:
    """Return whether all arrive, in how many messages, and what the process took for it."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Path(folder)
        addresses = stack.enter_context(supervisor.services(home / "servers", ["kafka"]))
        asyncio.run(topic_admin.apply(addresses["kafka"], Settings().topics))
        processes = _start(stack, home, addresses["kafka"])
        child = processes.children["alerts"]
        process = psutil.Process(child.process.pid)
        single = asyncio.run(_singles(addresses["kafka"]))
        received = _wait(home, lambda lines: len(_singles_of(lines)) == _SINGLE)
        waited = [(ns - single[device]) / 1e6 for device, ns in _singles_of(received).items()]
        before_mib = process.memory_info().rss / 2**20
        began = time.time_ns()
        asyncio.run(_storm(addresses["kafka"], seed))
        published_s = (time.time_ns() - began) / 1e9
        received = _wait(home, lambda lines: _told(lines) >= _ALERTS)
        took_s = (max(line["received_ns"] for line in received) - began) / 1e9
        groups = [line for line in received if _is_storm(line)]
        p99 = float(np.percentile(waited, 99)) if waited else float("inf")
        return [
            at_least("alerts told, of 10,000 in a storm", _told(received), "", _ALERTS),
            at_most("messages that tell them", len(groups), "", 10),
            Measure("published in", round(published_s, 2), "s"),
            Measure("all told after", round(took_s, 2), "s"),
            Measure("memory of the alerts process, before", round(before_mib, 1), "MiB"),
            Measure("the same, after", round(process.memory_info().rss / 2**20, 1), "MiB"),
            at_least("single alerts told beside one that hangs", len(waited), "", _SINGLE),
            at_most("Kafka to webhook beside one that hangs, p99", p99, "ms", 1000.0),
        ]


def _start(stack: ExitStack, home: Path, kafka: str) -> Processes:
    good, port = free_port(), free_port()
    hangs = stack.enter_context(_hanging())
    write_secret(home / "secret")
    (home / "headwater.toml").write_text(_SETTINGS.format(good=good, hangs=hangs, home=home))
    out = stack.enter_context((home / "received.jsonl").open("wb"))
    listener = subprocess.Popen(
        [
            *(sys.executable, "-m", "streams.cli.main", "webhooks", "listen", "--json"),
            *("--secret-file", str(home / "secret"), "--port", str(good)),
        ],
        stdout=out,
    )
    stack.callback(listener.kill)
    env = {
        "HEADWATER_CONFIG": str(home / "headwater.toml"),
        "HEADWATER_STATE": str(home),
        "HEADWATER_KAFKA": kafka,
        "HEADWATER_OPS__ALERTS_PORT": str(port),
    }
    (home / "logs").mkdir()
    processes = Processes(env, {"alerts": port}, home / "logs", {})
    stack.callback(processes.stop_all)
    processes.start("alerts")
    processes.wait_ready("alerts")
    return processes


@contextmanager
def _hanging() -> Iterator[int]:
    """Listen, accept, and never answer; yields the port."""
    with socket.create_server((HOST, 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for one in held:
            one.close()


async def _singles(kafka: str) -> dict[str, int]:
    """Publish alerts one by one; return device -> time in ns."""
    sent: dict[str, int] = {}
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for i in range(_SINGLE):
            device = f"single-{i}"
            sent[device] = time.time_ns()
            await producer.send_and_wait("anomalies", _frame([device], "calm"), partition=i % 4)
            await asyncio.sleep(_SINGLE_EVERY_S)
    return sent


async def _storm(kafka: str, seed: int) -> None:
    names = [f"d{seed}-{i}" for i in range(_ALERTS)]
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        sent = [
            await producer.send(
                "anomalies", _frame(names[at : at + _FRAME], "storm"), partition=at // _FRAME % 4
            )
            for at in range(0, _ALERTS, _FRAME)
        ]
        await asyncio.gather(*sent)


def _frame(devices: list[str], site: str) -> bytes:
    n = len(devices)
    now_ms = np.full(n, time.time_ns() // 1_000_000, np.int64)
    scores = Scores(
        tenant=Labels.constant("default", n),
        site=Labels.constant(site, n),
        device=Labels.of(devices),
        metric=Labels.constant("m", n),
        detector=Labels.constant("bench/1", n),
        t_ms=now_ms,
        received_ms=now_ms,
        kafka_ms=now_ms,
        value=np.full(n, 99.0),
        score=np.full(n, 40.0),
        expected=np.zeros(n),
        spread=np.ones(n),
        why=Labels.constant("", n),
        offset=np.zeros(n, np.int64),
        row=np.arange(n, dtype=np.int32),
    )
    return results.encode(scores, code="bench", settings="bench")


def _wait(home: Path, done: Any) -> list[dict[str, Any]]:
    """Return what was received, when it is enough or time is up."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        text = (home / "received.jsonl").read_bytes()
        lines = [orjson.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
        if done(lines) or time.monotonic() > deadline:
            return lines
        time.sleep(0.2)


def _is_storm(line: dict[str, Any]) -> bool:
    data = line["payload"]["data"]
    site: str = data["labels"]["site"] if "labels" in data else data["site"]
    return site == "storm"


def _told(lines: list[dict[str, Any]]) -> int:
    once = {line["id"]: line["payload"]["data"] for line in lines if _is_storm(line)}
    return sum(data.get("count", 1) for data in once.values() if data.get("reason") != "repeated")


def _singles_of(lines: list[dict[str, Any]]) -> dict[str, int]:
    """Return device -> time of the first receipt in ns."""
    found: dict[str, int] = {}
    for line in lines:
        if not _is_storm(line):
            found.setdefault(line["payload"]["data"]["device"], line["received_ns"])
    return found
