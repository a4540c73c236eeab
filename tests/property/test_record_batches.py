"""Records taken a batch at a time are those that aiokafka gives one by one."""

from __future__ import annotations

import struct
from types import SimpleNamespace

from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, FetchResult
from aiokafka.consumer.fetcher import PartitionRecords as Records
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from streams.adapters import record_batches

BATCHES, PLAIN = TP("batches", 0), TP("plain", 0)
_CONTROL = 0x20

batches = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.lists(st.integers(1, 3), min_size=1, max_size=6),
        st.integers(0, 2),
        st.sampled_from([None, 1, 2]),
        st.sampled_from([None, None, None, "abort", "commit"]),
    ),
    max_size=6,
)


def built(first, steps, removed, producer, control):
    """Return a batch at offset *first* as bytes, and the offset behind it.

    :param removed: how many records at its end are gone.
    """
    batch = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=producer is not None,
        producer_id=producer or -1, producer_epoch=0, base_sequence=0, batch_size=100_000,
    )  # fmt: skip
    at = 0
    for step in steps:
        key = b"t/d" if control is None else struct.pack(">hh", 0, control == "commit")
        batch.append(at, 1_000 + at, key, b"%d" % (first + at), [("h", b"1")])
        at += step
    # The last records of a batch may be gone: its last offset stays.
    last = at - steps[-1] + removed
    head = bytearray(bytes(batch.build()))
    head[:8] = struct.pack(">q", first)
    head[23:27] = struct.pack(">i", last)
    if control is not None:
        head[22] |= _CONTROL
    head[17:21] = struct.pack(">I", calc_crc32c(bytes(head[21:])))
    return bytes(head), first + last + 1


def result(tp, data, aborted, position, isolation):
    state = SimpleNamespace(paused=False, position=position)
    state.consumed_to = lambda offset: setattr(state, "position", offset)
    assignment = SimpleNamespace(active=True, state_value=lambda tp: state)
    records = Records(tp, MemoryRecords(data), aborted, position, None, None, True, isolation)
    made = FetchResult(tp, assignment=assignment, partition_records=records, backoff=0)
    return record_batches._AsRead({tp: made}, frozenset({"batches"}))[tp], state


def content(records):
    return [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in records]


@given(
    batches,
    st.integers(0, 5),
    st.lists(st.integers(1, 5), max_size=20),
    st.lists(st.tuples(st.sampled_from([1, 2]), st.integers(0, 30)), max_size=3),
    st.sampled_from([READ_COMMITTED, READ_UNCOMMITTED]),
)
def test_each_call_gives_the_same_records_and_leaves_the_same_position(
    given_batches, position, limits, aborted, isolation
):
    data, end = b"", 0
    for skipped, *batch in given_batches:
        more, end = built(end + skipped, *batch)
        # A broker sends the batch that holds what was asked for, and none that ends before it.
        data += more if end > position else b""
    mine, state = result(BATCHES, data, aborted, position, isolation)
    theirs, expected = result(PLAIN, data, aborted, position, isolation)
    for most in [*limits, None]:
        if not theirs.has_more():
            break
        assert content(mine.getall(most)) == content(theirs.getall(most))
        assert state.position == expected.position
        assert mine.has_more() == theirs.has_more()
