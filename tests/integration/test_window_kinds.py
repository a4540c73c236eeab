"""Every kind of window, from JSON in Kafka through a worker and a sink into InfluxDB and a lake."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from streams import lake
from streams.adapters.influx import Influx
from streams.core.placement import device_key, partition_of
from tests.waiting import eventually

SETTINGS = """
[[windows]]
name = "five"
size_ms = 5_000
aggregates = ["first", "last", "delta", "rate", "p50"]

[[windows]]
name = "moving"
kind = "hopping"
size_ms = 10_000
step_ms = 5_000

[[windows]]
name = "run"
kind = "session"
gap_ms = 4_000

[[windows]]
name = "day"
kind = "calendar"
period = "day"
zone = "Asia/Kolkata"
"""
T0 = 1_764_009_000_000  # a multiple of 5,000; 18:30 UTC on some day, which is midnight in Kolkata
T0 -= (T0 - 66_600_000) % 86_400_000
# Seconds after T0, and values; the one at 12 comes when the window around it was told, and joins
# the sessions before and after it.
READINGS = [(0, 1.0), (2, 5.0), (4, 3.0), (8, 2.0), (15, 9.0), (30, 4.0), (12, 7.0), (86_500, 0.0)]
LAST_S = 86_400
"""Begin of the next day, and before all windows of the last reading."""


async def publish(kafka):
    partition = partition_of("default", "pump", 4)
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for seq, (second, value) in enumerate(READINGS):
            body = {"t_ms": T0 + 1000 * second, "boot": 1, "seq": seq, "flow": value}
            key = device_key("default", "pump")
            await producer.send_and_wait(
                "readings", orjson.dumps(body), key=key, partition=partition
            )


@pytest.fixture
def windows(own_servers, processes, tmp_path):
    """Publish, run, and return a function that reads what the lake says of each window now."""
    (tmp_path / "headwater.toml").write_text(SETTINGS)
    env = own_servers.env(tmp_path, HEADWATER_SINK__LAKE_FLUSH_MS="300")
    asyncio.run(publish(own_servers.addresses["kafka"]))
    processes("worker", env=env)
    processes("sink", env=env)

    def current():
        if "aggregates" not in lake.tables(root=tmp_path / "lake"):
            return {}
        rows = lake.windows(root=tmp_path / "lake").to_pylist()
        return {(r["window"], (r["start_ms"] - T0) // 1000): r for r in rows}

    return current


def test_all_kinds_reach_the_lake_and_influxdb(windows, own_servers, tmp_path):
    wanted = {
        ("five", 0): (3, 9.0, 0),
        ("five", 5): (1, 2.0, 0),
        ("five", 10): (1, 7.0, 1),
        ("five", 15): (1, 9.0, 0),
        ("five", 30): (1, 4.0, 0),
        ("moving", -5): (3, 9.0, 0),
        ("moving", 0): (4, 11.0, 0),
        ("moving", 5): (2, 9.0, 1),
        ("moving", 10): (2, 16.0, 1),
        ("moving", 15): (1, 9.0, 0),
        ("moving", 25): (1, 4.0, 0),
        ("moving", 30): (1, 4.0, 0),
        # 0, 2 and 4 are one run, 8 another at a gap of 4, 12 and 15 a third: the session that began
        # at 15 is retracted, for it begins at 12 now.
        ("run", 0): (3, 9.0, 0),
        ("run", 8): (1, 2.0, 0),
        ("run", 12): (2, 16.0, 1),
        ("run", 30): (1, 4.0, 0),
        ("day", 0): (7, 31.0, 0),
    }

    def told():
        return {
            key: (row["count"], row["sum"], row["rank"])
            for key, row in windows().items()
            if key[1] < LAST_S  # What the last reading began is open, or told as provisional.
        }

    eventually(lambda: told() == wanted, what=lambda: f"{wanted}, there is {told()}")
    first = windows()["five", 0]
    assert (first["first"], first["last"], first["delta"]) == (1.0, 3.0, 2.0)
    assert first["rate"] == 0.5
    assert first["p50"] == pytest.approx(3.0, rel=0.011)

    def in_influx():
        influx = Influx(own_servers.settings(tmp_path))
        flux = (
            f'from(bucket: "headwater/autogen") |> range(start: 0, stop: {T0 // 1000 + LAST_S}) '
            '|> filter(fn: (r) => r._measurement == "windows" and r._field == "p50")'
        )
        try:
            return len(asyncio.run(influx.query(flux)))
        finally:
            influx.close()

    eventually(lambda: in_influx() == 5, what=in_influx)
