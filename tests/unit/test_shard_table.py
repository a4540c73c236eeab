"""Stored pieces of state: what was wholly written last is what is loaded."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.adapters import shard_table
from streams.adapters.shard_keys import join_key, partition_in, split_key
from streams.adapters.shard_table import ShardStore
from streams.errors import StateError

FIRST, SECOND = b"aaaa", b"bbbb"


class Table:
    """As much of a Faust table as a store uses; writes can be cut off, as by kill -9."""

    name = "a table"

    def __init__(self, data=None, writes_left=None):
        self.data = dict(data or {})
        self.writes_left = writes_left
        self.log = []

    def of_partition(self, partition):
        return [item for item in self.data.items() if partition_in(item[0]) == partition]

    def send_changelog(self, partition, key, value, **_):
        if self.writes_left is None or self.writes_left > 0:
            self.log.append((key, value))
            if self.writes_left is not None:
                self.writes_left -= 1

    def restored(self):
        """The table as the changelog gives it back."""
        data = {}
        for key, value in self.log:
            data[key] = value
            if value is None:
                del data[key]
        return Table(data)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(shard_table, "CHUNK_BYTES", 4)


def loaded(table, partition=0):
    pieces = ShardStore(table, partition, SECOND).load()
    return {piece.key: (piece.stamp, piece.state) for piece in pieces}


@given(
    st.integers(0, 1000),
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    st.integers(0, 9),
    st.integers(0, 99),
)
def test_keys_name_their_partition_and_come_apart_again(partition, key, slot, chunk):
    raw = join_key(partition, key, FIRST, slot, chunk)
    assert split_key(raw) == (partition, key, FIRST, slot, chunk)
    assert partition_in(raw) == partition


@given(
    st.lists(st.tuples(st.sampled_from(["s0", "s1"]), st.binary(max_size=14)), max_size=8),
    st.integers(0, 40),
)
def test_a_writer_that_dies_anywhere_leaves_the_last_whole_piece(writes, survives):
    table = Table(writes_left=survives)
    store = ShardStore(table, 0, FIRST)
    whole, left = {}, survives
    for stamp, (key, state) in enumerate(writes):
        left -= len(store.write(key, stamp, state).futures)
        if left >= 0:
            whole[key] = (stamp, state)
    found = loaded(table.restored())
    for key, piece in whole.items():
        assert found[key] == piece
    assert set(found) == set(whole)


def test_the_greatest_stamp_wins_between_two_writers_in_either_order():
    for order in ((FIRST, 5, SECOND, 9), (FIRST, 9, SECOND, 5)):
        table = Table()
        ShardStore(table, 0, order[0]).write("s0", order[1], b"%d" % order[1])
        ShardStore(table, 0, order[2]).write("s0", order[3], b"%d" % order[3])
        assert loaded(table.restored()) == {"s0": (9, b"9")}


def test_what_a_checkpoint_made_stale_is_removed_and_nothing_else():
    table = Table()
    ShardStore(table, 0, FIRST).write("s0", 1, b"from another owner")
    ShardStore(table, 1, FIRST).write("s0", 1, b"of another partition")
    store = ShardStore(table, 0, SECOND)
    store.load()
    written = store.write("s0", 2, b"mine, now")
    assert written.stale
    assert all(split_key(raw)[2] == FIRST and partition_in(raw) == 0 for raw in written.stale)
    store.remove(written.stale)
    restored = table.restored()
    assert loaded(restored) == {"s0": (2, b"mine, now")}
    assert loaded(restored, 1) == {"s0": (1, b"of another partition")}
    assert {split_key(raw)[2] for raw in restored.data if partition_in(raw) == 0} == {SECOND}


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=12),
    st.integers(0, 60),
)
def test_a_writer_that_dies_anywhere_leaves_no_piece_without_its_segments(steps, survives):
    """Each step stores a segment or lets one go, then the piece; and cleans up as the host does."""
    table = Table(writes_left=survives)
    store, named, whole = ShardStore(table, 0, FIRST), [], -1
    for stamp, (name, leaves) in enumerate(steps):
        if leaves:
            store.write_segment("s0", name, stamp, name.encode() * 6)
            named = [*(n for n in named if n != name), name]
        else:
            named = [n for n in named if n != name]
        before = len(table.log)
        written = store.write("s0", stamp, b"state %d" % stamp, named)
        if len(table.log) - before == len(written.futures):
            whole = stamp
        store.remove(written.stale)
    again = ShardStore(table.restored(), 0, SECOND)
    pieces = again.load()
    assert [piece.stamp for piece in pieces] == ([] if whole < 0 else [whole])
    for piece in pieces:
        assert piece.state == b"state %d" % piece.stamp
        assert [again.segment(name) for name in piece.segments] == [
            name.encode() * 6 for name in piece.segments
        ]


def test_a_piece_whose_segment_is_gone_gives_way_to_an_older_one():
    table = Table()
    late = ShardStore(table, 0, FIRST)
    late.write_segment("s0", "a", 7, b"of one that was stopped and woke up")
    late.write("s0", 7, b"newer", ["a"])
    ShardStore(table, 0, SECOND).write("s0", 5, b"older")
    assert loaded(table.restored())["s0"] == (7, b"newer")
    for raw in [raw for raw in table.data if split_key(raw)[1] == "s0#a"]:
        table.send_changelog(0, raw, None)
    assert loaded(table.restored())["s0"] == (5, b"older")


def test_a_segment_that_no_piece_names_goes_with_the_next_piece():
    table = Table()
    store = ShardStore(table, 0, FIRST)
    store.write_segment("s0", "a", 1, b"AAAA")
    store.write_segment("s0", "b", 1, b"BBBB")
    store.write_segment("s1", "c", 1, b"CCCC")
    store.remove(store.write("s0", 2, b"state", ["b"]).stale)
    left = {split_key(raw)[1] for raw in table.restored().data}
    assert left == {"s0", "s0#b", "s1#c"}
    with pytest.raises(StateError, match=r"segment a .* is gone"):
        ShardStore(table.restored(), 0, SECOND).segment("a")


def test_a_state_that_looks_as_if_it_named_segments_is_left_alone():
    table = Table()
    ShardStore(table, 0, FIRST).write("s0", 1, b"HWP1 and so on")
    assert loaded(table.restored()) == {"s0": (1, b"HWP1 and so on")}


def test_a_failed_write_raises():
    async def run():
        good, bad = asyncio.Future(), asyncio.Future()
        good.set_result(None)
        bad.set_exception(RuntimeError("the broker said no"))
        await shard_table.acknowledged([good, bad])

    with pytest.raises(RuntimeError, match="said no"):
        asyncio.run(run())


async def test_who_stops_waiting_leaves_the_futures_to_who_fulfils_them():
    sent = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(shard_table.acknowledged([sent]))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    sent.set_result(None)


async def test_there_may_be_nothing_to_wait_for():
    await shard_table.acknowledged([])
