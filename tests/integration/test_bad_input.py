"""Bad input through the real broker: each ends in ``rejected``, and nothing else stops."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streams.adapters import frames
from streams.adapters.log_reader import read_all
from streams.adapters.results import read_table
from streams.core.readings import Labels, Readings
from tests.conftest import Servers
from tests.integration.gateway_child import (
    Arrived,
    GatewayChild,
    gateway,
    publish,
    publisher,
    reader,
    unique,
)
from tests.waiting import eventually, eventually_async

CAP = 65_536
YEAR_MS = 365 * 24 * 3_600_000


def a_frame(tenant: str = "acme", n: int = 3) -> bytes:
    return frames.encode(
        Readings(
            Labels.constant(tenant, n),
            Labels.constant("north", n),
            Labels.constant("d", n),
            Labels.constant("m", n),
            np.arange(n, dtype=np.int64),
            np.arange(n, dtype=np.int64),
            np.ones(n),
            np.zeros(n, np.uint8),
            np.full(n, -1, np.int64),
            np.full(n, -1, np.int64),
            {},
            {},
        )
    )


@pytest.fixture(scope="module")
def prefix() -> str:
    return unique("bad")


@pytest.fixture(scope="module")
def child(
    kafka: str, mqtt: str, prefix: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayChild]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    mappings = (
        f'[[mappings]]\ntopic = "{prefix}/json/{{device}}"\nformat = "json"\n'
        f'[[mappings]]\ntopic = "{prefix}/number/{{device}}"\nmetric = "m"\nformat = "number"\n'
        f'[[mappings]]\ntopic = "{prefix}/any/{{device}}"\nmetric = "m"\n'
    )
    with gateway(kafka, mqtt, folder, mappings) as running:
        yield running


@pytest.fixture
async def arrived(kafka: str) -> AsyncIterator[Arrived]:
    found = await reader(kafka)
    yield found
    await found.consumer.stop()


CASES = [
    ("malformed-json", "{prefix}/json/d", b'{"temperature": 22.5'),
    ("not-a-number", "{prefix}/json/d", b'{"temperature": NaN}'),
    ("not-a-number", "{prefix}/json/d", b'{"temperature": Infinity}'),
    ("not-a-number", "{prefix}/json/d", b'{"temperature": -Infinity}'),
    ("not-a-number", "{prefix}/json/d", b'{"temperature": 1e999}'),
    ("not-a-number", "{prefix}/json/d", b'{"temperature": "22.5"}'),
    ("not-a-number", "{prefix}/number/d", b"nan"),
    ("integer-too-large", "{prefix}/json/d", b'{"count": 18446744073709551616}'),
    ("integer-too-large", "{prefix}/number/d", b"18446744073709551616"),
    ("payload-too-large", "{prefix}/json/d", b'{"a": "' + b"x" * 5_000_000 + b'"}'),
    ("unknown-topic", "hw/v1/{prefix}/north/nothing", b"22.5"),
    ("empty-payload", "{prefix}/any/d", b""),
    ("empty-frame", "hw/v1/{prefix}/north/up", b""),
    ("empty-frame", "hw/v1/{prefix}/north/up", a_frame(n=0)),
    ("truncated-frame", "hw/v1/{prefix}/north/up", a_frame()[:-200]),
    ("truncated-frame", "{prefix}/any/d", a_frame()[:-200]),
    ("wrong-tenant", "hw/v1/{prefix}/north/up", a_frame("another")),
    ("bad-name", "{prefix}/json/" + "x" * 129, b'{"a": 1}'),
    ("bad-time", "{prefix}/json/d", b'{"t_ms": "yesterday", "a": 1}'),
]


@pytest.mark.parametrize(
    ("reason", "topic", "payload"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)]
)
async def test_bad_input_is_rejected_with_its_bytes_and_a_reason_and_good_input_goes_on(
    child: GatewayChild,
    mqtt: str,
    prefix: str,
    arrived: Arrived,
    *,
    reason: str,
    topic: str,
    payload: bytes,
) -> None:
    topic = topic.format(prefix=prefix)
    good = unique("good")
    counted = "rejected_messages_total", f'reason="{reason}"'
    before, began_ms = child.metric(*counted), time.time_ns() // 1_000_000
    with publisher(mqtt) as client:
        publish(client, topic, payload)
        publish(client, f"{prefix}/json/{good}", b'{"temperature": 22.5}')

        async def both() -> bool:
            await arrived.read()
            return bool(arrived.refusals(topic)) and bool(arrived.of(good))

        await eventually_async(both)
    ((headers, kept),) = arrived.refusals(topic)
    assert headers["hw-reason"] == reason.encode()
    assert len(headers["hw-detail"]) > 10
    assert kept == payload[:CAP]
    assert headers["hw-length"] == b"%d" % len(payload)
    assert headers["hw-sha256"] == hashlib.sha256(payload).hexdigest().encode()
    assert began_ms <= int(headers["hw-received-ms"]) <= time.time_ns() // 1_000_000
    # It is counted when Kafka has confirmed it, of which the reader may hear before the gateway.
    eventually(lambda: child.metric(*counted) > before)
    assert child.metric(*counted) == before + 1
    assert arrived.of(good) == [22.5]
    eventually(lambda: child.ready() == (True, "readings flow"))


async def test_a_clock_a_year_ahead_ends_in_quarantine_and_moves_no_window(
    child: GatewayChild,
    mqtt: str,
    kafka: str,
    prefix: str,
    *,
    servers: Servers,
    processes: Callable[..., object],
    tmp_path: Path,
) -> None:
    device, now_ms = unique("ahead"), int(time.time() * 1000)
    minute_ms = now_ms // 60_000 * 60_000
    processes("worker", env=servers.env(tmp_path, HEADWATER_WORKER__ID=unique("worker")))
    with publisher(mqtt) as client:
        for t_ms, value in [
            (minute_ms - 120_000, 1),
            (now_ms + YEAR_MS, 99),
            (minute_ms - 119_000, 2),
            (minute_ms, 3),
        ]:
            publish(client, f"{prefix}/json/{device}", f'{{"t_ms": {t_ms}, "a": {value}}}')
    found: dict[str, list[Any]] = {"quarantine": [], "aggregates": []}

    async def told() -> bool:
        for records in found.values():
            records.clear()
        async for record in read_all(kafka, list(found)):
            found[record.topic].append(record)
        found["aggregates"] = [
            row
            for record in found["aggregates"]
            for row in read_table(record.value).to_pylist()
            if row["device"] == device and row["rank"] >= 0
        ]
        found["quarantine"] = [
            record
            for record in found["quarantine"]
            if dict(record.headers)["hw-device"] == device.encode()
        ]
        return bool(found["quarantine"] and found["aggregates"])

    await eventually_async(told)
    # What a worker says again after its partitions were assigned anew names the same reading.
    assert len({dict(record.headers)["hw-source"] for record in found["quarantine"]}) == 1
    refused = found["quarantine"][0]
    headers = dict(refused.headers)
    assert headers["hw-reason"] == b"clock-ahead"
    assert b"is the device's clock wrong?" in headers["hw-detail"]
    assert frames.decode(refused.value).t_ms.tolist() == [now_ms + YEAR_MS]
    windows = {(w["start_ms"], w["count"], w["sum"], w["rank"]) for w in found["aggregates"]}
    assert windows == {(minute_ms - 120_000, 2, 3.0, 0)}
