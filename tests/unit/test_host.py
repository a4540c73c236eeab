"""The host against a consumer that loses batches, without Kafka."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka.errors import IllegalStateError
from faust.types import TP
from prometheus_client import generate_latest

from streams.adapters.record_batches import Begin
from streams.agents import host as host_module
from streams.agents.host import HostOptions, PartitionHost
from streams.errors import StateError

TOPIC = "things"
FIRST, SECOND = TP(TOPIC, 0), TP(TOPIC, 1)


class Logic:
    """Remembers the offsets it was given."""

    def __init__(self):
        self.folded = []

    def fold(self, records):
        self.folded += [record.offset for record in records]
        return []

    def dirty(self):
        return {}

    def wants_time(self):
        return False


class Consumer:
    """A consumer of two partitions; *ends* are their end offsets."""

    def __init__(self, ends):
        self.ends = ends
        self.positions = {}
        self.sought = []
        self.asked = []
        self.begin = Begin(0, committed=False)

    def assignment(self):
        return set(self.ends)

    def highwater(self, tp):
        return self.ends[tp]

    def topic_partitions(self, topic):
        return len(self.ends)

    def reached(self, tp):
        return self.positions.get(tp)

    async def begin_offsets(self, tps):
        self.asked.append(set(tps))
        return dict.fromkeys(tps, self.begin)

    async def seek_wait(self, offsets):
        self.sought.append(offsets)


def batch(tp, *offsets):
    records = [
        SimpleNamespace(offset=o, timestamp=o, key=None, value=b"", headers=()) for o in offsets
    ]
    return SimpleNamespace(message=SimpleNamespace(tp=tp, generation_id=1, value=records))


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now_s=100.0)
    monkeypatch.setattr(host_module.time, "monotonic", lambda: clock.now_s)
    return clock


@pytest.fixture
def setting(clock):
    consumer = Consumer({FIRST: 0, SECOND: 0})
    logics = {}
    app = SimpleNamespace(consumer=consumer, consumer_generation_id=1, rebalancing=False)
    options = HostOptions(checkpoint_ms=1000, silent_ms=1000, stalled_ms=5000)
    make = lambda partition, partitions: logics.setdefault(partition, Logic())  # noqa: E731
    table = SimpleNamespace(of_partition=lambda _: [], changelog_topic_name="t-changelog")
    host = PartitionHost(app, TOPIC, make, table, options)
    return SimpleNamespace(host=host, app=app, consumer=consumer, logics=logics)


async def test_a_last_batch_that_was_let_fall_is_read_again(setting, clock):
    host, consumer = setting.host, setting.consumer
    await host.take(batch(FIRST, 0, 1))
    consumer.ends[FIRST] = consumer.positions[FIRST] = 5  # 2 to 4 were fetched, and never arrive
    await host.tick()
    clock.now_s += 4.9
    await host.tick()
    assert consumer.sought == []
    clock.now_s += 0.2
    await host.tick()
    await host.tick()
    assert consumer.sought == [{FIRST: 2}]
    await host.take(batch(FIRST, 2, 3, 4))
    clock.now_s += 60
    await host.tick()
    assert setting.logics[0].folded == [0, 1, 2, 3, 4]
    assert consumer.sought == [{FIRST: 2}]


async def test_nothing_is_folded_into_a_state_that_is_still_being_restored(setting):
    setting.app.rebalancing = True
    await setting.host.take(batch(FIRST, 0, 1))
    assert setting.logics == {}
    setting.app.rebalancing = False
    await setting.host.take(batch(FIRST, 0, 1))
    assert setting.logics[0].folded == [0, 1]


async def test_a_tick_that_a_rebalance_overtakes_opens_nothing(setting, monkeypatch):
    asked = setting.consumer.begin_offsets

    async def overtaken(tps):
        setting.app.rebalancing = True
        return await asked(tps)

    monkeypatch.setattr(setting.consumer, "begin_offsets", overtaken)
    await setting.host.tick()
    assert setting.logics == {}
    monkeypatch.undo()
    setting.app.rebalancing, setting.app.consumer_generation_id = False, 2
    await setting.host.take(batch(FIRST, 0))  # of generation 1, which is over
    assert setting.logics == {}
    await setting.host.tick()
    assert set(setting.logics) == {FIRST.partition, SECOND.partition}


async def test_what_is_read_twice_is_folded_once(setting, clock):
    host, consumer = setting.host, setting.consumer
    consumer.ends[FIRST] = consumer.positions[FIRST] = 3
    await host.take(batch(FIRST, 0))
    clock.now_s += 6
    await host.tick()
    await host.take(batch(FIRST, 1, 2))
    await host.take(batch(FIRST, 1, 2))
    assert setting.logics[0].folded == [0, 1, 2]


async def test_where_partitions_begin_is_asked_once_per_assignment(setting):
    host, consumer = setting.host, setting.consumer
    await host.tick()
    await host.take(batch(SECOND, 0))
    assert consumer.asked == [{FIRST, SECOND}]
    host.forget()
    await host.tick()
    assert len(consumer.asked) == 2


async def test_markers_at_the_end_of_the_log_are_passed_once_reading_again_brought_nothing(
    setting, clock
):
    host, consumer = setting.host, setting.consumer
    await host.take(batch(FIRST, 0, 1))
    consumer.ends[FIRST] = consumer.positions[FIRST] = 3  # offset 2 is a marker
    for _ in range(5):
        clock.now_s += 6
        await host.tick()
    assert consumer.sought == [{FIRST: 2}, {FIRST: 2}]
    await host.take(batch(FIRST, 3))
    assert setting.logics[0].folded == [0, 1, 3]


async def test_what_was_not_yet_fetched_is_never_passed_as_a_gap(setting, clock):
    host, consumer = setting.host, setting.consumer
    await host.take(batch(FIRST, 0, 1))
    consumer.ends[FIRST], consumer.positions[FIRST] = 9, 2  # the broker does not answer
    for _ in range(10):
        clock.now_s += 6
        await host.tick()
    assert consumer.sought == []
    await host.take(batch(FIRST, *range(2, 9)))
    assert setting.logics[0].folded == list(range(9))


async def test_a_position_without_its_state_is_refused_with_what_to_do(setting):
    setting.consumer.begin = Begin(7, committed=True)
    with pytest.raises(StateError, match=r"goes on at offset 7.*t-changelog are gone.*new id"):
        await setting.host.tick()


async def test_a_log_whose_first_records_have_expired_needs_no_state(setting):
    setting.consumer.begin = Begin(7, committed=False)
    await setting.host.take(batch(FIRST, 7, 8))
    assert setting.logics[0].folded == [7, 8]


async def test_a_partition_that_goes_while_a_tick_looks_at_it_ends_the_tick(setting):
    async def lose(tps):
        del setting.consumer.ends[SECOND]
        return dict.fromkeys(tps, Begin(0, committed=False))

    setting.consumer.assignment = lambda: [tp for tp in (SECOND,) if tp in setting.consumer.ends]
    setting.consumer.begin_offsets = lose
    await setting.host.tick()
    assert setting.consumer.ends == {FIRST: 0}


async def test_a_partition_that_is_another_workers_is_not_sought_in(setting):
    async def refuse(offsets):
        raise IllegalStateError("No current assignment for partition")

    setting.consumer.seek_wait = refuse
    await setting.host.take(batch(FIRST, 0))
    await setting.host.take(batch(FIRST, 5))
    assert setting.logics[0].folded == [0]


async def test_the_lag_of_a_partition_that_went_to_another_worker_is_no_longer_told(setting):
    setting.consumer.ends = {FIRST: 7, SECOND: 7}
    await setting.host.tick()
    lag = 'headwater_host_lag_records{partition="1",topic="things"} 7.0'
    assert lag in generate_latest().decode()
    setting.host.forget()
    setting.consumer.ends = {FIRST: 7}
    await setting.host.tick()
    told = generate_latest().decode()
    assert 'headwater_host_lag_records{partition="0",topic="things"} 7.0' in told
    assert 'headwater_host_lag_records{partition="1",topic="things"}' not in told


async def test_a_closed_host_ends_its_checkpoint_and_begins_no_other(setting):
    stored = []
    await setting.host.take(batch(FIRST, 0))
    logic = setting.logics[0]
    logic.dirty, logic.snapshot = (lambda: {"piece": 0}), stored.append
    await setting.host.take(batch(FIRST, 1))
    assert checkpoints_under_way()
    setting.host.close()
    await asyncio.sleep(0)
    await setting.host.take(batch(FIRST, 2))
    await setting.host.tick()
    assert not checkpoints_under_way()
    assert stored == []
    assert logic.folded == [0, 1]


def checkpoints_under_way():
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("checkpoint")]
