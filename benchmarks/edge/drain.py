"""A backlog through mosquitto and gateway into Kafka, while fresh readings keep coming."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
import numpy as np
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.edge.data import steady
from benchmarks.report import Measure, at_least, at_most
from edge import contents
from edge.commit import READINGS_LANE
from edge.readings import open_spool
from edge.spool.records import Record
from streams.adapters import frames, topic_admin
from streams.services import supervisor
from streams.services.ports import free_port
from streams.settings import Edge, EdgeSpool, Topics
from streams.topics import READINGS

_SITE = "bench"
_FRESH_PER_S = 20
_RECORD_ROWS = 2_000
_READY_S, _DRAIN_S = 60.0, 900.0
_MIB = 1 << 20


def drained(backlog: int) -> list[Measure]:
    """Return how fast *backlog* readings reach Kafka, and how long fresh ones take meanwhile."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Path(folder)
        servers = supervisor.up(home / "servers", ["kafka", "mqtt"])
        stack.callback(supervisor.down, home / "servers")
        asyncio.run(topic_admin.apply(servers["kafka"], Topics()))
        _fill(home / "edge", backlog)
        ports = {name: free_port() for name in ("GATEWAY", "EDGE")}
        post = free_port()
        env = {
            **_address(servers),
            **{f"HEADWATER_OPS__{name}_PORT": str(port) for name, port in ports.items()},
            "HEADWATER_EDGE__SITE": _SITE,
            "HEADWATER_EDGE__DATA": str(home / "edge"),
            "HEADWATER_EDGE__SPOOL__MAX_BYTES": str(1 << 33),
        }
        stack.enter_context(process("gateway", env, home, ports["GATEWAY"]))
        intake = {**env, "HEADWATER_EDGE__INTAKE__HTTP_PORT": str(post)}
        began_s = time.monotonic()
        edge = stack.enter_context(process("edge", intake, home, ports["EDGE"]))
        latencies, memory = asyncio.run(_watch(servers["kafka"], ports["EDGE"], post, edge))
        rate = backlog / (time.monotonic() - began_s)
        return [
            at_least(f"{backlog / 1e6:g} M readings up", rate, "readings/s", 100_000),
            at_most("fresh readings meanwhile, p99", quantiles(latencies, n=100)[98], "ms", 1_000),
            Measure("fresh readings meanwhile, median", quantiles(latencies, n=2)[0], "ms"),
            at_most("memory of the edge, greatest", memory / _MIB, "MiB", 250),
        ]


def _fill(folder: Path, readings: int) -> None:
    spool = open_spool(Edge(data=folder, spool=EdgeSpool(max_bytes=1 << 33)), 0)
    for number in range(readings // _RECORD_ROWS):
        payload = contents.pack(steady(_RECORD_ROWS, 100, number * _RECORD_ROWS // 100, 1))
        spool.append(READINGS_LANE, [Record(payload, _RECORD_ROWS, 0, 0)], 0)
    spool.close()


def _address(servers: dict[str, str]) -> dict[str, str]:
    return {f"HEADWATER_{name.upper()}": address for name, address in servers.items()}


@contextmanager
def process(
    name: str, env: dict[str, str], home: Path, port: int
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "streams.cli.main", name]
    with (home / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(command, env={**os.environ, **env}, cwd=home, stderr=log)
    try:
        deadline_s = time.monotonic() + _READY_S
        while not _answers(port):
            if child.poll() is not None or time.monotonic() > deadline_s:
                raise SystemExit(f"{name} does not start: {(home / f'{name}.log').read_text()}")
            time.sleep(0.05)
        yield child
    finally:
        child.terminate()
        child.wait(30)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


async def _watch(
    kafka: str, ops: int, post: int, edge: subprocess.Popen[bytes]
) -> tuple[list[float], int]:
    """Send fresh readings until the backlog is gone; return their latencies and the memory."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    partitions = [TopicPartition(READINGS, n) for n in range(Topics().partitions)]
    consumer.assign(partitions)
    await consumer.seek_to_end(*partitions)
    latencies: list[float] = []
    reading = asyncio.create_task(_latencies(consumer, latencies))
    process, memory, number = psutil.Process(edge.pid), 0, 0
    try:
        async with httpx.AsyncClient(timeout=30) as http:
            deadline_s = time.monotonic() + _DRAIN_S
            while time.monotonic() < deadline_s:
                for _ in range(_FRESH_PER_S):
                    row = {"device": "fresh", "t_ms": _now_ms(), "seq": number, "boot": 1, "m": 1.5}
                    number += 1
                    await http.post(f"http://127.0.0.1:{post}/v1/readings", json=row)
                    await asyncio.sleep(1 / _FRESH_PER_S)
                status: dict[str, Any] = (
                    await http.get(f"http://127.0.0.1:{ops}/v1/status")
                ).json()
                memory = max(memory, process.memory_info().rss)
                waiting = {lane["lane"]: lane["readings"] for lane in status["lanes"]}
                if waiting[READINGS_LANE] < 2 * _FRESH_PER_S:
                    return latencies, memory
        raise SystemExit(f"{waiting} readings are not up after {_DRAIN_S:.0f} s")
    finally:
        reading.cancel()
        await consumer.stop()


async def _latencies(consumer: AIOKafkaConsumer, found: list[float]) -> None:
    """From the event time to the time at which Kafka had it, by Kafka's own stamp."""
    async for record in consumer:
        if not record.value or b"fresh" not in record.value:
            continue
        readings = frames.decode(record.value)
        code = readings.device.values.index("fresh")
        times = readings.t_ms[readings.device.codes == code]
        found.extend(np.subtract(record.timestamp, times).astype(float).tolist())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
