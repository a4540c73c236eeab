"""The engine against the oracle: same verdicts and results, to the bit, in any batching."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.engine import DeviceRules, LogRows, StreamEngine
from streams.core.readings import TIME_OF_RECEIPT, Labels, Readings
from streams.core.snapshots import restore, snapshot
from streams.core.windows import Tumbling
from tests.oracle import Oracle, Record, Row

WINDOWS = [(100, 0, 20, 150), (70, 30, 0, 0)]
RULES = DeviceRules(
    disorder_ms=10,
    skew_ms=400,
    idle_ms=500,
    idle_final_ms=900,
    max_seq_holes=1000,
    max_identities=100_000,
    max_devices=1000,
    max_metrics=1000,
)
SHARDS = 3
VALUES = st.one_of(st.floats(-1e9, 1e9), st.sampled_from([1e9 + 0.01, 1e9 - 0.01, 0.1, math.nan]))

rows = st.builds(
    Row,
    device=st.sampled_from(["a", "b", "c", "d"]),
    metric=st.sampled_from(["x", "y"]),
    t_ms=st.integers(0, 1500),
    value=VALUES,
    received_ms=st.just(1000),
    seq=st.one_of(st.just(-1), st.integers(0, 12)),
    boot=st.sampled_from([5, 3]),
    timed=st.booleans(),
)


@st.composite
def logs(draw):
    clock, records = 0, []
    for group in draw(st.lists(st.lists(rows, min_size=1, max_size=5), min_size=1, max_size=14)):
        clock += draw(st.sampled_from([0, 1, 40, 499, 501, 1000]))
        records.append(Record(clock, tuple(group)))
    return records


def engine():
    definitions = [
        Tumbling(name=f"w{i}", size_ms=size, offset_ms=shift, grace_ms=grace, horizon_ms=horizon)
        for i, (size, shift, grace, horizon) in enumerate(WINDOWS)
    ]
    return StreamEngine(definitions, RULES, SHARDS)


def as_rows(records, first_offset=0):
    flat = [
        (o, i, rec.log_ms, row)
        for o, rec in enumerate(records, first_offset)
        for i, row in enumerate(rec.rows)
    ]
    n = len(flat)
    readings = Readings(
        tenant=Labels.constant("t", n),
        site=Labels.constant("s", n),
        device=Labels.of(row.device for *_, row in flat),
        metric=Labels.of(row.metric for *_, row in flat),
        t_ms=np.asarray([row.t_ms for *_, row in flat], np.int64),
        received_ms=np.asarray([row.received_ms for *_, row in flat], np.int64),
        value=np.asarray([row.value for *_, row in flat], np.float64),
        quality=np.asarray([0 if row.timed else TIME_OF_RECEIPT for *_, row in flat], np.uint8),
        boot=np.asarray([row.boot if row.seq >= 0 else -1 for *_, row in flat], np.int64),
        seq=np.asarray([row.seq for *_, row in flat], np.int64),
        exact_int={},
        text={},
    )
    return LogRows(
        readings,
        np.asarray([o for o, *_ in flat], np.int64),
        np.asarray([i for _, i, *_ in flat], np.int32),
        np.asarray([ms for _, _, ms, _ in flat], np.int64),
    )


class Seen:
    """Collects what an engine says."""

    def __init__(self):
        self.verdicts, self.results, self.provisional = {}, {}, []

    def add(self, folded):
        for part in folded:
            for i in range(len(part.rows)):
                place = (int(part.rows.offset[i]), int(part.rows.row[i]))
                self.verdicts[place] = int(part.verdict[i])
            self.add_results(part.results)

    def add_results(self, parts):
        for r in parts:
            for i in range(len(r)):
                window = int(r.window[i][1:])
                key = (r.device[i], r.metric[i], window, int(r.start_ms[i]))
                got = (int(r.count[i]), r.sum[i], r.min[i], r.max[i], r.mean[i], r.sd[i])
                rank = int(r.rank[i])
                if rank < 0:
                    self.provisional.append((key, got))
                    continue
                before = self.results.setdefault(key, {}).setdefault(rank, got)
                assert bits(before) == bits(got), "one revision, two values"


def bits(result):
    return tuple("nan" if math.isnan(x) else float(x).hex() for x in result)


def assert_equal(seen, oracle):
    places = [seen.verdicts[place] for place in sorted(seen.verdicts)]
    assert places == [int(v) for v in oracle.verdicts]
    assert seen.results.keys() == oracle.results.keys()
    for key, revisions in seen.results.items():
        expected = oracle.results[key]
        assert max(revisions) == max(expected), key
        for rank, got in revisions.items():
            assert bits(got) == bits(expected[rank]), (key, rank)
    # After a crash a result may be told again, with the same bits.
    assert {(k, bits(r)) for k, r in seen.provisional} == {
        (k, bits(r)) for k, r in oracle.provisional
    }


def reference(records):
    return Oracle(WINDOWS, disorder=10, skew=400, idle=500, idle_final=900).run(records)


def fold_pieces(target, seen, records, cuts, first_offset=0):
    edges = [0, *sorted(c % (len(records) + 1) for c in cuts), len(records)]
    for a, b in pairwise(edges):
        if a < b:
            seen.add(target.fold(as_rows(records[a:b], first_offset + a)))


@settings(max_examples=150)
@given(logs(), st.lists(st.integers(0, 20), max_size=6))
def test_any_batching_gives_what_the_rules_say_row_by_row(records, cuts):
    seen = Seen()
    fold_pieces(engine(), seen, records, cuts)
    assert_equal(seen, reference(records))


@settings(max_examples=150)
@given(
    logs(),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2)), max_size=5),
    st.integers(0, 20),
    st.lists(st.integers(0, 20), max_size=4),
)
def test_a_crash_at_any_point_changes_nothing(records, checkpoints, crash, cuts):
    crash_at = crash % (len(records) + 1)
    first, seen, stored = engine(), Seen(), {}
    for offset in range(crash_at):
        seen.add(first.fold(as_rows(records[offset : offset + 1], offset)))
        for at, shard in checkpoints:
            if at == offset:
                stored[shard] = (offset, snapshot(first, shard))
    again = engine()
    for shard, (stamp, state) in stored.items():
        restore(again, shard, stamp, state)
    # The log is read again from the beginning: shards skip what they hold already.
    fold_pieces(again, seen, records, cuts)
    assert_equal(seen, reference(records))


@settings(max_examples=150)
@given(logs())
def test_every_reading_is_counted_in_exactly_one_class(records):
    subject, seen = engine(), Seen()
    seen.add(subject.fold(as_rows(records)))
    devices = subject.registry.devices
    counted = sum(
        int(devices[name].sum())
        for name in ("rejected", "duplicate", "quarantined", "unverifiable", "late", "accepted")
    )
    assert counted == sum(len(record.rows) for record in records)
