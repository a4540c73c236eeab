"""The record-batch consumer, without Kafka: what it yields, and what it takes for acknowledged."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecord, DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from streams.adapters import record_batches

BATCHES, PLAIN = TP("batches", 0), TP("plain", 0)


@pytest.fixture
def consumer():
    """A consumer with as much of Faust below it as acknowledgements and messages need."""
    one = object.__new__(record_batches.Consumer)
    ends = []
    one.app = SimpleNamespace(
        batch_topics=frozenset({BATCHES.topic}),
        consumer_generation_id=7,
        in_recovery=False,
        topics=SimpleNamespace(acks_enabled_for=lambda topic: True),
        monitor=SimpleNamespace(track_tp_end_offset=lambda tp, end: ends.append(tp)),
    )
    one.scheduler = SimpleNamespace(
        iterate=lambda records: ((tp, r) for tp, found in records.items() for r in found)
    )
    one._unacked_messages = set()
    one._acked, one._gap = defaultdict(list), defaultdict(list)
    one._acked_index = defaultdict(set)
    one._committed_offset = defaultdict(lambda: None)
    one._waiting_for_ack = None
    one._n_acked = 0
    one._active_partitions, one._paused_partitions = set(), set()
    one._buffered_partitions = set()
    return one


def fetched(tp, n=3, first=0):
    """Return the fetch result of a partition, as aiokafka makes it."""
    batch = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1,
        base_sequence=0, batch_size=100_000,
    )  # fmt: skip
    for i in range(n):
        batch.append(i, 1_000 + i, b"t/d", b"%d" % i, [("h", b"1")])
    records = PartitionRecords(
        tp, MemoryRecords(bytes(batch.build())), [], first, None, None, True, 0
    )
    state = SimpleNamespace(paused=False, position=first, consumed_to=lambda offset: None)
    assignment = SimpleNamespace(active=True, state_value=lambda tp: state)
    return FetchResult(tp, assignment=assignment, partition_records=records, backoff=0)


def test_records_of_batch_topics_stay_as_they_were_read():
    early = fetched(BATCHES)
    results = record_batches._AsRead({BATCHES: early}, frozenset({"batches"}))
    later = TP("batches", 1)
    results[later], results[PLAIN] = fetched(later), fetched(PLAIN)
    for tp in (BATCHES, later):
        records = results[tp].getall()
        assert {type(r) for r in records} == {DefaultRecord}
        assert [(r.offset, r.timestamp, r.key, r.value) for r in records] == [
            (i, 1_000 + i, b"t/d", b"%d" % i) for i in range(3)
        ]
        assert [list(r.headers) for r in records] == [[("h", b"1")]] * 3
    assert {type(r) for r in results[PLAIN].getall()} == {ConsumerRecord}


def test_a_batch_is_one_message_and_other_topics_one_a_record(consumer):
    plain = fetched(PLAIN).getall()
    records = {BATCHES: fetched(BATCHES).getall(), PLAIN: plain, TP("batches", 1): []}
    (batch_tp, batch), *single = consumer._messages(records)
    assert (batch_tp, batch.offset, batch.generation_id) == (BATCHES, 2, 7)
    assert [r.offset for r in batch.value] == [0, 1, 2]
    assert [(tp, m.offset, m.value) for tp, m in single] == [
        (PLAIN, i, b"%d" % i) for i in range(3)
    ]


def test_two_batches_in_flight_acknowledge_nothing_in_whatever_order(consumer):
    first = consumer._batch_message(BATCHES, fetched(BATCHES).getall())
    second = consumer._batch_message(BATCHES, fetched(BATCHES).getall())
    consumer._unacked_messages |= {first, second}
    assert consumer.ack(second)
    assert consumer._new_offset(BATCHES) is None
    assert consumer.ack(first)
    assert consumer._new_offset(BATCHES) is None
    assert consumer._unacked_messages == set()


async def test_a_gap_between_batches_is_not_taken_for_acknowledged(consumer):
    await consumer._add_gap(BATCHES, 1, 100)
    assert BATCHES not in consumer._gap
    assert consumer._new_offset(BATCHES) is None


def test_other_topics_are_acknowledged_by_faust(consumer):
    (_, first), (_, second), _ = consumer._messages({PLAIN: fetched(PLAIN).getall()})
    consumer._committed_offset[PLAIN] = -1
    assert consumer.ack(second)
    assert consumer.ack(first)
    assert consumer._new_offset(PLAIN) == 2


def test_what_was_read_last_is_remembered_for_other_topics_only():
    read = record_batches._ReadOffsets(frozenset({"batches"}))
    read[BATCHES], read[PLAIN] = 9, 9
    assert read[BATCHES] is None
    assert read[PLAIN] == 9


async def test_a_flow_that_stops_or_a_new_assignment_drops_the_rest_of_a_fetch(
    consumer, monkeypatch
):
    one, other = BATCHES, TP("batches", 1)
    monkeypatch.setattr(record_batches.Consumer, "should_stop", False)
    consumer._buffered_partitions = set()
    consumer.flow_active = True
    consumer.highwater = lambda tp: 3

    async def wait(_):
        return {one: fetched(one).getall(), other: fetched(other).getall()}, None

    consumer._wait_next_records = wait
    seen = []
    async for tp, _ in consumer.getmany(1.0):
        seen.append(tp)
        consumer.app.consumer_generation_id += 1
    assert seen == [one]
    seen.clear()
    async for tp, _ in consumer.getmany(1.0):
        seen.append(tp)
        consumer.flow_active = False
    assert seen == [one]


async def test_a_fetch_that_asks_only_silent_partitions_does_not_hold_up_the_others(monkeypatch):
    made = AIOKafkaConsumer(fetch_max_wait_ms=1500)
    assert made._fetch_max_wait_ms == 1500, "aiokafka keeps it under another name now"
    monkeypatch.setattr(
        record_batches.base.AIOKafkaConsumerThread, "_create_worker_consumer", lambda *_: made
    )
    thread = object.__new__(record_batches._Thread)
    assert thread._create_worker_consumer(None)._fetch_max_wait_ms <= 100
    await made.stop()


def test_the_end_of_a_partition_is_told_only_while_it_is_ours(consumer):
    held = {BATCHES: SimpleNamespace(highwater=9)}
    assignment = SimpleNamespace(tps=held.keys(), state_value=held.get)
    below = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))
    consumer._thread = SimpleNamespace(
        _ensure_consumer=lambda: SimpleNamespace(_subscription=below)
    )
    assert consumer.highwater(BATCHES) == 9
    assert consumer.highwater(PLAIN) is None
    below.subscription.assignment = None
    assert consumer.highwater(BATCHES) is None
    below.subscription = None
    assert consumer.highwater(BATCHES) is None


def test_a_partition_that_a_rebalance_paused_stays_so_when_its_stream_has_caught_up(consumer):
    consumer.resume_partitions({BATCHES, PLAIN})
    consumer.on_buffer_full(BATCHES)
    consumer.pause_partitions({BATCHES, PLAIN})
    consumer.on_buffer_drop(BATCHES)
    assert consumer._get_active_partitions() == set()
    consumer.resume_partitions({BATCHES})
    consumer.on_buffer_full(BATCHES)
    assert consumer._get_active_partitions() == set()
    consumer.on_buffer_drop(BATCHES)
    assert consumer._get_active_partitions() == {BATCHES}


async def test_while_all_partitions_are_paused_a_fetch_under_way_takes_nothing():
    fetcher = object.__new__(Fetcher)
    fetcher._records = {PLAIN: fetched(PLAIN), BATCHES: fetched(BATCHES)}
    fetcher._wait_consume_future = None
    fetcher._subscriptions = SimpleNamespace(
        reassignment_in_progress=False, is_assigned=lambda tp: True
    )
    active = set()
    taken = record_batches._Only(active)
    assert await fetcher.fetched_records(taken) == {}
    assert list(fetcher._records) == [PLAIN, BATCHES]
    active.add(BATCHES)
    assert list(await fetcher.fetched_records(taken)) == [BATCHES]
    assert list(fetcher._records) == [PLAIN]
