"""An edge's end of the uplink, for tests: sends batches, hears answers, sends again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from streams.adapters import frames, zstd
from streams.core.readings import Labels, Readings
from streams.intake.uplink_wire import (
    BatchHeader,
    Encoding,
    Kind,
    Refusal,
    ack_topic,
    decode_ack,
    encode_header,
    up_topic,
)
from tests.waiting import eventually


def frame(tenant: str, site: str, device: str, values: Iterable[float], first_seq: int) -> bytes:
    """One frame of a device: a message a reading, numbered from *first_seq*."""
    value = np.asarray(list(values), np.float64)
    n = len(value)
    now_ms = time.time_ns() // 1_000_000
    return frames.encode(
        Readings(
            *(Labels.constant(name, n) for name in (tenant, site, device, "m")),
            np.full(n, now_ms, np.int64),
            np.full(n, now_ms, np.int64),
            value,
            np.zeros(n, np.uint8),
            np.zeros(n, np.int64),
            np.arange(first_seq, first_seq + n, dtype=np.int64),
            {},
            {},
        )
    )


@dataclass
class EdgeClient:
    """A connected edge of one site."""

    client: mqtt.Client
    tenant: str
    site: str
    acked: set[str] = field(default_factory=set)
    refused: dict[str, Refusal] = field(default_factory=dict)

    def hear(self, payload: bytes) -> None:
        ack = decode_ack(payload)
        self.acked.update(ack.batches)
        self.refused.update((one.batch, one) for one in ack.refused)

    def send(self, batch: str, payload: bytes, kind: Kind = Kind.READINGS) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = encode_header(BatchHeader(batch, kind, Encoding.ZSTD))
        topic = up_topic(self.tenant, self.site)
        self.client.publish(topic, zstd.compress(payload), qos=1, properties=properties)

    def send_until_answered(self, batches: dict[str, bytes]) -> None:
        """Send again what is not answered, every second."""
        last_s = 0.0

        def answered() -> bool:
            nonlocal last_s
            missing = batches.keys() - self.acked - self.refused.keys()
            if time.monotonic() - last_s > 1.0:
                last_s = time.monotonic()
                for batch in missing:
                    self.send(batch, batches[batch])
            return not missing

        eventually(answered)


@contextmanager
def edge(broker: str, tenant: str, site: str) -> Iterator[EdgeClient]:
    """A connected edge that hears acknowledgements."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    found = EdgeClient(client, tenant, site)
    subscribed: list[int] = []
    client.on_message = lambda _c, _d, message: found.hear(message.payload)
    client.on_connect = lambda c, *_: c.subscribe(ack_topic(tenant, site), qos=1)
    client.on_subscribe = lambda _c, _d, mid, *_: subscribed.append(mid)
    parts = urlsplit(broker)
    assert parts.hostname and parts.port
    client.connect(parts.hostname, parts.port)
    client.loop_start()
    try:
        eventually(lambda: subscribed)
        yield found
    finally:
        client.disconnect()
        client.loop_stop()
