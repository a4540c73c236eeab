"""The rollup process on real Kafka: groups over several partitions, corrected, after kills."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress

import pytest
from aiokafka import AIOKafkaProducer

from streams.adapters.log_reader import read_all
from streams.adapters.results import decode_rollups
from streams.core.placement import partition_of
from tests.property.test_rollups import Told, frame
from tests.waiting import eventually

PARTITIONS = 4


@pytest.fixture
def rollup(own_servers, processes, tmp_path):
    """The rollup process with quick roll-ups, and ways to publish and to read."""
    config = tmp_path / "headwater.toml"
    config.write_text("""
[[windows]]
name = "w"
size_ms = 1000

[[rollups]]
name = "site"
group = "site"
quiet_ms = 100

[[rollups]]
name = "all"
group = "tenant"
quiet_ms = 100

[worker]
silent_ms = 200

[rollup]
instance_id = "r1"
checkpoint_ms = 200
""")
    env = own_servers.env(tmp_path, HEADWATER_CONFIG=str(config))
    return Rollups(own_servers.addresses["kafka"], lambda: processes("rollup", env=env))


class Rollups:
    def __init__(self, kafka, start):
        self.kafka, self.start = kafka, start

    def publish(self, *told):
        async def go():
            async with AIOKafkaProducer(bootstrap_servers=self.kafka) as producer:
                for one in told:
                    partition = partition_of("t", one.device, PARTITIONS)
                    await producer.send_and_wait("aggregates", frame([one]), partition=partition)

        asyncio.run(go())

    def current(self):
        """The greatest revision of each group's window: (rank, count, final, prov., missing)."""
        best = {}
        for record in asyncio.run(read(self.kafka, "rollups")):
            r = decode_rollups(record.value)
            assert record.key.decode() == f"t/{r.rollup[0]}/{r.group[0]}"
            for i in range(len(r)):
                key = (r.group[i], int(r.start_ms[i]))
                columns = (r.rank, r.count, r.final, r.provisional, r.missing)
                best[key] = max(best.get(key, (-1,)), tuple(int(c[i]) for c in columns))
        return best

    def becomes(self, expected):
        with suppress(AssertionError):
            eventually(lambda: self.current() == expected, every_s=1)
        assert self.current() == expected


async def read(kafka, topic):
    return [record async for record in read_all(kafka, [topic])]


def told(device, window, rank=0, count=2, site="north"):
    return Told(device, site, window, rank, count, 1.0, 0.5)


def test_a_group_over_all_partitions_is_told_corrected_and_survives_kills(rollup):
    devices = [f"{uuid.uuid4().hex[:6]}-{i}" for i in range(12)]
    assert len({partition_of("t", d, PARTITIONS) for d in devices}) > 1
    process = rollup.start()
    rollup.publish(*(told(d, 0) for d in devices))
    whole = (12, 24, 12, 0, 0)
    rollup.becomes({("north", 0): whole, ("*", 0): whole})
    process.kill()
    process.wait()
    rollup.publish(told(devices[0], 0, rank=1, count=5))
    rollup.publish(told(devices[1], 0, rank=1, site="south"))
    rollup.publish(*(told(d, 1) for d in devices[2:]))
    process = rollup.start()
    expected = {
        ("north", 0): (14, 25, 11, 0, 0),
        ("south", 0): (2, 2, 1, 0, 0),
        ("*", 0): (14, 27, 12, 0, 0),
        ("north", 1000): (10, 20, 10, 0, 1),
        ("*", 1000): (10, 20, 10, 0, 2),
    }
    rollup.becomes(expected)
    process.kill()
    process.wait()
    rollup.start()
    rollup.publish(told(devices[0], 1))
    expected |= {("north", 1000): (11, 22, 11, 0, 0), ("*", 1000): (11, 22, 11, 0, 1)}
    rollup.becomes(expected)
