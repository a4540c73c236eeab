"""The gateway on one core: messages of one reading, and batches of edges, into Kafka with acks=all.

What it can carry is measured on a backlog: the broker holds all messages before the gateway starts,
so that nothing but broker, gateway and Kafka takes part. The gateway is bound to one core; broker
and Kafka have what is left. Then messages come at a steady rate, and the time from receipt to
Kafka's confirmation is told.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.gateway.load import edge_batches, publish, single_readings
from benchmarks.report import Measure, at_least, at_most
from streams.adapters import topic_admin
from streams.services import supervisor
from streams.services.ports import free_port
from streams.settings import Settings

_SINGLE = 200_000
_BATCHES, _ROWS = 10_000, 500
_RATE = 5_000.0
_SETTINGS = '[[mappings]]\ntopic = "bench/{device}"\n'
_PATIENCE_S = 300.0
_BUCKET = re.compile(r'headwater_gateway_lag_seconds_bucket\{le="([^"]+)"\} (\S+)')


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway process on one core."""

    process: subprocess.Popen[bytes]
    port: int

    def metric(self, name: str) -> float:
        """Return a metric; 0 while there is none."""
        found = re.search(rf"^headwater_gateway_{name} (\S+)$", self.text(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def text(self) -> str:
        """Return all metrics; nothing while the process starts."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=5).text
        except httpx.HTTPError:
            return ""

    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def wait(self, enough: Callable[[], bool]) -> None:
        """Wait until *enough*."""
        deadline = time.monotonic() + _PATIENCE_S
        while not enough():
            assert time.monotonic() < deadline, "the gateway has stopped to carry"
            time.sleep(0.02)


def run(*, seconds: float) -> list[Measure]:
    """Measure, and return the figures."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-bench-")))
        addresses = supervisor.up(home / "servers")
        stack.callback(supervisor.down, home / "servers")
        asyncio.run(topic_admin.apply(addresses["kafka"], Settings().topics))
        (home / "headwater.toml").write_text(_SETTINGS)
        with _gateway(home, addresses):
            pass  # its session at the broker is there from now on
        publish(addresses["mqtt"], single_readings(_SINGLE), per_s=None)
        single = _drain(home, addresses, _SINGLE)
        publish(addresses["mqtt"], edge_batches(_BATCHES, _ROWS), per_s=None)
        batches = _drain(home, addresses, _BATCHES * _ROWS)
        with _gateway(home, addresses) as gateway:
            count = int(_RATE * seconds)
            began, before = time.monotonic(), gateway.cpu_s()
            publish(addresses["mqtt"], single_readings(count), per_s=_RATE)
            gateway.wait(lambda: gateway.metric("readings_total") >= count)
            rate, cores = count / (time.monotonic() - began), gateway.cpu_s() - before
            p99_s = _quantile(gateway.text(), 0.99)
        return [
            at_least("single readings from a backlog", single[0], "messages/s", _RATE),
            Measure("the same, per CPU second of the gateway", round(single[1]), "messages"),
            at_least("batches of 500 of an edge, zstd", batches[0], "readings/s", 100_000),
            Measure("the same, per CPU second of the gateway", round(batches[1]), "readings"),
            at_least("single readings at a steady rate", rate, "messages/s", 0.97 * _RATE),
            at_most("receipt to confirmation, p99 is within", 1_000 * p99_s, "ms", 1_000),
            Measure("CPU of the gateway", round(cores / seconds, 3), "cores"),
            Measure("memory of the gateway", round(batches[2] / 2**20), "MiB"),
        ]


def _drain(home: Path, addresses: dict[str, str], readings: int) -> tuple[float, float, float]:
    """Return readings per second, per CPU second of the gateway, and its memory at the end."""
    with _gateway(home, addresses, wait=False) as gateway:
        gateway.wait(lambda: gateway.metric("readings_total") > 0)
        began, cpu_s, first = time.monotonic(), gateway.cpu_s(), gateway.metric("readings_total")
        gateway.wait(lambda: gateway.metric("readings_total") >= readings)
        rest = readings - first
        spent_s = time.monotonic() - began
        memory = psutil.Process(gateway.process.pid).memory_info().rss
        return rest / spent_s, rest / (gateway.cpu_s() - cpu_s), memory


@contextmanager
def _gateway(home: Path, addresses: dict[str, str], *, wait: bool = True) -> Iterator[Gateway]:
    port = free_port()
    env = {
        **os.environ,
        "HEADWATER_CONFIG": str(home / "headwater.toml"),
        "HEADWATER_STATE": str(home),
        **{f"HEADWATER_{name.upper()}": found for name, found in addresses.items()},
        "HEADWATER_GATEWAY__CLIENT_ID": "bench",
        "HEADWATER_OPS__GATEWAY_PORT": str(port),
    }
    with (home / "gateway.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "streams.cli.main", "gateway"], env=env, stderr=log
        )
    os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
    gateway = Gateway(process, port)
    try:
        if wait:
            gateway.wait(lambda: gateway.metric("brokers_ready") == 1)
        yield gateway
    finally:
        process.terminate()
        process.wait(30)


def _quantile(text: str, share: float) -> float:
    """Return the bound of the bucket that holds a quantile, in seconds."""
    buckets = [(float(bound), float(count)) for bound, count in _BUCKET.findall(text)]
    return next(bound for bound, count in buckets if count >= share * buckets[-1][1])
