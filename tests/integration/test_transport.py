"""The record-batch transport under a real worker on real Kafka."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.adapters.log_reader import read_all
from streams.agents.host import HostOptions
from streams.app import AppSpec, build
from streams.services.ports import free_port
from streams.settings import Settings
from tests.integration.gateway_child import unique
from tests.waiting import PATIENCE_S, eventually

ROOT = Path(__file__).parents[2]


class Child:
    """A worker whose logic notes what it is given; see ``transport_child.py``."""

    def __init__(self, kafka, topic, group, home, **options):
        home.mkdir()
        self.home = home
        given = orjson.dumps({"port": free_port(), **options}).decode()
        command = [sys.executable, "-m", "tests.integration.transport_child"]
        with (home / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, kafka, topic, group, str(home), given],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )

    def kill(self):
        self.process.kill()
        self.process.wait()

    def ready(self):
        return "Worker ready" in (self.home / "log").read_text()

    def notes(self, kind):
        path = self.home / "notes.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [note for note in map(orjson.loads, lines) if kind in note]

    def offsets(self, partition):
        folded = [n for n in self.notes("offsets") if n["partition"] == partition]
        return [offset for note in folded for offset in note["offsets"]]

    def values(self):
        return [value for note in self.notes("offsets") for value in note["values"]]

    def count(self, partition):
        folded = [n["count"] for n in self.notes("count") if n["partition"] == partition]
        return folded[-1] if folded else 0


@pytest.fixture
def topic(kafka):
    name = unique("transport")
    asyncio.run(make(kafka, name))
    return name


async def make(kafka, name, **config):
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(name, 2, 1, topic_configs=config)])
    await admin.close()


@pytest.fixture
def start(kafka, topic, tmp_path):
    """Start a worker on the topic; all end with the test."""
    started = []
    group = unique("group")

    def child(**options):
        home = tmp_path / f"child-{len(started)}"
        started.append(Child(kafka, topic, group, home, **options))
        started[-1].group = group
        return started[-1]

    yield child
    for one in started:
        one.kill()


def send(kafka, topic, values, partition=0):
    async def main():
        async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
            sent = [
                await producer.send(topic, value.encode(), partition=partition) for value in values
            ]
            await asyncio.gather(*sent)

    asyncio.run(main())


def committed(kafka, group, topic, partition=0):
    async def main():
        consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka, group_id=group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            return await consumer.committed(TopicPartition(topic, partition))
        finally:
            await consumer.stop()

    return asyncio.run(main())


def members(kafka, group):
    """How many members a group has once all of them know their partitions; else 0."""

    async def main():
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            (answer,) = await admin.describe_consumer_groups([group])
            ((_, _, state, _, _, found, *_),) = answer.groups
            return len(found) if state == "Stable" else 0
        finally:
            await admin.close()

    return asyncio.run(main())


def numbers(n, first=0):
    return [str(i) for i in range(first, first + n)]


def test_only_what_was_stored_is_committed_and_all_else_is_read_again(kafka, topic, start):
    send(kafka, topic, numbers(200))
    holding = start(hold=True)
    eventually(lambda: holding.count(0) == 200, what="all folded")
    assert committed(kafka, holding.group, topic) is None
    holding.kill()
    storing = start()
    eventually(lambda: storing.count(0) == 200, what="all folded again")
    assert storing.offsets(0) == list(range(200))
    eventually(lambda: committed(kafka, storing.group, topic) == 200, what="committed")
    storing.kill()
    send(kafka, topic, numbers(10, 200))
    last = start()
    eventually(lambda: last.count(0) == 210, what="the rest folded")
    assert last.offsets(0) == list(range(200, 210))


def test_records_reach_the_logic_as_they_were_read_and_other_topics_one_by_one(kafka, topic, start):
    plain = unique("plain")
    asyncio.run(make(kafka, plain))
    send(kafka, topic, numbers(1000))
    send(kafka, plain, numbers(50))
    child = start(plain=plain)
    eventually(lambda: child.count(0) == 1000, what="batches folded")
    eventually(lambda: len(child.notes("plain")) == 50, what="events of the other topic")
    assert [note["offset"] for note in child.notes("plain")] == list(range(50))
    assert {kind for n in child.notes("kinds") for kind in n["kinds"]} == {"DefaultRecord"}
    assert len(child.notes("offsets")) < 100
    eventually(lambda: committed(kafka, child.group, plain) == 50, what="acknowledged by Faust")


def test_markers_of_transactions_are_gaps_that_nobody_waits_at(kafka, topic, start):
    async def transactions():
        async with AIOKafkaProducer(
            bootstrap_servers=kafka, transactional_id=unique("t")
        ) as producer:
            async with producer.transaction():
                for value in ("a", "b"):
                    await producer.send_and_wait(topic, value.encode(), partition=0)
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"aborted", partition=0)
            await producer.abort_transaction()
            async with producer.transaction():
                await producer.send_and_wait(topic, b"c", partition=0)

    async def time_markers():
        return [r async for r in read_all(kafka, [topic]) if r.headers and r.partition == 0]

    asyncio.run(transactions())
    child = start(wants_time=True)
    eventually(lambda: "c" in child.values(), what="behind all transactions")
    assert [v for v in child.values() if v != "aborted"] == ["a", "b", "c"]
    eventually(lambda: asyncio.run(time_markers()), what="a time marker at the end of the log")
    send(kafka, topic, ["d"])
    eventually(lambda: "d" in child.values(), what="what came behind the marker")


def test_a_compacted_log_is_read_over_its_gaps(kafka, start, tmp_path):
    compacted = unique("compacted")
    config = {
        "cleanup.policy": "compact", "segment.ms": "200", "min.cleanable.dirty.ratio": "0.01",
        "min.compaction.lag.ms": "0", "max.compaction.lag.ms": "500",
    }  # fmt: skip
    asyncio.run(make(kafka, compacted, **config))

    async def fill(values):
        async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
            for value in values:
                key = b"first" if value == "0" else b"key"
                await producer.send_and_wait(compacted, value.encode(), key=key, partition=0)

    async def left():
        return [r.offset async for r in read_all(kafka, [compacted])]

    asyncio.run(fill(numbers(50)))

    def cleaned():
        asyncio.run(fill(["more"]))
        offsets = asyncio.run(left())
        return offsets if len(offsets) < 20 else None

    eventually(cleaned, every_s=1, what="compacted by the broker")
    child = Child(kafka, compacted, unique("group"), tmp_path / "compacted")
    try:
        expected = asyncio.run(left())
        assert expected[0] == 0
        assert expected[1] > 1
        # The broker may compact it further while it is read.
        eventually(
            lambda: set(asyncio.run(left())) <= set(child.offsets(0)), what="read over the gap"
        )
    finally:
        child.kill()


def test_results_that_wait_for_the_broker_pause_the_fetching_and_nothing_is_read_twice(
    kafka, topic, start
):
    send(kafka, topic, numbers(3000))
    results = unique("results")
    asyncio.run(make(kafka, results))
    child = start(results=results, max_poll_records=50)
    eventually(lambda: child.notes("full"), what="more fetched than folded")
    (child.home / "hurry").touch()
    eventually(lambda: child.count(0) == 3000, what="all folded")
    assert child.offsets(0) == list(range(3000))


def test_after_a_seek_nothing_is_folded_twice(kafka, topic, start):
    send(kafka, topic, numbers(500))
    child = start()
    eventually(lambda: child.count(0) == 500, what="all folded")
    (child.home / "seek").touch()
    eventually(lambda: child.notes("sought"), what="sent back")
    send(kafka, topic, numbers(20, 500))
    eventually(lambda: child.count(0) == 520, what="the new ones folded")
    assert child.offsets(0) == list(range(520))


def test_a_partition_that_moves_drops_what_was_in_flight_and_goes_on_where_its_state_stands(
    kafka, topic, start
):
    n = 5_000
    for partition in (0, 1):
        send(kafka, topic, numbers(n), partition)
    # Alone it would take minutes: whenever the other joins, most is left to do. It may read all
    # that was fetched of one partition before it begins with the other.
    first = start(slow_s=0.2, max_poll_records=10)
    eventually(lambda: first.count(0) or first.count(1), what="one partition read")
    second = start()
    eventually(lambda: second.notes("offsets"), what="a partition moved")
    (moved,) = {note["partition"] for note in second.notes("offsets")}
    eventually(lambda: second.count(moved) == n, what="all of the moved one")
    left_at = len(first.offsets(moved))
    assert left_at < n
    (first.home / "hurry").touch()
    eventually(lambda: first.count(1 - moved) == n, what="all of the other")
    assert len(first.offsets(moved)) == left_at
    offsets = second.offsets(moved)
    assert offsets == list(range(offsets[0], n))
    assert offsets[0] <= left_at


def stored(child, topic):
    """The partitions whose state a child has on its disk."""
    return {int(db.stem[-1]) for db in child.home.glob(f"*/v1/tables/{topic}-state-*.db")}


def test_a_standby_has_on_disk_what_it_takes_over(kafka, topic, start):
    options = {"store": "rocksdb", "standbys": 1}
    pair = [start(instance_id=name, **options) for name in ("a", "b")]
    # The later one joins the group before there is anything that the first could read alone.
    eventually(lambda: all(child.ready() for child in pair), what="both are ready")
    eventually(lambda: members(kafka, pair[0].group) == 2, what="both in the group")
    for partition in (0, 1):
        send(kafka, topic, numbers(500), partition)

    def shared():
        counts = [[child.count(partition) for partition in (0, 1)] for child in pair]
        return sorted(counts) == [[0, 500], [500, 0]]

    eventually(shared, what="one partition each")
    eventually(lambda: all(stored(c, topic) == {0, 1} for c in pair), what="standbys")
    for partition in (0, 1):
        eventually(lambda p=partition: committed(kafka, pair[0].group, topic, p) == 500)
    first, second = pair
    taken = 0 if first.count(0) else 1
    first.kill()
    send(kafka, topic, numbers(10, 500), taken)
    eventually(lambda: second.count(taken) == 510, what="the other goes on")
    assert second.offsets(taken) == list(range(500, 510))


def test_a_worker_whose_changelog_is_gone_says_so_and_does_not_start(kafka, topic, start):
    first = start()
    send(kafka, topic, numbers(100))
    eventually(lambda: committed(kafka, first.group, topic) == 100)
    first.kill()
    changelog = f"{first.group}-{topic}-state-changelog"

    async def topics():
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            return await admin.list_topics()
        finally:
            await admin.close()

    async def delete():
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        await admin.delete_topics([changelog])
        await admin.close()

    asyncio.run(delete())
    eventually(lambda: changelog not in asyncio.run(topics()), what="the changelog is gone")
    second = start()
    eventually(second.process.poll, what="it ends with an error")
    said = (second.home / "log").read_text()
    assert f"{topic}, partition 0: reading goes on at offset 100" in said
    assert f"{changelog} are gone" in said
    assert second.count(0) == 0


async def test_a_record_is_not_left_behind_when_another_topic_turns_out_to_be_new(kafka, tmp_path):
    known, new = unique("known"), unique("new")
    await make(kafka, known)
    app = build(
        AppSpec("p", unique("p"), None, [], free_port(), HostOptions(100, 100)),
        Settings(kafka=kafka, state=tmp_path),
    )
    producer = app.producer
    producer.linger_ms = 1_000  # so that the first record is still on its way
    await producer.start()
    try:
        # As when Faust has made a topic: all topics are in view, and none was told.
        client = producer._ensure_producer().client
        while known not in client.cluster.topics():
            await client.force_metadata_update()
        first = await producer.send(known, None, b"1", 0, None, None)
        await make(kafka, new)
        # From now on the client asks for the topics alone that it was told of.
        second = await producer.send(new, None, b"2", 0, None, None)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(first, second)
    finally:
        await producer.stop()
