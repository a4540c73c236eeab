"""The sink process on real Kafka, InfluxDB and a lake: everything once, whatever is down."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from streams import lake
from streams.adapters.influx import Influx
from streams.adapters.results import encode
from streams.core.readings import Labels
from streams.core.results import WindowResults
from streams.core.rollup_parts import VALUES, Parts
from streams.core.rollups import Rollup, RollupRules
from streams.services.ports import free_port
from tests import web
from tests.integration.gateway_child import unique
from tests.waiting import eventually


def results(device, rows, site="a site, with=signs", source="cloud"):
    """A frame of window results: ``rows`` are (start_ms, rank, count)."""
    n = len(rows)
    start = np.asarray([s for s, _, _ in rows], np.int64)
    count = np.asarray([c for *_, c in rows], np.int64)
    ones = np.ones(n)
    return encode(
        WindowResults(
            tenant=Labels.constant("t", n),
            site=Labels.constant(site, n),
            device=Labels.constant(device, n),
            metric=Labels.constant("m", n),
            window=Labels.constant("1m", n),
            source=Labels.constant(source, n),
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
def sink(module_servers, processes, tmp_path):
    """The sink process, and ways to publish and to look at what it wrote."""
    env = module_servers.env(
        tmp_path, HEADWATER_SINK__LAKE_FLUSH_MS="300", HEADWATER_SINK__FLUSH_MS="100",
        HEADWATER_SINK__RETRY_MAX_MS="500",
    )  # fmt: skip
    return Sink(module_servers, processes, env, tmp_path)


class Sink:
    def __init__(self, servers, processes, env, home):
        self.servers, self.env, self.home = servers, env, home
        self._processes, self._mine = processes, unique("sink-")

    def results(self, device, rows, **more):
        """As :func:`results`, of a device that no other test knows."""
        return results(self._mine + device, rows, **more)

    def start(self, **env):
        return self._processes("sink", env={**self.env, **env})

    def publish(self, *values, topic="aggregates"):
        async def go():
            producer = AIOKafkaProducer(bootstrap_servers=self.servers.addresses["kafka"])
            await producer.start()
            for value in values:
                await producer.send_and_wait(topic, value, partition=0)
            await producer.stop()

        asyncio.run(go())

    def query(self, measurement):
        """Return the points of a measurement, each with its rank and count."""
        influx = Influx(self.servers.settings(self.home))
        flux = (
            'from(bucket: "headwater/autogen") |> range(start: 1970-01-01T00:00:00Z) '
            f'|> filter(fn: (r) => r._measurement == "{measurement}") '
            '|> filter(fn: (r) => r._field == "rank" or r._field == "count") '
            '|> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
        )
        try:
            return asyncio.run(influx.query(flux))
        finally:
            influx.close()

    def rows(self):
        """Return the points of windows."""
        return self._of_mine(self.query("windows"))

    def _of_mine(self, rows):
        """Leave out what other tests published, and the prefix that tells it apart."""
        mine = (r for r in rows if r["device"].startswith(self._mine))
        return [{**r, "device": r["device"].removeprefix(self._mine)} for r in mine]

    def points(self):
        """Return {(device, start_ms): (rank, count)} as InfluxDB holds it."""
        rows = self.rows()
        found = {
            # InfluxDB deletes a point field by field.
            (r["device"], round(r["_time"].timestamp() * 1000)): (r.get("rank"), r.get("count"))
            for r in rows
        }
        assert len(found) == len(rows), "a window has two points"
        return found

    def windows(self):
        """Return the same of the lake's view."""
        if not lake.tables(root=self.home / "lake"):
            return {}
        rows = self._of_mine(lake.windows(root=self.home / "lake").to_pylist())
        found = {(r["device"], r["start_ms"]): (r["rank"], r["count"]) for r in rows}
        assert len(found) == len(rows), "a window is counted twice"
        return found

    def in_lake(self):
        if not lake.tables(root=self.home / "lake"):
            return []
        found = lake.sql(
            "SELECT device, start_ms, rank, count(*) FROM aggregates GROUP BY ALL ORDER BY ALL",
            root=self.home / "lake",
        )
        return [tuple(row.values()) for row in self._of_mine(found.to_pylist())]

    def metric(self, line):
        port = self.env["HEADWATER_OPS__SINK_PORT"]
        try:
            text = web.get(f"http://127.0.0.1:{port}/metrics").text
        except httpx.TransportError:
            return None
        return next((float(r.split()[-1]) for r in text.splitlines() if r.startswith(line)), None)


def test_the_greatest_rank_stays_whatever_comes_after(sink):
    first = sink.start()
    sink.publish(sink.results("d", [(0, -1, 1), (60_000, 0, 5)]), sink.results("d", [(0, 0, 2)]))
    sink.publish(sink.results("d", [(0, 1, 3)]))
    eventually(lambda: sink.points() == {("d", 0): (1, 3), ("d", 60_000): (0, 5)})
    first.kill()
    first.wait()
    sink.start()
    sink.publish(sink.results("d", [(0, 0, 2)]), sink.results("d", [(120_000, 0, 7)]))
    eventually(lambda: ("d", 120_000) in sink.points())
    assert sink.points()["d", 0] == (1, 3)


def test_a_database_that_is_down_holds_back_only_itself(sink):
    sink.start()
    sink.publish(sink.results("d", [(0, 0, 1)]))
    eventually(lambda: sink.points() == {("d", 0): (0, 1)})
    sink.servers.stop("influx")
    sink.publish(sink.results("d", [(60_000, 0, 2)]), sink.results("d", [(120_000, 0, 3)]))
    eventually(lambda: len(sink.in_lake()) == 3)
    eventually(lambda: sink.metric('headwater_sink_lag_records{target="influx"}') == 2)

    def told_so():
        ready = web.get(f"http://127.0.0.1:{sink.env['HEADWATER_OPS__SINK_PORT']}/readyz")
        return ready.status_code == 503 and "cannot be reached" in ready.json()["why"]

    eventually(told_so, what="it is not ready, and says why")
    sink.servers.start("influx")
    eventually(lambda: len(sink.points()) == 3)
    eventually(lambda: sink.metric('headwater_sink_lag_records{target="influx"}') == 0)


def test_a_killed_sink_writes_nothing_twice_and_loses_nothing(sink):
    process = sink.start()
    sink.publish(*(sink.results("d", [(i * 60_000, 0, i + 1)]) for i in range(50)))
    eventually(sink.in_lake)
    process.kill()
    process.wait()
    sink.publish(*(sink.results("d", [(i * 60_000, 0, i + 1)]) for i in range(50, 80)))
    sink.start()
    expected = [("d", i * 60_000, 0, 1) for i in range(80)]
    eventually(lambda: sink.in_lake() == expected)
    eventually(lambda: sink.points() == {("d", i * 60_000): (0, i + 1) for i in range(80)})
    assert sink.windows() == {("d", i * 60_000): (0, i + 1) for i in range(80)}


def test_ranks_in_any_order_with_kills_in_between_end_at_the_greatest(sink):
    shuffled = random.Random(7)
    told = [(start * 60_000, rank, 10 + rank) for start in range(20) for rank in range(-1, 4)]
    expected = {("d", start * 60_000): (3, 13) for start in range(20)}
    for _ in range(3):
        process = sink.start()
        shuffled.shuffle(told)
        sink.publish(*(sink.results("d", [row]) for row in told))
        eventually(sink.points)
        process.kill()
        process.wait()
    sink.publish(sink.results("d", [(start * 60_000, 0, 10) for start in range(20)]))
    sink.publish(sink.results("last", [(0, 0, 1)]))
    sink.start()
    expected["last", 0] = (0, 1)
    eventually(lambda: sink.points() == expected, what=lambda: (sink.points(), expected))
    eventually(lambda: sink.windows() == expected)


def test_a_retracted_window_disappears_and_stays_away_until_a_higher_rank_comes(sink):
    process = sink.start()
    sink.publish(sink.results("d", [(0, 0, 5), (60_000, 0, 6)]))
    eventually(lambda: len(sink.points()) == 2)
    sink.publish(sink.results("d", [(0, 1, 0)]))
    left = {("d", 60_000): (0, 6)}
    eventually(lambda: sink.points() == left)
    eventually(lambda: sink.windows() == left)
    process.kill()
    process.wait()
    sink.publish(sink.results("d", [(0, 0, 5)]), sink.results("d", [(60_000, 1, 0)]))
    process = sink.start()
    eventually(lambda: sink.points() == {})
    eventually(lambda: sink.windows() == {})
    sink.publish(sink.results("d", [(0, 2, 8)]))
    eventually(lambda: sink.points() == {("d", 0): (2, 8)})
    eventually(lambda: sink.windows() == {("d", 0): (2, 8)})


def test_a_result_under_another_site_or_of_an_edge_replaces_the_point_of_the_old_one(sink):
    process = sink.start()
    sink.publish(
        sink.results('it\'s "d"', [(0, 0, 5), (60_000, -1, 5)], site="o'ld"),
        sink.results("e", [(0, 2, 5), (60_000, -1, 6)]),
        sink.results("e", [(120_000, 0, 60)], source="edge"),
    )
    eventually(lambda: len(sink.points()) == 5)
    process.kill()
    process.wait()
    sink.publish(
        sink.results('it\'s "d"', [(0, 1, 6), (60_000, 0, 7)], site="new"),
        # Of an edge and the cloud the edge's counts, whichever came first.
        sink.results("e", [(0, 0, 60), (60_000, 0, 60)], source="edge"),
        sink.results("e", [(120_000, 3, 7)]),
        sink.results("last", [(0, 0, 1)], site="new"),
    )
    sink.start()
    ended = {("last", 0): (0, 1), ('it\'s "d"', 0): (1, 6), ('it\'s "d"', 60_000): (0, 7)}
    ended |= {("e", 60_000 * n): (0, 60) for n in range(3)}

    def points():
        # Two points of a window are there for the moment of one write.
        rows = sink.rows()
        return sorted(
            (r["device"], round(r["_time"].timestamp() * 1000), r.get("rank"), r.get("count"))
            for r in rows
        )

    eventually(lambda: points() == sorted((*k, *v) for k, v in ended.items()))
    assert {r["site"] for r in sink.rows() if r["device"] != "e"} == {"new"}
    eventually(lambda: sink.windows() == ended)


def rolled_up(rows):
    """Frames of a group's results: ``rows`` are (rank, count)."""
    for rank, count in rows:
        told = Rollup(RollupRules("site", "cloud", 0, {}, 10, 10))
        number = np.ones(1, np.int64)
        values = {name: number.astype(kind) for name, (kind, _) in VALUES.items()}
        values |= {"count": number * count, "rank": number * rank, "revision": number * rank}
        names = (Labels.constant(name, 1) for name in ("t", "north", "m", "1m", "d", "north"))
        told.take(Parts(*names, number * 0, number * 60_000, values), 0, 0)
        (result,) = told.advance(1, 1)
        yield encode(result, code="test", settings="test")


def test_groups_flow_to_both_and_a_retracted_one_disappears(sink):
    sink.start()
    sink.publish(*rolled_up([(2, 20), (3, 30), (1, 10)]), topic="rollups")

    def points():
        return [(r["group"], r.get("rank"), r.get("count")) for r in sink.query("rollups")]

    def groups():
        if not lake.tables(root=sink.home / "lake"):
            return []
        rows = lake.groups(group="north", root=sink.home / "lake").to_pylist()
        return [(r["group"], r["rank"], r["count"]) for r in rows]

    eventually(lambda: points() == [("north", 3, 30)])
    eventually(lambda: groups() == [("north", 3, 30)])
    sink.publish(*rolled_up([(4, 0)]), topic="rollups")
    eventually(lambda: points() == [])
    eventually(lambda: groups() == [])


_FLUSH_S = 8.0


def unwritten_at(sink, expected, since):
    """Wait for points; return a time, *since* or later, at which they were not there yet."""
    asked_at = [since]

    def there():
        asked_at.append(time.monotonic())
        return sink.points() == expected

    eventually(there)
    return asked_at[-2]


def stopped_before_it_writes(sink, process):
    """Stop a process that has read a rank of the window and not written it; return the rank.

    It cannot be writing in the first eight seconds after it has written. A busy machine may be too
    slow to catch it in them: it is let go on then, and has written a rank below the next.
    """
    began = time.monotonic()
    sink.publish(sink.results("d", [(0, 0, 9)]))
    unwritten = unwritten_at(sink, {("d", 0): (0, 9)}, began)
    for rank in itertools.count(1):
        lag = 'headwater_sink_lag_records{target="influx"}'
        eventually(lambda: sink.metric(lag) == 0)  # noqa: B023 called at once
        before, began = sink.points(), time.monotonic()
        sink.publish(sink.results("d", [(0, rank, rank)]))
        eventually(lambda: sink.metric(lag) == 1 or sink.points() != before)  # noqa: B023
        process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{process.pid}/stat")
        eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")  # noqa: B023
        if time.monotonic() < unwritten + _FLUSH_S:
            assert sink.points() == before
            return rank
        process.send_signal(signal.SIGCONT)
        unwritten = unwritten_at(sink, {("d", 0): (rank, rank)}, began)
    raise AssertionError("unreachable")


def test_a_sink_that_was_stopped_for_long_does_not_write_over_its_successor(sink):
    stopped = sink.start(HEADWATER_SINK__FLUSH_MS=f"{_FLUSH_S * 1000:.0f}")
    rank = stopped_before_it_writes(sink, stopped)
    sink.start(HEADWATER_OPS__SINK_PORT=str(free_port()))
    eventually(lambda: sink.points() == {("d", 0): (rank, rank)})
    rank += 1
    sink.publish(sink.results("d", [(0, rank, rank)]))
    eventually(lambda: sink.points() == {("d", 0): (rank, rank)})
    stopped.send_signal(signal.SIGCONT)
    sink.publish(sink.results("last", [(0, 0, 1)]))
    expected = {("d", 0): (rank, rank), ("last", 0): (0, 1)}
    eventually(lambda: sink.points() == expected, what=lambda: (sink.points(), expected))
    eventually(lambda: sink.metric('headwater_sink_lag_records{target="lake"}') == 0)
    assert sink.points() == expected
    eventually(lambda: len(sink.in_lake()) == rank + 2)
    assert all(copies == 1 for *_, copies in sink.in_lake())
