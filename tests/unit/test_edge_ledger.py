"""What edges say of their devices, held against the log."""

from __future__ import annotations

from typing import Any

import orjson

from streams.adapters.edge_ledger import EdgeCount, EdgeLedger, held_against
from streams.testing import Record


def said(*entries: dict[str, Any], batch: str = "5f00.1/losses/1", site: str = "north") -> Record:
    headers = (
        ("hw-tenant", b"acme"),
        ("hw-site", site.encode()),
        ("hw-batch", batch.encode()),
    )
    return Record(0, 0, None, orjson.dumps(entries), headers=headers)


def tally(segment: int, up: int, filtered: int) -> dict[str, Any]:
    return {
        "lane": "ring", "reason": "filtered", "segment": segment, "places": [], "at_ms": 1,
        "readings": filtered, "devices": {"acme/d": filtered}, "up": {"acme/d": up},
    }  # fmt: skip


def loss(segment: int, readings: int) -> dict[str, Any]:
    return {
        "lane": "readings", "reason": "expired", "segment": segment, "places": [[0, 99]],
        "at_ms": 1, "readings": readings, "devices": {"acme/d": readings},
    }  # fmt: skip


def counted(*records: Record) -> list[EdgeCount]:
    ledger = EdgeLedger()
    for record in records:
        ledger.add(record)
    return ledger.counts()


def test_of_two_tallies_of_a_segment_the_greater_counts_in_any_order() -> None:
    told = [said(tally(7, 10, 90)), said(tally(7, 15, 185), tally(8, 1, 2)), said(tally(7, 10, 90))]
    for records in (told, told[::-1]):
        assert counted(*records) == [EdgeCount("acme", "north", "d", 16, 187, 0)]


def test_a_reading_that_was_released_moves_from_filtered_to_sent() -> None:
    records = [said(tally(7, 11, 89)), said(tally(7, 10, 90))]
    assert counted(*records) == [EdgeCount("acme", "north", "d", 11, 89, 0)]


def test_a_segment_of_a_new_spool_is_another_one() -> None:
    records = [said(tally(7, 1, 2)), said(tally(7, 1, 2), batch="6a11.1/losses/1")]
    assert counted(*records) == [EdgeCount("acme", "north", "d", 2, 4, 0)]


def test_a_loss_that_was_told_twice_counts_once() -> None:
    records = [said(loss(3, 5)), said(loss(3, 5), batch="5f00.2/losses/1"), said(loss(4, 2))]
    assert counted(*records) == [EdgeCount("acme", "north", "d", None, 0, 7)]


def test_results_that_were_given_up_count_once_and_those_counted_into_windows_are_no_loss() -> None:
    lost = {**loss(3, 4), "lane": "windows", "devices": {}}
    counted_in = {
        "lane": "ring", "reason": "counted", "window": "1m", "start_ms": 0, "from_ms": 1,
        "readings": 9, "devices": {"acme/d": 9}, "open": {}, "newest_ms": {"acme/d": 5},
    }  # fmt: skip
    ledger = EdgeLedger()
    for record in (said(lost), said(lost, batch="5f00.2/losses/1"), said(counted_in)):
        ledger.add(record)
    assert ledger.windows.given_up == {("acme", "north"): 4}
    assert ledger.counts() == []
    (found,) = ledger.windows.counts("acme").values()
    assert (found.counted, found.open, found.newest_ms) == (9, 0, 5)
    assert ledger.windows.counts("other") == {}


def test_what_no_edge_wrote_is_left_out() -> None:
    junk = Record(0, 0, None, b"{", headers=())
    assert counted(junk, said({"devices": 7}), Record(0, 0, None, b"[1]", headers=())) == []


def test_measured_is_sent_filtered_and_given_up_and_what_was_sent_is_in_the_log() -> None:
    edges = [EdgeCount("acme", "north", "d", 20, 80, 5)]
    rows, problems = held_against(edges, {("acme", "d"): 15})
    assert problems == []
    assert [rows[0][name] for name in ("measured", "sent", "filtered", "given_up", "in_log")] == [
        100, 15, 80, 5, 15
    ]  # fmt: skip
    # A repetition is no contradiction; a reading that is missing is one.
    assert held_against(edges, {("acme", "d"): 16})[1] == []
    (problem,) = held_against(edges, {("acme", "d"): 13})[1]
    assert "acme/north/d: 2 readings" in problem


def test_of_a_device_that_is_not_filtered_only_what_was_given_up_is_known() -> None:
    rows, problems = held_against(
        [EdgeCount("acme", "north", "d", None, 0, 5)], {("acme", "d"): 10}
    )
    assert problems == []
    assert (rows[0]["measured"], rows[0]["sent"]) == (15, 10)
