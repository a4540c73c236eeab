"""Stored pieces of state: what was wholly written last is what is loaded."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.adapters import shard_table
from streams.adapters.shard_keys import join_key, partition_in, split_key
from streams.adapters.shard_table import ShardStore

FIRST, SECOND = b"aaaa", b"bbbb"


class Table:
    """As much of a Faust table as a store uses; writes can be cut off, as by kill -9."""

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
        store.write(key, stamp, state)
        left -= max(1, -(-len(state) // 4))
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
