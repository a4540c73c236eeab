"""Local work: what a reading costs, and how long a site takes from a reading to its command."""

from __future__ import annotations

import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from queue import Queue
from statistics import quantiles
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import orjson
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.edge.data import START_MS, steady
from benchmarks.edge.drain import process
from benchmarks.report import Measure, at_most
from edge.local.evaluation import Evaluation
from edge.local.recent import RecentWindows
from streams.services import supervisor
from streams.services.ports import free_port
from streams.settings import Rule, Settings, Window

_DEVICES = 100
_ROUNDS = 300
_WAIT_S = 10.0
_CONFIG = """
[[mappings]]
topic = "plant/{device}"
site = "bench"
[[windows]]
name = "each"
kind = "sliding"
last = 1
[[rules]]
name = "hot"
kind = "threshold"
window = "each"
over = 80.0
resolve_ms = 0
where = "edge"
commands_every_ms = 0
[[rules.commands]]
name = "fan"
topic = "set/{device}"
[[rules.commands]]
when = "resolved"
name = "fan"
topic = "set/{device}"
"""


def worked(seconds: float) -> list[Measure]:
    """Return costs of a reading, latencies of an action, and of a look into the cache."""
    costs = [_cost(rows, min(seconds, 5.0)) for rows in (1, 50, 2_000)]
    latencies = _acted()
    return [
        *costs,
        Measure("sensor to local action, median", quantiles(latencies, n=2)[0], "ms"),
        at_most("sensor to local action, p99", quantiles(latencies, n=100)[98], "ms", 50),
        at_most("recent windows of a series, in process, p99", _looked_up(), "ms", 1),
    ]


def _settings() -> Settings:
    rule = {"where": "edge", "metrics": ["temperature"]}
    return Settings(
        windows=[Window(name="1m", size_ms=60_000, horizon_ms=60_000)],
        rules=[
            Rule(name="hot", kind="threshold", window="1m", over=80.0, **rule),
            Rule(name="strange", **rule),
        ],
    )


def _cost(rows: int, seconds: float) -> Measure:
    """Evaluate batches of so many readings: one window, one threshold, scores."""
    evaluation, taken, number = Evaluation(_settings()), 0, 0
    size = max(rows, _DEVICES)
    parts = [steady(size, _DEVICES, n * size // _DEVICES, 1) for n in range(500)]
    batches = [
        part.take(np.arange(at, at + rows))
        for part in parts
        for at in range(0, len(part) - rows + 1, rows)
    ]
    began_s = time.process_time()
    while time.process_time() - began_s < seconds and number < len(batches):
        evaluation.take(batches[number], START_MS + number)
        taken += rows
        number += 1
    spent_us = (time.process_time() - began_s) * 1e6 / taken
    return Measure(f"evaluation of a reading, batches of {rows:,}", spent_us, "us of CPU")


def _looked_up() -> float:
    """Return the p99 of reading 60 windows of one of 1,000 series, as JSON, ms."""
    recent, evaluation = RecentWindows(60, 20_000), Evaluation(_settings())
    for minute in range(62):
        for part in evaluation.take(steady(1_000, 1_000, minute * 60, 1), START_MS).windows:
            recent.update(part)
    times = []
    for n in range(10_000):
        began_s = time.perf_counter()
        orjson.dumps(recent.device(f"device-{n % 1_000:04d}", "temperature"))
        times.append((time.perf_counter() - began_s) * 1_000)
    return quantiles(times, n=100)[98]


def _acted() -> list[float]:
    """Return times from the publication of a reading to the arrival of its command, ms.

    Through the site's mosquitto both ways, the spool's disk between, with the uplink down. The
    reading is the one that closes the window that fires or clears.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Path(folder)
        broker = supervisor.up(home / "servers", ["mqtt"])["mqtt"]
        stack.callback(supervisor.down, home / "servers")
        (home / "headwater.toml").write_text(_CONFIG)
        port = free_port()
        env = {
            "HEADWATER_CONFIG": str(home / "headwater.toml"),
            "HEADWATER_MQTT": f"mqtt://127.0.0.1:{free_port()}",
            "HEADWATER_EDGE__LOCAL_MQTT": broker,
            "HEADWATER_EDGE__SITE": "bench",
            "HEADWATER_EDGE__DATA": str(home / "edge"),
            "HEADWATER_OPS__EDGE_PORT": str(port),
        }
        stack.enter_context(process("edge", env, home, port))
        arrived: Queue[float] = Queue()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.on_message = lambda *_: arrived.put(time.perf_counter())
        client.on_socket_open = lambda _c, _d, opened: cast(socket.socket, opened).setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        parts = urlsplit(broker)
        client.connect(parts.hostname or "", parts.port or 1883)
        client.subscribe("set/#", qos=1)
        client.loop_start()
        stack.callback(client.loop_stop)
        stack.callback(client.disconnect)
        times: list[float] = []
        for n in range(_ROUNDS):
            _send(client, 3 * n, 90.0)
            for more in (1, 2):  # the first closes the window of 90, the second its own
                began_s = _send(client, 3 * n + more, 20.0)
                times.append((arrived.get(timeout=_WAIT_S) - began_s) * 1_000)
        return times


def _send(client: mqtt.Client, number: int, value: float) -> float:
    told = {"t_ms": START_MS + number, "boot": 1, "seq": number, "t": value}
    began_s = time.perf_counter()
    client.publish("plant/boiler", orjson.dumps(told), qos=1).wait_for_publish(_WAIT_S)
    return began_s
