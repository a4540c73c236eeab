"""Records of any producer on ``readings``, through a real worker."""

from __future__ import annotations

import numpy as np
from aiokafka import AIOKafkaProducer

from streams.adapters import frames
from streams.adapters.log_reader import read_all
from streams.adapters.results import read_table
from streams.core.placement import partition_of
from streams.core.readings import Labels, Readings
from streams.settings import Topics
from tests.integration.gateway_child import unique
from tests.waiting import eventually_async

MINUTE_MS = 60_000
FIRST_MS = 1_764_000_000_000 // MINUTE_MS * MINUTE_MS


def frame(device):
    one = np.full(1, FIRST_MS + 1), np.full(1, FIRST_MS + 1), np.full(1, 1.0)
    labels = (Labels.constant(name, 1) for name in ("acme", "north", device, "x"))
    absent = np.full(1, -1), np.full(1, -1)
    return frames.encode(Readings(*labels, *one, np.zeros(1, np.uint8), *absent, {}, {}))


async def test_one_window_holds_all_codecs_and_a_poison_record_costs_only_itself(
    kafka, servers, processes, tmp_path
):
    device = unique("any")
    key = f"acme/{device}".encode()
    senml = b'[{"n":"x","v":4,"t":%d}]' % (FIRST_MS // 1000 + 3)
    records = [
        (None, frame(device), [("content-type", frames.CONTENT_TYPE)]),
        (key, b'{"t_ms":%d,"x":2}' % (FIRST_MS + 2), [("hw-site", b"north")]),
        (key, b'{"x":', []),
        (device.encode(), b'{"x":1}', []),
        (key, senml, [("content-type", b"application/senml+json"), ("hw-site", b"north")]),
        (key, b'{"t_ms":%d,"x":0}' % (FIRST_MS + 10 * MINUTE_MS), []),
    ]
    partition = partition_of("acme", device, Topics().partitions)
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
        for of, value, headers in records:
            await producer.send_and_wait(
                "readings", value, key=of, headers=headers, partition=partition
            )
    processes("worker", env=servers.env(tmp_path, HEADWATER_WORKER__ID=unique("worker")))

    async def window():
        rows = [
            row
            async for record in read_all(kafka, ["aggregates"])
            for row in read_table(record.value).to_pylist()
        ]
        mine = [r for r in rows if r["device"] == device and r["start_ms"] == FIRST_MS]
        return [r for r in mine if r["rank"] >= 0 and r["window"] == "1m"]

    (found, *_) = await eventually_async(window)
    assert (found["count"], found["sum"], found["min"], found["max"]) == (3, 7.0, 1.0, 4.0)

    async def refused():
        found = {}
        async for record in read_all(kafka, ["rejected"]):
            headers = dict(record.headers)
            detail = headers["hw-detail"].decode()
            if device in detail or headers.get("hw-device") == device.encode():
                found[headers["hw-reason"]] = record.value
        return found if len(found) >= 2 else None

    told = await eventually_async(refused)
    assert told == {b"malformed-json": b'{"x":', b"bad-key": b'{"x":1}'}
