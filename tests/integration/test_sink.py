"""The sink process on real Kafka, InfluxDB and a lake: everything once, whatever is down."""

from __future__ import annotations

import asyncio

import httpx
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from streams import lake
from streams.adapters.influx import Influx
from streams.adapters.results import encode
from streams.core.readings import Labels
from streams.core.results import WindowResults
from tests.waiting import eventually


def results(device, rows):
    """A frame of window results: ``rows`` are (start_ms, rank, count)."""
    n = len(rows)
    start = np.asarray([s for s, _, _ in rows], np.int64)
    count = np.asarray([c for *_, c in rows], np.int64)
    ones = np.ones(n)
    return encode(
        WindowResults(
            tenant=Labels.constant("t", n),
            site=Labels.constant("a site, with=signs", n),
            device=Labels.constant(device, n),
            metric=Labels.constant("m", n),
            window=Labels.constant("1m", n),
            source=Labels.constant("cloud", n),
            reason=Labels.constant("closed", n),
            start_ms=start,
            end_ms=start + 60_000,
            rank=np.asarray([r for _, r, _ in rows], np.int32),
            count=count,
            sum=count * 2.5,
            min=ones,
            max=ones,
            mean=ones * 2.5,
            sd=np.full(n, np.nan),
            last_received_ms=start,
            kafka_ms=start,
        ),
        code="test",
        settings="test",
    )


@pytest.fixture
def sink(own_servers, processes, tmp_path):
    """The sink process, and ways to publish and to look at what it wrote."""
    env = own_servers.env(
        tmp_path, HEADWATER_SINK__LAKE_FLUSH_MS="300", HEADWATER_SINK__FLUSH_MS="100",
        HEADWATER_SINK__RETRY_MAX_MS="500",
    )  # fmt: skip
    return Sink(own_servers, processes, env, tmp_path)


class Sink:
    def __init__(self, servers, processes, env, home):
        self.servers, self.env, self.home = servers, env, home
        self._processes = processes

    def start(self):
        return self._processes("sink", env=self.env)

    def publish(self, *values):
        async def go():
            producer = AIOKafkaProducer(bootstrap_servers=self.servers.addresses["kafka"])
            await producer.start()
            for value in values:
                await producer.send_and_wait("aggregates", value, partition=0)
            await producer.stop()

        asyncio.run(go())

    def points(self):
        """Return {(device, start_ms): (rank, count)} as InfluxDB holds it."""
        influx = Influx(self.servers.settings(self.home))
        flux = (
            'from(bucket: "headwater/autogen") |> range(start: 1970-01-01T00:00:00Z) '
            '|> filter(fn: (r) => r._field == "rank" or r._field == "count") '
            '|> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
        )
        try:
            rows = asyncio.run(influx.query(flux))
        finally:
            influx.close()
        return {
            (r["device"], round(r["_time"].timestamp() * 1000)): (r["rank"], r["count"])
            for r in rows
        }

    def in_lake(self):
        if not lake.tables(root=self.home / "lake"):
            return []
        found = lake.sql(
            "SELECT device, start_ms, rank, count(*) FROM aggregates GROUP BY ALL ORDER BY ALL",
            root=self.home / "lake",
        )
        return [tuple(row.values()) for row in found.to_pylist()]

    def metric(self, line):
        port = self.env["HEADWATER_OPS__SINK_PORT"]
        try:
            text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        except httpx.TransportError:
            return None
        return next((float(r.split()[-1]) for r in text.splitlines() if r.startswith(line)), None)


def test_the_greatest_rank_stays_whatever_comes_after(sink):
    first = sink.start()
    sink.publish(results("d", [(0, -1, 1), (60_000, 0, 5)]), results("d", [(0, 0, 2)]))
    sink.publish(results("d", [(0, 1, 3)]))
    eventually(lambda: sink.points() == {("d", 0): (1, 3), ("d", 60_000): (0, 5)}, within_s=60)
    first.kill()
    first.wait()
    sink.start()
    sink.publish(results("d", [(0, 0, 2)]), results("d", [(120_000, 0, 7)]))
    eventually(lambda: ("d", 120_000) in sink.points(), within_s=60)
    assert sink.points()["d", 0] == (1, 3)


def test_a_database_that_is_down_holds_back_only_itself(sink):
    sink.start()
    sink.publish(results("d", [(0, 0, 1)]))
    eventually(lambda: sink.points() == {("d", 0): (0, 1)}, within_s=60)
    sink.servers.stop("influx")
    sink.publish(results("d", [(60_000, 0, 2)]), results("d", [(120_000, 0, 3)]))
    eventually(lambda: len(sink.in_lake()) == 3, within_s=60)
    eventually(lambda: sink.metric('headwater_sink_lag_records{target="influx"}') == 2)
    ready = httpx.get(f"http://127.0.0.1:{sink.env['HEADWATER_OPS__SINK_PORT']}/readyz")
    assert ready.status_code == 503
    assert "cannot be reached" in ready.json()["why"]
    sink.servers.start("influx")
    eventually(lambda: len(sink.points()) == 3, within_s=60)
    eventually(lambda: sink.metric('headwater_sink_lag_records{target="influx"}') == 0)


def test_a_killed_sink_writes_nothing_twice_and_loses_nothing(sink):
    process = sink.start()
    sink.publish(*(results("d", [(i * 60_000, 0, i + 1)]) for i in range(50)))
    eventually(sink.in_lake, within_s=60)
    process.kill()
    process.wait()
    sink.publish(*(results("d", [(i * 60_000, 0, i + 1)]) for i in range(50, 80)))
    sink.start()
    expected = [("d", i * 60_000, 0, 1) for i in range(80)]
    eventually(lambda: sink.in_lake() == expected, within_s=60)
    eventually(lambda: sink.points() == {("d", i * 60_000): (0, i + 1) for i in range(80)})
    current = lake.windows(device="d", root=sink.home / "lake")
    assert current["count"].to_pylist() == list(range(1, 81))
