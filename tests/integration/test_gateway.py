"""The gateway over the real MQTT broker and the real Kafka."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streams.adapters import frames
from streams.core.placement import partition_of
from streams.core.readings import TIME_OF_RECEIPT
from streams.settings import Mapping
from tests.conftest import Servers
from tests.integration.gateway_child import (
    PARTITIONS,
    Arrived,
    GatewayChild,
    gateway,
    publish,
    publisher,
    reader,
    script_running,
    unique,
)
from tests.waiting import PATIENCE_S, eventually, eventually_async

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
async def arrived(kafka: str) -> AsyncIterator[Arrived]:
    found = await reader(kafka)
    yield found
    await found.consumer.stop()


def by_device(prefix: str) -> str:
    return f'[[mappings]]\ntopic = "{prefix}/{{device}}"\n'


def decoded(arrived: Arrived, device: str) -> list[tuple[int, str, float, int]]:
    return [
        (partition, metric, value, quality)
        for partition, readings in arrived.readings
        for name, metric, value, quality in zip(
            readings.device.to_list(),
            readings.metric.to_list(),
            readings.value.tolist(),
            readings.quality.tolist(),
            strict=True,
        )
        if name == device
    ]


@pytest.mark.parametrize(
    ("script", "device", "expected"),
    [
        ("publish_home.py", "home", {("temperature", 22.5), ("humidity", 45.0)}),
        ("publish_number.py", "greenhouse", {("temperature", 22.5)}),
    ],
)
async def test_the_example_scripts_readings_arrive_in_their_devices_partition(
    kafka: str,
    mqtt: str,
    arrived: Arrived,
    tmp_path: Path,
    *,
    script: str,
    device: str,
    expected: set[tuple[str, float]],
) -> None:
    text = (EXAMPLES / script).read_text()
    host, port = re.fullmatch(r"mqtt://(.+):(\d+)", mqtt).groups()  # type: ignore[union-attr]  # a fixture's url
    assert text.count('"localhost", 1883') == 1
    changed = tmp_path / script
    changed.write_text(text.replace('"localhost", 1883', f'"{host}", {port}'))

    with gateway(kafka, mqtt, tmp_path, (EXAMPLES / "headwater.toml").read_text()):

        async def found() -> bool:
            await arrived.read()
            return len(decoded(arrived, device)) >= 2 * len(expected)

        with script_running(changed):
            await eventually_async(found)
    rows = decoded(arrived, device)
    assert {(metric, value) for _, metric, value, _ in rows} == expected
    assert {partition for partition, *_ in rows} == {partition_of("default", device, PARTITIONS)}
    assert {quality for *_, quality in rows} == {TIME_OF_RECEIPT}
    assert arrived.headers[-1]["hw-partitions"] == b"%d" % PARTITIONS
    assert arrived.headers[-1]["content-type"] == frames.CONTENT_TYPE


async def test_frames_on_the_native_topic_arrive_as_they_were(
    kafka: str, mqtt: str, arrived: Arrived, tmp_path: Path
) -> None:
    from streams.intake.decode import BatchDecoder, Message
    from streams.intake.mapping import TopicMap

    tenant, device = unique("tenant"), unique("dev")
    source = Mapping(topic="t", tenant=tenant, site="north", device=device)
    decoder = BatchDecoder(TopicMap([source]), {}, 100, 10_000)
    sent = decoder.decode([Message("t", b'{"a": 1, "b": 2, "seq": 5, "t_ms": 7}', 9)]).readings
    with gateway(kafka, mqtt, tmp_path, ""), publisher(mqtt) as client:
        publish(client, f"hw/v1/{tenant}/north/up", frames.encode(sent))

        async def found() -> bool:
            await arrived.read()
            return bool(arrived.of(device))

        await eventually_async(found)
    frame = next(r for _, r in arrived.readings if device in r.device.values)
    assert frames.encode(frame) == frames.encode(sent)


async def test_nothing_is_acknowledged_while_kafka_does_not_confirm(
    servers: Servers, kafka: str, mqtt: str, arrived: Arrived, tmp_path: Path
) -> None:
    prefix, device = unique("t"), unique("dev")
    pid = servers.pid("kafka")
    with gateway(kafka, mqtt, tmp_path, by_device(prefix)) as child, publisher(mqtt) as client:
        publish(client, f"{prefix}/{device}", '{"a": 0}')
        eventually(lambda: child.metric("acknowledged_messages_total") == 1)
        os.kill(pid, signal.SIGSTOP)
        try:
            for number in range(1, 51):
                publish(client, f"{prefix}/{device}", f'{{"a": {number}}}')
            eventually(lambda: child.metric("in_flight_messages") == 50)
            eventually(lambda: "Kafka has not confirmed" in child.ready()[1])
            assert not child.ready()[0]
            assert child.metric("acknowledged_messages_total") == 1
            # The session at the broker still holds them: a gateway that dies now loses nothing.
            child.kill()
        finally:
            os.kill(pid, signal.SIGCONT)
        child.start()

        async def found() -> bool:
            await arrived.read()
            return set(arrived.of(device)) == {float(n) for n in range(51)}

        await eventually_async(found)
        eventually(lambda: child.metric("acknowledged_messages_total") >= 50)
        eventually(lambda: child.metric("in_flight_messages") == 0)


async def test_after_a_pause_of_kafka_the_same_gateway_goes_on(
    servers: Servers, kafka: str, mqtt: str, arrived: Arrived, tmp_path: Path
) -> None:
    prefix, device = unique("t"), unique("dev")
    pid = servers.pid("kafka")
    with gateway(kafka, mqtt, tmp_path, by_device(prefix)) as child, publisher(mqtt) as client:
        os.kill(pid, signal.SIGSTOP)
        try:
            for number in range(50):
                publish(client, f"{prefix}/{device}", f'{{"a": {number}}}')
            eventually(lambda: not child.ready()[0])
            assert child.metric("acknowledged_messages_total") == 0
        finally:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: child.metric("acknowledged_messages_total") == 50)
        eventually(lambda: child.ready()[0])

        async def found() -> bool:
            await arrived.read()
            return len(arrived.of(device)) >= 50

        await eventually_async(found)
    assert arrived.of(device) == [float(n) for n in range(50)]


async def test_a_gateway_killed_in_the_middle_loses_nothing(
    kafka: str, mqtt: str, arrived: Arrived, tmp_path: Path
) -> None:
    prefix, device, total = unique("t"), unique("dev"), 6_000
    with gateway(kafka, mqtt, tmp_path, by_device(prefix)) as child, publisher(mqtt) as client:
        sent = []
        for number in range(total):
            sent.append(client.publish(f"{prefix}/{device}", f'{{"a": {number}}}', qos=1))
            if number % 1_500 == 750:
                eventually(lambda: child.ready()[0])
                eventually(lambda: child.metric("received_messages_total") > 0, every_s=0.01)
                child.kill()
                child.start(wait=False)
        for one in sent:
            one.wait_for_publish(PATIENCE_S)

        async def found() -> bool:
            await arrived.read()
            return len(set(arrived.of(device))) == total

        await eventually_async(found)


async def test_two_gateways_share_the_load_and_count_nothing_twice(
    kafka: str, mqtt: str, arrived: Arrived, tmp_path: Path
) -> None:
    prefix, device = unique("t"), unique("dev")
    with gateway(kafka, mqtt, tmp_path, by_device(prefix)) as one:
        other = GatewayChild(kafka, mqtt, one.config, group=one.group)
        try:
            other.start()
            with publisher(mqtt) as client:
                for number in range(400):
                    publish(client, f"{prefix}/{device}", f'{{"a": {number}}}')
            both = (one, other)
            eventually(lambda: sum(g.metric("acknowledged_messages_total") for g in both) == 400)
            assert all(g.metric("acknowledged_messages_total") > 0 for g in both)
        finally:
            other.kill()

    async def found() -> bool:
        await arrived.read()
        return len(arrived.of(device)) >= 400

    await eventually_async(found)
    assert sorted(arrived.of(device)) == [float(n) for n in range(400)]


async def test_filters_that_cross_do_not_count_a_message_twice(
    kafka: str, mqtt: str, arrived: Arrived, tmp_path: Path
) -> None:
    prefix = unique("t")
    mappings = (
        f'[[mappings]]\ntopic = "{prefix}/a/+"\ndevice = "{prefix}"\n'
        f'[[mappings]]\ntopic = "{prefix}/+/b"\ndevice = "{prefix}"\n'
    )
    with gateway(kafka, mqtt, tmp_path, mappings) as child, publisher(mqtt) as client:
        for number in range(20):
            publish(client, f"{prefix}/a/b", f'{{"m": {number}}}')
        publish(client, f"{prefix}/x/b", '{"m": 100}')

        async def found() -> bool:
            await arrived.read()
            return 100.0 in arrived.of(prefix)

        await eventually_async(found)
        eventually(lambda: child.metric("in_flight_messages") == 0)
        await arrived.read()
    assert sorted(arrived.of(prefix)) == [*(float(n) for n in range(20)), 100.0]


async def test_filters_that_the_settings_no_longer_have_count_nothing_twice(
    kafka: str, mqtt: str, arrived: Arrived, tmp_path: Path
) -> None:
    prefix, device = unique("t"), unique("dev")
    with gateway(kafka, mqtt, tmp_path, by_device(prefix)) as child, publisher(mqtt) as client:
        child.stop()
        # The session at the broker keeps the filter PREFIX/+ beside the new one.
        child.config.write_text(f'[[mappings]]\ntopic = "{prefix}/{{device}}/#"\n')
        child.start()
        publish(client, f"{prefix}/{device}", '{"a": 1}')
        publish(client, f"{prefix}/{device}", '{"a": 2}')

        async def found() -> bool:
            await arrived.read()
            return 2.0 in arrived.of(device)

        await eventually_async(found)
        eventually(lambda: child.metric("copied_messages_total") == 2)
        eventually(lambda: child.metric("in_flight_messages") == 0)
        await arrived.read()
    assert arrived.of(device) == [1.0, 2.0]


async def test_a_graceful_stop_finishes_what_was_taken(
    kafka: str, mqtt: str, arrived: Arrived, tmp_path: Path
) -> None:
    prefix, device = unique("t"), unique("dev")
    slow = {"HEADWATER_GATEWAY__LINGER_MS": str(int(10_000 * PATIENCE_S))}
    with gateway(kafka, mqtt, tmp_path, by_device(prefix), **slow) as child:
        with publisher(mqtt) as client:
            publish(client, f"{prefix}/{device}", '{"a": 1}')
        eventually(lambda: child.metric("received_messages_total") == 1)
        assert child.stop() == 0

    async def found() -> bool:
        await arrived.read()
        return bool(arrived.of(device))

    await eventually_async(found)
    assert arrived.of(device) == [1.0]


def test_without_mappings_the_gateway_says_so_and_how_to_add_one(
    kafka: str, mqtt: str, tmp_path: Path
) -> None:
    with gateway(kafka, mqtt, tmp_path, "") as child:
        log = child.log.read_text()
    assert "no mappings are set" in log
    assert "[[mappings]]" in log


def test_another_partition_count_than_the_topics_ends_with_a_message(
    kafka: str, mqtt: str, tmp_path: Path
) -> None:
    config = tmp_path / "headwater.toml"
    config.write_text("[topics]\npartitions = 7\n")
    child = GatewayChild(kafka, mqtt, config).start(wait=False)
    assert child.process is not None
    try:
        assert child.process.wait(PATIENCE_S) == 2
    finally:
        child.kill()
    text = " ".join(child.log.read_text().split())
    assert "topics.partitions = 7" in text
    assert f"{PARTITIONS} partitions" in text


def test_a_mapping_without_a_device_ends_with_a_message(
    kafka: str, mqtt: str, tmp_path: Path
) -> None:
    config = tmp_path / "headwater.toml"
    config.write_text('[[mappings]]\ntopic = "home/sensors"\n')
    child = GatewayChild(kafka, mqtt, config).start(wait=False)
    assert child.process is not None
    try:
        assert child.process.wait(PATIENCE_S) == 2
    finally:
        child.kill()
    assert 'set device = "..."' in " ".join(child.log.read_text().split())
