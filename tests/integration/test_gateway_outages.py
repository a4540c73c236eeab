"""The gateway while its servers go away and come back."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Servers
from tests.integration.gateway_child import gateway, publish, publisher, reader, unique
from tests.waiting import eventually, eventually_async


async def test_kafka_and_then_the_broker_restart_and_nothing_is_lost(
    own_servers: Servers, tmp_path: Path
) -> None:
    kafka, broker = own_servers.addresses["kafka"], own_servers.addresses["mqtt"]
    prefix, device = unique("t"), unique("dev")
    mappings = f'[[mappings]]\ntopic = "{prefix}/{{device}}"\n'
    arrived = await reader(kafka)
    with gateway(kafka, broker, tmp_path, mappings) as child:
        own_servers.stop("kafka")
        with publisher(broker) as client:
            for number in range(20):
                publish(client, f"{prefix}/{device}", f'{{"a": {number}}}')
        eventually(lambda: not child.ready()[0])
        assert child.metric("acknowledged_messages_total") == 0
        own_servers.start("kafka")

        async def found() -> bool:
            await arrived.read()
            return set(arrived.of(device)) == {float(n) for n in range(20)}

        await eventually_async(found)
        eventually(lambda: child.metric("acknowledged_messages_total") >= 20)

        own_servers.stop("mqtt")
        eventually(lambda: "MQTT broker" in child.ready()[1])
        own_servers.start("mqtt")
        eventually(lambda: child.ready()[0])
        with publisher(broker) as client:
            publish(client, f"{prefix}/{device}", '{"a": 20}')

        async def last() -> bool:
            await arrived.read()
            return 20.0 in arrived.of(device)

        await eventually_async(last)
    await arrived.consumer.stop()
