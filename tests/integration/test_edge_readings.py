"""Readings through a real edge, broker and gateway into Kafka, while links and processes die."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import aiocoap
import orjson
import pytest
from aiokafka import AIOKafkaConsumer

from streams.adapters import frames
from streams.adapters.edge_ledger import EdgeCount, EdgeLedger
from streams.adapters.log_reader import read_all
from streams.backfill import ask
from streams.intake.backfill_wire import Request, progress_topic, request_topic
from streams.services import supervisor
from streams.services.ports import free_port
from streams.settings import Settings
from streams.sim.proxy import Proxy
from streams.topics import BACKFILL, LOSSES
from tests.integration.edge_child import edge_node
from tests.integration.gateway_child import Arrived, gateway, publish, publisher, reader, unique
from tests.waiting import PATIENCE_S, eventually, eventually_async


@pytest.fixture
async def arrived(kafka: str) -> AsyncIterator[Arrived]:
    found = await reader(kafka)
    yield found
    await found.consumer.stop()


@pytest.fixture
def link(mqtt: str) -> Iterator[Proxy]:
    """The link between site and cloud."""
    parts = urlsplit(mqtt)
    assert parts.hostname and parts.port
    with Proxy(parts.hostname, parts.port) as found:
        yield found


@contextmanager
def broker_of_the_site(folder: Path) -> Iterator[str]:
    found = supervisor.up(folder / "site", ["mqtt"])
    try:
        yield found["mqtt"]
    finally:
        supervisor.down(folder / "site")


def rows(device: str, first: int, count: int) -> list[dict]:
    """Numbered messages of one device; the value is the number."""
    return [
        {"device": device, "t_ms": 1_750_000_000_000 + n, "boot": 1, "seq": n, "m": n}
        for n in range(first, first + count)
    ]


async def coap_get(port: int, path: str) -> dict:
    client = await aiocoap.Context.create_client_context(transports=["udp6"])
    try:
        request = aiocoap.Message(code=aiocoap.GET, uri=f"coap://127.0.0.1:{port}/{path}")
        answer = await client.request(request).response
        assert answer.code.is_successful(), answer.payload
        return orjson.loads(answer.payload)
    finally:
        await client.shutdown()


async def all_arrived(arrived: Arrived, device: str, count: int) -> None:
    async def complete() -> bool:
        await arrived.read()
        return len(set(arrived.of(device))) >= count

    await eventually_async(complete, what=f"{count} readings of {device}")
    assert set(arrived.of(device)) == {float(n) for n in range(count)}


async def test_the_local_brokers_messages_are_acknowledged_when_they_are_in_the_spool(
    kafka: str, mqtt: str, arrived: Arrived, link: Proxy, tmp_path: Path
) -> None:
    device, site, prefix = unique("dev"), unique("site"), unique("t")
    coap_port = free_port()
    config = f'[[mappings]]\ntopic = "{prefix}/{{device}}"\nsite = "{site}"\n'
    link.cut()
    with (
        broker_of_the_site(tmp_path) as local_broker,
        gateway(kafka, mqtt, tmp_path, ""),
        publisher(local_broker) as client,
        edge_node(
            f"mqtt://127.0.0.1:{link.port}",
            tmp_path,
            site,
            config,
            HEADWATER_EDGE__LOCAL_MQTT=local_broker,
            HEADWATER_EDGE__INTAKE__COAP_PORT=str(coap_port),
        ) as edge,
    ):
        for number in range(50):
            payload = f'{{"t_ms": {number + 1}, "boot": 1, "seq": {number}, "m": {number}}}'
            publish(client, f"{prefix}/{device}", payload)
        eventually(lambda: edge.waiting() == 50)
        latest = f"/v1/devices/{device}/latest"
        eventually(lambda: edge.get(latest)["metrics"]["m"]["value"] == 49)
        assert (await coap_get(coap_port, f"v1/latest/{device}/m"))["value"] == 49
        # What is refused here is acknowledged, counted, and stops nothing.
        publish(client, f"{prefix}/{device}", "{")
        edge.kill()
        for number in range(50, 100):
            payload = f'{{"t_ms": {number + 1}, "boot": 1, "seq": {number}, "m": {number}}}'
            publish(client, f"{prefix}/{device}", payload)
        edge.start()
        link.heal()
        await all_arrived(arrived, device, 100)
        eventually(lambda: edge.waiting() == 0)


async def test_what_an_edge_gave_up_is_told_in_the_topic_of_losses(
    kafka: str, mqtt: str, link: Proxy, tmp_path: Path
) -> None:
    device, site = unique("dev"), unique("site")
    link.cut()
    short = {
        "HEADWATER_EDGE__SPOOL__EXPIRY_MS": "1",
        "HEADWATER_EDGE__UPLINK__FRESH_MS": "1",
    }
    consumer = AIOKafkaConsumer(LOSSES, bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        with (
            gateway(kafka, mqtt, tmp_path, ""),
            edge_node(f"mqtt://127.0.0.1:{link.port}", tmp_path, site, **short) as edge,
        ):
            assert edge.post(rows(device, 0, 100)).status_code == 202
            eventually(lambda: edge.status()["given_up"] == {"expired": 100})
            link.heal()
            found: list[dict] = []

            async def told() -> bool:
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    for record in records:
                        if dict(record.headers)["hw-site"].decode() == site:
                            found.extend(orjson.loads(record.value))
                return bool(found)

            await eventually_async(told)
            eventually(lambda: edge.waiting(LOSSES) == 0)
        loss, *again = found
        # A batch whose answer comes late is sent again.
        assert all(one == loss for one in again)
        assert (loss["reason"], loss["lane"], loss["readings"]) == ("expired", "readings", 100)
        assert loss["devices"] == {f"default/{device}": 100}
    finally:
        await consumer.stop()


async def test_a_filtered_series_goes_up_as_corners_and_lies_whole_in_the_ring(
    kafka: str, mqtt: str, arrived: Arrived, tmp_path: Path
) -> None:
    device, site = unique("dev"), unique("site")
    # A busy machine must not give the last one the age at which it goes up by itself.
    config = '[[filters]]\nmode = "swinging-door"\nbound = 0.1\nmax_gap_ms = 1000000\n'
    with (
        gateway(kafka, mqtt, tmp_path, ""),
        edge_node(mqtt, tmp_path, site, config) as edge,
    ):

        async def have(values: set[float]) -> None:
            async def complete() -> bool:
                await arrived.read()
                return set(arrived.of(device)) >= values

            await eventually_async(complete, what=f"{values} of {device}")
            assert set(arrived.of(device)) == values

        # The values are a straight line, of which the last one waits.
        assert edge.post(rows(device, 0, 50)).status_code == 202
        await have({0.0})
        eventually(lambda: edge.status()["filtered"] == 49)
        told = {"series": 1, "max_series": 20_000, "sent": 1, "filtered": 49}
        assert edge.status()["filters"] == told
        edge.kill()
        edge.start()
        await have({0.0, 49.0})
        assert edge.post(rows(device, 50, 50)).status_code == 202
        assert edge.stop() == 0
        edge.start()
        await have({0.0, 49.0, 50.0, 99.0})
        # All of them, and what was released to go up after all.
        eventually(lambda: edge.status()["ring"]["readings"] == 102)
        eventually(lambda: edge.waiting(LOSSES) == 0)
        await told_of(kafka, site, EdgeCount("default", site, device, 4, 96, 0))


async def told_of(kafka: str, site: str, expected: EdgeCount) -> None:
    """Wait until what the edge of a site tells in ``losses`` adds up to this."""

    async def complete() -> bool:
        ledger = EdgeLedger()
        async for record in read_all(kafka, [LOSSES]):
            ledger.add(record)
        return [one for one in ledger.counts() if one.site == site] == [expected]

    await eventually_async(complete)


async def test_a_backfill_brings_the_raw_readings_up_beside_the_windows(
    kafka: str, mqtt: str, arrived: Arrived, tmp_path: Path
) -> None:
    device, site = unique("dev"), unique("site")
    config = '[[filters]]\nmode = "deadband"\nbound = 1000\nmax_gap_ms = 1000000\n'
    # What is sent again because an answer took long would be there twice.
    patient = {"HEADWATER_EDGE__UPLINK__ANSWER_MIN_MS": "120000"}
    settings = Settings(mqtt=mqtt)
    request = Request(uuid4().hex, 1_750_000_000_010, 1_750_000_000_040, (device,))
    consumer = AIOKafkaConsumer(BACKFILL, bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    found: list[int] = []

    async def read() -> None:
        for records in (await consumer.getmany(timeout_ms=100)).values():
            for record in records:
                readings = frames.decode(record.value)
                if device in readings.device.values:
                    found.extend(readings.seq.tolist())

    async def told(times: int) -> None:
        async def complete() -> bool:
            await read()
            return len(found) >= times * 30

        await eventually_async(complete)
        assert sorted(found) == sorted([*range(10, 40)] * times)

    try:
        with (
            gateway(kafka, mqtt, tmp_path, ""),
            edge_node(mqtt, tmp_path, site, config, **patient) as edge,
        ):
            assert edge.post(rows(device, 0, 50)).status_code == 202
            edge.kill()
            # The edge is away: the broker keeps the request for it.
            waits = {"silence_s": 0.1, "expiry_s": 600}
            said = await ask(settings, "default", site, request, on_progress=print, **waits)
            assert said is None
            edge.start()
            await told(1)
            asked = ["edge", "backfill", site, "--from", "1750000000010", "--to", "1750000000040"]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "streams.cli.main", *asked, "--metric", "m", "--json"),
                *("--wait-s", str(PATIENCE_S)),
                env={**os.environ, "HEADWATER_MQTT": mqtt},
                stdout=asyncio.subprocess.PIPE,
            )
            said = orjson.loads((await process.communicate())[0])
            assert (said["state"], said["readings"]) == ("done", 30)
            await told(2)

        async def whole() -> bool:
            await arrived.read()
            return len(set(arrived.of(device))) >= 2

        await eventually_async(whole)
        # The first reading, and the last before the kill, which may have waited.
        assert set(arrived.of(device)) == {0.0, 49.0}
    finally:
        # The broker keeps request and report; gateways of other tests would get and count them.
        with publisher(mqtt) as client:
            for kept in (request_topic("default", site), progress_topic("default", site)):
                client.publish(kept, b"", qos=1, retain=True).wait_for_publish(PATIENCE_S)
        await consumer.stop()
