"""Whom a limit refuses does not depend on the batching, nor on a crash."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.engine import StreamEngine
from streams.core.placement import shard_of
from streams.core.snapshots import restore, snapshot
from tests.property.test_engine import RULES, SHARDS, Seen, as_rows, engine, fold_pieces, logs

TIGHT = dataclasses.replace(RULES, max_devices=1, max_metrics=1)


def tight():
    return StreamEngine(engine().definitions, TIGHT, SHARDS)


class Refusals(Seen):
    def __init__(self):
        super().__init__()
        self.beyond = {}

    def add(self, folded):
        super().add(folded)
        for part in folded:
            for i, limit in part.beyond.items():
                self.beyond[int(part.rows.offset[i]), int(part.rows.row[i])] = limit


def plainly(records):
    """The rule in a few lines: first come, first served, shard by shard and device by device."""
    served, metric_of, refused = {}, {}, {}
    for offset, record in enumerate(records):
        for i, row in enumerate(record.rows):
            if served.setdefault(shard_of("t", row.device, SHARDS), row.device) != row.device:
                refused[offset, i] = "too-many-devices"
            elif metric_of.setdefault(row.device, row.metric) != row.metric:
                refused[offset, i] = "too-many-metrics"
    return refused


@settings(max_examples=150)
@given(logs(), st.lists(st.integers(0, 20), max_size=6))
def test_first_come_first_served_in_any_batching(records, cuts):
    single, seen = Refusals(), Refusals()
    fold_pieces(tight(), single, records, range(len(records)))
    fold_pieces(tight(), seen, records, cuts)
    assert seen.beyond == plainly(records)
    assert seen.verdicts == single.verdicts
    assert {key: max(found) for key, found in seen.results.items()} == {
        key: max(found) for key, found in single.results.items()
    }


@settings(max_examples=150)
@given(logs(), st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2)), max_size=5))
def test_a_crash_changes_nobodys_place(records, checkpoints):
    first, seen, stored = tight(), Refusals(), {}
    for offset in range(len(records)):
        seen.add(first.fold(as_rows(records[offset : offset + 1], offset)))
        for at, shard in checkpoints:
            if at == offset:
                stored[shard] = (offset, snapshot(first, shard))
    again = tight()
    for shard, (stamp, state) in stored.items():
        restore(again, shard, stamp, state)
    told = dict(seen.verdicts)
    fold_pieces(again, seen, records, [])
    assert seen.verdicts == told
    assert seen.beyond == plainly(records)
