"""Groups in columns: what is said anew, what is held, and what is forgotten."""

from __future__ import annotations

import numpy as np
import pytest

from streams.adapters.results import decode_windows
from streams.agents.rule_definitions import window_rules
from streams.core import group_comparisons
from streams.core.group_comparisons import GroupComparisons
from streams.core.selectors import without_traits
from streams.settings import Rule, Settings, Window
from tests.windows import MINUTE_MS, result, results_frame

QUIET_MS, KEEP_MS = 1_000, 2 * MINUTE_MS
TAKES = np.ones(2, np.bool_)
ODD = {"name": "odd", "kind": "compare", "window": "1m", "among": "site", "over": 5.0}


def comparisons(*, limit=1_000, **rule):
    settings = Settings(
        windows=[Window(name="1m", size_ms=MINUTE_MS)], rules=[Rule(**{**ODD, **rule})]
    )
    return GroupComparisons(
        window_rules(settings),
        {"1m": KEEP_MS},
        without_traits,
        lambda _tenant, _among, group: int(group == "n"),
        quiet_ms=QUIET_MS,
        limit=limit,
    )


def take(groups, *rows, now_ms=0):
    return groups.take(decode_windows(results_frame(*rows)), "site", now_ms, TAKES).tolist()


def said(groups, now_ms):
    """Return shard and device -> what is said, of the newest start."""
    return {
        (shard, found.device[i]): (float(found.mean[i]), int(found.rank[i]))
        for shard, found in groups.pass_time(now_ms, TAKES)
        for i in range(len(found))
    }


def crowd(start, values, site="s"):
    return [result(start, v, device=f"d{i}", site=site) for i, v in enumerate(values)]


def test_each_is_said_once_and_of_an_unmoved_median_only_what_changed():
    groups = comparisons()
    assert take(groups, *crowd(0, [10, 20, 30])) == [0]
    assert said(groups, QUIET_MS - 1) == {}
    first = {(0, "d0"): (-10.0, 0), (0, "d1"): (0.0, 0), (0, "d2"): (10.0, 0)}
    assert said(groups, QUIET_MS) == first
    assert not groups.wants_time()
    take(groups, result(0, 40, device="d2", rank=1), now_ms=QUIET_MS)
    assert said(groups, 2 * QUIET_MS) == {(0, "d2"): (20.0, 1)}
    take(groups, result(0, 24, device="d1", rank=1), now_ms=2 * QUIET_MS)
    moved = {(0, "d0"): (-14.0, 2), (0, "d1"): (0.0, 2), (0, "d2"): (16.0, 2)}
    assert said(groups, 3 * QUIET_MS) == moved


def test_what_is_stored_goes_on_where_it_was():
    groups, other = comparisons(), comparisons()
    take(groups, *crowd(0, [10, 20, 30]), *crowd(0, [1, 2, 3], site="n"))
    said(groups, QUIET_MS)
    take(groups, result(0, 40, device="d2", rank=1), now_ms=QUIET_MS)
    for shard in (0, 1):
        other.restore(shard, groups.snapshot(shard))
    assert other.wants_time()
    assert said(other, 2 * QUIET_MS) == said(groups, 2 * QUIET_MS) == {(0, "d2"): (20.0, 1)}


def test_a_shard_that_does_not_take_a_record_is_left_as_it_is():
    groups = comparisons()
    frame = decode_windows(results_frame(*crowd(0, [1, 2, 3]), *crowd(0, [1, 2, 9], site="n")))
    only = np.asarray([False, True])
    assert groups.take(frame, "site", 0, only).tolist() == [1]
    assert groups.snapshot(0) == []
    assert groups.pass_time(QUIET_MS, ~only) == []
    assert groups.wants_time()
    assert said(groups, QUIET_MS)[1, "d2"] == (7.0, 0)


def test_old_windows_and_devices_that_are_gone_leave_memory(monkeypatch):
    monkeypatch.setattr(group_comparisons, "_LEAST_SWEPT", 16)
    monkeypatch.setattr(group_comparisons, "_LEAST_MEMBERS", 64)
    groups = comparisons()
    for minute in range(200):
        now_ms = minute * MINUTE_MS
        rows = [result(minute, 10.0 * i, device=f"d{minute // 4}-{i}") for i in range(4)]
        take(groups, *rows, now_ms=now_ms)
        found = said(groups, now_ms + QUIET_MS)
        assert {value for value, _ in found.values()} == {-15.0, -5.0, 5.0, 15.0}
        assert len(groups._values) <= 32
        assert groups._members.members.n <= 64 + 4


def test_there_is_room_for_so_many_values_in_each_shard():
    groups = comparisons(limit=3)
    take(groups, *crowd(0, [10, 20, 30, 90]), *crowd(0, [1, 2, 3], site="n"))
    assert groups.refused == 1
    assert set(said(groups, QUIET_MS)) == {(s, f"d{i}") for s in (0, 1) for i in range(3)}
    late = result(0, 50, device="d0", rank=1)
    take(groups, late, now_ms=QUIET_MS)
    assert groups.refused == 1, "a correction needs no room"
    # Three minutes on, nothing of the first is held any more.
    take(groups, *crowd(3, [10, 20, 30]), now_ms=3 * MINUTE_MS)
    assert groups.refused == 1


@pytest.mark.parametrize(("by", "value"), [("difference", 10.0), ("ratio", 1.5)])
def test_the_median_of_an_even_number_is_the_mean_of_the_two_in_the_middle(by, value):
    groups = comparisons(by=by)
    take(groups, *crowd(0, [10, 15, 25, 30]))
    assert said(groups, QUIET_MS)[0, "d3"] == (value, 0)


def test_a_shard_that_leaves_is_forgotten():
    groups = comparisons()
    take(groups, *crowd(0, [1, 2, 3]), *crowd(0, [1, 2, 9], site="n"))
    groups.leave(0)
    assert groups.snapshot(0) == []
    assert {shard for shard, _ in said(groups, QUIET_MS)} == {1}
