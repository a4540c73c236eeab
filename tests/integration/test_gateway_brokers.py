"""Devices and edges spread over two brokers: the gateway hears both, and one may die."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from streams.services.mosquitto import command
from streams.services.ports import is_open
from tests.integration.edge_client import edge, frame
from tests.integration.gateway_child import gateway, publish, publisher, reader, unique
from tests.waiting import eventually, eventually_async


@dataclass
class Broker:
    address: str
    process: subprocess.Popen[bytes]


@contextmanager
def another_broker(folder: Path) -> Iterator[Broker]:
    folder.mkdir()
    address, arguments = command(folder)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(arguments, stderr=log)
    try:
        eventually(lambda: is_open(address.removeprefix("mqtt://")))
        yield Broker(address, process)
    finally:
        process.kill()
        process.wait()


async def test_a_broker_that_dies_takes_nothing_acknowledged_along_and_its_edges_move(
    kafka: str, mqtt: str, tmp_path: Path
) -> None:
    tenant, devices = unique("tenant"), [unique("dev") for _ in range(3)]
    arrived = await reader(kafka)
    batches = {
        f"s/fresh/{number}": frame(tenant, "north", devices[0], [number], number)
        for number in range(300)
    }
    with another_broker(tmp_path / "b") as other:
        mappings = (
            f'[gateway]\nbrokers = ["{other.address}"]\n'
            f'[[mappings]]\ntopic = "{tenant}/{{device}}"\n'
        )
        with gateway(kafka, mqtt, tmp_path, mappings) as child:
            eventually(lambda: child.metric("brokers_ready") == 2)
            with publisher(mqtt) as one, publisher(other.address) as two:
                publish(one, f"{tenant}/{devices[1]}", '{"m": 1}')
                publish(two, f"{tenant}/{devices[2]}", '{"m": 2}')
            with edge(other.address, tenant, "north") as site:
                for batch, payload in batches.items():
                    site.send(batch, payload)
                eventually(lambda: len(site.acked) > 50, every_s=0.001)
                other.process.kill()
                acked = set(site.acked)
            eventually(lambda: child.metric("brokers_ready") == 1)
            port = other.address.rpartition(":")[2]

            def told() -> bool:
                ready, why = child.ready()
                return ready and (port in why or "lost" in why)

            eventually(told, what="ready, and says which broker is gone")
            with edge(mqtt, tenant, "north") as site:
                site.acked |= acked
                site.send_until_answered(batches)

    async def found() -> bool:
        await arrived.read()
        values = [arrived.of(device) for device in devices]
        return len(set(values[0])) == len(batches) and values[1:] == [[1.0], [2.0]]

    await eventually_async(found)
    await arrived.consumer.stop()
