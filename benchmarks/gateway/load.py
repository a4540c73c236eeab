"""Messages for the gateway, and a publisher that costs little."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from streams.adapters import frames, zstd
from streams.core.readings import Labels, Readings
from streams.intake.uplink_wire import (
    BatchHeader,
    Encoding,
    Kind,
    batch_id,
    encode_header,
    up_topic,
)
from streams.sim.publisher import Publisher

_DEVICES = 1_000
_START_MS = 1_764_000_000_000
Load = Iterable[tuple[str, bytes, Properties | None]]


def single_readings(count: int) -> Load:
    """Yield messages of one reading as JSON, of 1,000 devices in turn."""
    for number in range(count):
        t_ms, seq = _START_MS + number, number // _DEVICES
        payload = b'{"temperature":%.1f,"t_ms":%d,"boot":1,"seq":%d}' % (20 + seq % 7, t_ms, seq)
        yield f"bench/device-{number % _DEVICES}", payload, None


def edge_batches(count: int, rows: int) -> Load:
    """Yield batches of one site: 10 devices in each, values of up to two decimals."""
    rng = np.random.default_rng(1)
    for number in range(count):
        at = np.arange(rows)
        device = Labels((at % 10).astype(np.int32), tuple(f"edge-{n}" for n in range(10)))
        t_ms = _START_MS + (number * rows + at) // 10 * 1_000
        readings = Readings(
            Labels.constant("bench", rows),
            Labels.constant("north", rows),
            device,
            Labels.constant("temperature", rows),
            t_ms,
            t_ms,
            np.round(20 + np.cumsum(rng.normal(0, 0.05, rows)), 2),
            np.zeros(rows, np.uint8),
            np.ones(rows, np.int64),
            (number * rows + at) // 10,
            {},
            {},
        )
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        header = BatchHeader(batch_id("bench", "backlog", number), Kind.READINGS, Encoding.ZSTD)
        properties.UserProperty = encode_header(header)
        yield up_topic("bench", "north"), zstd.compress(frames.encode(readings)), properties


def publish(address: str, load: Load, *, per_s: float | None) -> None:
    """Publish with QoS 1 at a steady rate, or as fast as the broker confirms."""
    publisher = Publisher(address, "bench-load")
    started = time.monotonic()
    for number, (topic, payload, properties) in enumerate(load):
        if per_s is not None:
            ahead_s = number / per_s - (time.monotonic() - started)
            if ahead_s > 0:
                time.sleep(ahead_s)
        publisher.send(topic, payload, properties)
    publisher.close()
