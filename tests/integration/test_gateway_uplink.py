"""The uplink of edges: acknowledged is what Kafka has."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from streams.intake.uplink_wire import Kind
from streams.topics import EDGE_STATUS, LOSSES
from tests.conftest import Servers
from tests.integration.edge_client import edge, frame
from tests.integration.gateway_child import Arrived, GatewayChild, gateway, reader, unique
from tests.waiting import eventually, eventually_async


@pytest.fixture
async def arrived(kafka: str) -> AsyncIterator[Arrived]:
    found = await reader(kafka)
    yield found
    await found.consumer.stop()


async def test_an_edge_hears_what_kafka_has_and_what_it_never_will(
    kafka: str, mqtt: str, arrived: Arrived, tmp_path: Path
) -> None:
    tenant, device = unique("tenant"), unique("dev")
    good = frame(tenant, "north", device, [1, 2, 3], 0)
    foreign = frame(tenant, "south", device, [4], 3)
    with gateway(kafka, mqtt, tmp_path, "") as child, edge(mqtt, tenant, "north") as site:
        site.send("s/fresh/1", good)
        site.send("s/fresh/2", foreign)
        site.send("s/status/1", b'{"disk": 0.5}', Kind.STATUS)
        site.send("s/losses/1", b'[{"count": 7, "why": "expired"}]', Kind.LOSSES)
        eventually(lambda: len(site.acked) == 3 and site.refused)
        assert site.acked == {"s/fresh/1", "s/status/1", "s/losses/1"}
        refusal = site.refused["s/fresh/2"]
        assert refusal.reason.startswith("wrong-site")
        assert refusal.retry_after_ms is None
        eventually(lambda: child.metric("edge_batches_total", 'answer="confirmed"') == 3)

    async def found() -> bool:
        await arrived.read()
        return bool(arrived.of(device)) and bool(arrived.refusals(f"hw/v1/{tenant}/north/up"))

    await eventually_async(found)
    assert arrived.of(device) == [1, 2, 3]
    async with AIOKafkaConsumer(
        LOSSES, EDGE_STATUS, bootstrap_servers=kafka, auto_offset_reset="earliest"
    ) as consumer:
        told: dict[str, bytes] = {}

        async def both() -> bool:
            for tp, records in (await consumer.getmany(timeout_ms=100)).items():
                mine = f"{tenant}/north".encode()
                told.update((tp.topic, one.value) for one in records if one.key == mine)
            return len(told) == 2

        await eventually_async(both)
    assert told == {LOSSES: b'[{"count": 7, "why": "expired"}]', EDGE_STATUS: b'{"disk": 0.5}'}


async def test_while_kafka_does_not_confirm_an_edge_hears_nothing(
    servers: Servers, kafka: str, mqtt: str, arrived: Arrived, tmp_path: Path
) -> None:
    tenant, device = unique("tenant"), unique("dev")
    pid = servers.pid("kafka")
    with gateway(kafka, mqtt, tmp_path, "") as child, edge(mqtt, tenant, "north") as site:
        os.kill(pid, signal.SIGSTOP)
        try:
            for number in range(20):
                site.send(f"s/fresh/{number}", frame(tenant, "north", device, [number], number))
            eventually(lambda: child.metric("in_flight_messages") == 20)
            eventually(lambda: "Kafka has not confirmed" in child.ready()[1])
            assert site.acked == set()
        finally:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: len(site.acked) == 20)

    async def found() -> bool:
        await arrived.read()
        return len(arrived.of(device)) >= 20

    await eventually_async(found)
    assert arrived.of(device) == [float(number) for number in range(20)]


async def test_two_gateways_share_the_batches_of_a_site_and_one_may_die(
    kafka: str, mqtt: str, arrived: Arrived, tmp_path: Path
) -> None:
    tenant, device, total = unique("tenant"), unique("dev"), 100
    batches = {
        f"s/fresh/{number}": frame(tenant, "north", device, [number], number)
        for number in range(total)
    }
    with gateway(kafka, mqtt, tmp_path, "") as one:
        other = GatewayChild(kafka, mqtt, one.config, group=one.group)
        try:
            other.start()
            with edge(mqtt, tenant, "north") as site:
                for batch, payload in batches.items():
                    site.send(batch, payload)
                answers = "edge_batches_total", 'answer="confirmed"'
                eventually(lambda: one.metric(*answers) and other.metric(*answers), every_s=0.01)
                # The broker goes on giving the dead one its share: edges send again.
                other.kill()
                site.send_until_answered(batches)
        finally:
            other.kill()

    async def found() -> bool:
        await arrived.read()
        return len(set(arrived.of(device))) == total

    await eventually_async(found)


async def test_what_was_acknowledged_is_in_kafka_however_often_the_gateway_is_killed(
    kafka: str, mqtt: str, arrived: Arrived, tmp_path: Path
) -> None:
    tenant, device, total = unique("tenant"), unique("dev"), 600
    batches = {
        f"s/fresh/{number}": frame(tenant, "north", device, range(10 * number, 10 * number + 10), 0)
        for number in range(total)
    }
    with gateway(kafka, mqtt, tmp_path, "") as child, edge(mqtt, tenant, "north") as site:
        for at, (batch, payload) in enumerate(batches.items()):
            site.send(batch, payload)
            if at % 200 == 100:
                eventually(lambda: child.ready()[0])
                eventually(lambda: child.metric("received_messages_total") > 0, every_s=0.01)
                child.kill()
                child.start(wait=False)
        site.send_until_answered(batches)
        assert not site.refused

    async def found() -> bool:
        await arrived.read()
        return len(set(arrived.of(device))) == 10 * total

    await eventually_async(found)
