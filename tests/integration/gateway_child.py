"""A gateway as a child process, a publisher, and a reader of what reached Kafka."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import paho.mqtt.client as mqtt
from aiokafka import AIOKafkaConsumer, TopicPartition
from paho.mqtt.enums import CallbackAPIVersion

from streams.adapters import frames
from streams.core.readings import Readings
from streams.services.ports import free_port
from streams.settings import Topics
from streams.topics import READINGS, REJECTED
from tests import web
from tests.waiting import PATIENCE_S, eventually

PARTITIONS = Topics().partitions


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


@dataclass
class GatewayChild:
    """One gateway process; its broker session lives on between starts."""

    kafka: str
    mqtt: str
    config: Path
    group: str = field(default_factory=lambda: unique("group"))
    client_id: str = field(default_factory=lambda: unique("gw"))
    env: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> GatewayChild:
        variables = {
            "HEADWATER_CONFIG": str(self.config),
            "HEADWATER_KAFKA": self.kafka,
            "HEADWATER_MQTT": self.mqtt,
            "HEADWATER_GATEWAY__GROUP": self.group,
            "HEADWATER_GATEWAY__CLIENT_ID": self.client_id,
            "HEADWATER_GATEWAY__SESSION_EXPIRY_S": "120",
            "HEADWATER_OPS__GATEWAY_PORT": str(self.port),
            **self.env,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streams.cli.main", "gateway"],
                env={**os.environ, **variables},
                stderr=log,
            )
        if wait:
            eventually(lambda: self.ready()[0], what=f"gateway ready; log: {self.log}")
        return self

    @property
    def log(self) -> Path:
        return self.config.with_name(f"{self.client_id}.log")

    def ready(self) -> tuple[bool, str]:
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=10)
        except httpx.HTTPError as error:
            return False, str(error)
        return answer.status_code == 200, answer.json()["why"]

    def metric(self, name: str, labels: str = "") -> float:
        """The value of ``headwater_gateway_NAME{LABELS}``; 0 if it has none yet."""
        text = web.get(f"http://127.0.0.1:{self.port}/metrics").text
        sample = f"headwater_gateway_{name}" + (f"{{{labels}}}" if labels else "")
        found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def stop(self) -> int:
        """End gracefully; return the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """End at once, as by kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def gateway(
    kafka: str, broker: str, folder: Path, mappings: str, **env: str
) -> Iterator[GatewayChild]:
    """A running gateway with its own group and session; it is killed at the end."""
    config = folder / f"{unique('headwater')}.toml"
    config.write_text(mappings)
    child = GatewayChild(kafka, broker, config, env=env)
    try:
        yield child.start()
    finally:
        child.kill()


@contextmanager
def script_running(script: Path) -> Iterator[None]:
    """A Python script as a child process; it is ended at the end."""
    child = subprocess.Popen([sys.executable, str(script)])
    try:
        yield
    finally:
        child.terminate()
        child.wait(PATIENCE_S)


@contextmanager
def publisher(broker: str) -> Iterator[mqtt.Client]:
    """A connected paho client, driven by its own thread."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    parts = urlsplit(broker)
    assert parts.hostname and parts.port
    client.connect(parts.hostname, parts.port)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def publish(client: mqtt.Client, topic: str, payload: bytes | str) -> None:
    """Publish with QoS 1, until the broker has it."""
    client.publish(topic, payload, qos=1).wait_for_publish(PATIENCE_S)


@dataclass
class Arrived:
    """What reached Kafka since the reader began."""

    consumer: AIOKafkaConsumer
    readings: list[tuple[int, Readings]] = field(default_factory=list)
    """(partition, frame)."""
    rejected: list[tuple[dict[str, bytes], bytes]] = field(default_factory=list)
    """(headers, value)."""
    headers: list[dict[str, bytes]] = field(default_factory=list)

    async def read(self) -> None:
        fetched = await self.consumer.getmany(timeout_ms=100)
        for partition, records in fetched.items():
            for record in records:
                if partition.topic == REJECTED:
                    self.rejected.append((dict(record.headers), record.value))
                elif record.value:
                    self.readings.append((partition.partition, frames.decode(record.value)))
                    self.headers.append(dict(record.headers))

    def of(self, device: str) -> list[float]:
        """All values of a device, in order."""
        return [
            value
            for _, readings in self.readings
            for name, value in zip(readings.device.to_list(), readings.value.tolist(), strict=True)
            if name == device
        ]

    def refusals(self, topic: str) -> list[tuple[dict[str, bytes], bytes]]:
        return [one for one in self.rejected if one[0]["hw-source"] == f"mqtt:{topic}".encode()]


async def reader(kafka: str) -> Arrived:
    """Read ``readings`` and ``rejected`` from their present ends on."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    partitions = [
        TopicPartition(topic, number)
        for topic in (READINGS, REJECTED)
        for number in range(PARTITIONS)
    ]
    consumer.assign(partitions)
    await consumer.seek_to_end(*partitions)
    await asyncio.gather(*(consumer.position(partition) for partition in partitions))
    return Arrived(consumer)
