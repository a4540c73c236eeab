"""The audit finds what is missing and what is counted twice."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from streams.adapters.edge_windows import WindowLedger
from streams.audit import reconcile
from streams.audit_log import Log
from streams.core.windows import Hopping, Tumbling

MINUTE = Tumbling(name="1m", size_ms=60_000, horizon_ms=600_000)


def reading(offset, t_ms, *, seq=None, value=1.0, quality=0):
    return {
        "tenant": "t", "site": "s", "device": "d", "metric": "m", "t_ms": t_ms, "value": value,
        "quality": quality, "boot": 0 if seq is not None else None, "seq": seq,
        "kafka_partition": 0, "kafka_offset": offset, "row": 0,
    }  # fmt: skip


def result(start_ms, count, rank=0, offset=0, *, source="cloud", received_ms=0):
    return {
        "tenant": "t", "site": "s", "device": "d", "metric": "m", "window": "1m",
        "source": source, "start_ms": start_ms, "rank": rank, "count": count,
        "last_received_ms": received_ms,
        "kafka_partition": 0, "kafka_offset": offset, "row": 0,
    }  # fmt: skip


READING = pa.Table.from_pylist([reading(0, 0, seq=0)]).schema
READING = pa.schema([f.with_type(pa.int64()) if f.name in ("boot", "seq") else f for f in READING])


def log(readings, results, verdicts=(), counted=(), *, edge_windows=None):
    return Log(
        pa.Table.from_pylist(readings, schema=READING),
        pa.Table.from_pylist(results or [result(0, 0)])[: len(results)],
        pa.table(
            {
                "source": pa.array([s for s, _ in verdicts], pa.string()),
                "verdict": pa.array([v for _, v in verdicts], pa.string()),
            }
        ),
        0,
        frozenset(counted),
        edge_windows=edge_windows or WindowLedger(),
    )


def test_an_honest_log_balances():
    readings = [
        reading(0, 1_000, seq=0),
        reading(1, 2_000, seq=1),
        reading(2, 2_000, seq=1),
        reading(3, 70_000, seq=2),
        reading(4, 900_000_000, seq=3),
    ]
    verdicts = [("kafka:readings/0/4/0", "quarantined")]
    report = reconcile(log(readings, [result(0, 2)], verdicts), [MINUTE], None)
    assert report.problems == []
    assert report.classes == {
        "accepted": 3, "duplicate": 1, "late": 0, "quarantined": 1, "rejected": 0,
    }  # fmt: skip
    assert (report.in_windows, report.in_open_windows) == (2, 1)


@pytest.mark.parametrize("told", [1, 3])
def test_a_lost_or_doubled_reading_is_found(told):
    readings = [reading(0, 1_000, seq=0), reading(1, 2_000, seq=1)]
    report = reconcile(log(readings, [result(0, told)]), [MINUTE], None)
    assert not report.holds
    assert "2 readings belong inside" in report.problems[0]


def test_a_result_without_any_reading_is_found():
    report = reconcile(
        log([reading(0, 1_000, seq=0)], [result(0, 1), result(60_000, 5)]), [MINUTE], None
    )
    assert "0 readings belong inside, the result (revision 0) says 5" in report.problems[0]


def test_the_greatest_revision_counts():
    results = [result(0, 1, rank=0), result(0, 2, rank=1, offset=1), result(0, 1, rank=0, offset=2)]
    readings = [reading(0, 1_000, seq=0), reading(1, 2_000, seq=1)]
    assert reconcile(log(readings, results), [MINUTE], None).holds


def test_a_window_that_another_one_outlasts_is_not_compared_whatever_its_kind():
    """The second reading came too late for the minute alone, which nothing outside tells."""
    readings = [reading(0, 1_000, seq=0), reading(1, 2_000, seq=1)]
    both = log(readings, [result(0, 1)])
    longer = Hopping(name="1d", size_ms=86_400_000, step_ms=3_600_000)
    assert not reconcile(both, [MINUTE], None).holds
    assert reconcile(both, [MINUTE, longer], None).holds


def test_readings_that_nothing_identifies_count_each_time():
    readings = [reading(i, 1_000, quality=4) for i in range(3)]
    report = reconcile(log(readings, [result(0, 3)]), [MINUTE], None)
    assert report.holds
    assert report.classes["accepted"] == 3


def test_influx_must_hold_the_same():
    readings = [reading(0, 1_000, seq=0)]
    both = log(readings, [result(0, 1)])
    assert reconcile(both, [MINUTE], {"windows": 1, "count": 1}).holds
    assert not reconcile(both, [MINUTE], {"windows": 1, "count": 2}).holds


def test_a_late_reading_that_was_counted_by_a_redrive_belongs_inside():
    readings = [reading(0, 1_000, seq=0), reading(1, 2_000, seq=1)]
    source = "kafka:readings/0/1/0"
    late = [(source, "late")]
    assert reconcile(log(readings, [result(0, 2)], late, [source]), [MINUTE], None).holds
    assert not reconcile(log(readings, [result(0, 2)], late), [MINUTE], None).holds
    assert not reconcile(log(readings, [result(0, 1)], late, [source]), [MINUTE], None).holds


def test_what_an_operator_put_back_is_no_duplicate_of_what_lies_in_quarantine():
    readings = [reading(0, 1_000), reading(1, 1_000, quality=12), reading(2, 1_000)]
    verdicts = [("kafka:readings/0/0/0", "quarantined")]
    report = reconcile(log(readings, [result(0, 1)], verdicts), [MINUTE], None)
    assert report.holds
    assert (report.classes["accepted"], report.classes["duplicate"]) == (1, 1)


def test_the_lake_must_hold_each_row_of_the_log_once():
    both = log([reading(0, 1_000, seq=0), reading(1, 2_000, seq=1)], [result(0, 2)])
    whole = {"readings": both.readings, "aggregates": both.aggregates}
    assert reconcile(both, [MINUTE], None, whole).holds
    beyond = log([reading(at, 1_000, seq=at) for at in range(9)], []).readings
    assert reconcile(both, [MINUTE], None, {**whole, "readings": beyond}).holds
    behind = reconcile(both, [MINUTE], None, {**whole, "readings": both.readings.slice(1)})
    assert behind.lake["readings"] == {"there": 1, "missing": 1, "twice": 0}
    assert "1 rows of the log are missing" in behind.problems[0]
    doubled = pa.concat_tables([both.aggregates, both.aggregates])
    twice = reconcile(both, [MINUTE], None, {**whole, "aggregates": doubled})
    assert "1 are there twice" in twice.problems[0]
    none = reconcile(both, [MINUTE], None, {"readings": None, "aggregates": None})
    assert none.lake["readings"]["missing"] == 2


def test_sites_are_the_sums_of_their_devices():
    readings = [reading(0, 1_000, seq=0), {**reading(1, 1_000, seq=0), "device": "e"}]
    readings.append({**reading(2, 1_000, seq=0), "device": "f", "site": "other"})
    report = reconcile(log(readings, []), [MINUTE], None)
    counts = {site["site"]: (site["devices"], site["accepted"]) for site in report.sites}
    assert counts == {"s": (2, 2), "other": (1, 1)}
    assert report.as_json()["sites"] == report.sites


def of_an_edge(*said: tuple[int, int, int], lost: int = 0) -> WindowLedger:
    """The windows of `1m` on a day: readings counted, of them in open windows, newest receipt."""
    ledger = WindowLedger()
    for counted, still_open, newest_ms in said:
        entry = {
            "window": "1m", "start_ms": 0, "from_ms": 10, "devices": {"t/d": counted},
            "open": {"t/d": still_open}, "newest_ms": {"t/d": newest_ms},
        }  # fmt: skip
        ledger.take("t", "s", "5f00", entry)
    if lost:
        ledger.given_up["t", "s"] = lost
    return ledger


TOLD = [
    result(0, 8, source="edge", received_ms=70),
    result(0, 9, rank=1, offset=1, source="edge", received_ms=90),
    result(60_000, 3, source="edge", received_ms=80),
    result(120_000, 2, rank=-1, source="edge", received_ms=99),
]


def test_windows_of_an_edge_hold_what_its_edge_has_counted_into_them():
    report = reconcile(log([], TOLD, edge_windows=of_an_edge((14, 2, 99))), [MINUTE], None)
    assert report.holds
    assert report.edge_windows == [
        {
            "tenant": "t", "site": "s", "device": "d", "window": "1m",
            "counted": 14, "open": 2, "in_log": 12, "results_given_up": 0,
        }
    ]  # fmt: skip


def test_a_window_that_is_missing_is_told_by_name_unless_the_ledger_has_it():
    ledger = of_an_edge((13, 0, 99))
    (problem,) = reconcile(log([], TOLD, edge_windows=ledger), [MINUTE], None).problems
    assert problem.startswith("t/s/d, windows 1m that begin on 1970-01-01: its edge closed ")
    assert "with 13 readings, and the log has 12" in problem
    assert reconcile(
        log([], TOLD, edge_windows=of_an_edge((13, 0, 99), lost=1)), [MINUTE], None
    ).holds


def test_more_in_windows_than_an_edge_has_counted_is_found_once_it_knows_of_all():
    ledger = of_an_edge((11, 0, 90))
    (problem,) = reconcile(log([], TOLD, edge_windows=ledger), [MINUTE], None).problems
    assert "put 11 readings into windows, and the results in the log have 12" in problem
    # Its entry is older than the results: nothing follows.
    assert reconcile(log([], TOLD, edge_windows=of_an_edge((11, 0, 89))), [MINUTE], None).holds


def test_of_what_an_edge_says_of_a_day_the_newest_counts_in_any_order():
    said = [(11, 11, 85), (12, 3, 90), (12, 0, 90)]
    for some in (said, said[::-1]):
        assert reconcile(log([], TOLD, edge_windows=of_an_edge(*some)), [MINUTE], None).holds
    # Of another spool, another edge's beginning: the sums count.
    both = of_an_edge((5, 0, 80))
    entry = {"window": "1m", "start_ms": 0, "from_ms": 10, "devices": {"t/d": 7}}
    both.take("t", "s", "6a11", {**entry, "newest_ms": {"t/d": 90}})
    assert reconcile(log([], TOLD, edge_windows=both), [MINUTE], None).holds


def test_a_day_whose_results_have_left_the_log_is_no_contradiction():
    whole = log([], [], edge_windows=of_an_edge((13, 0, 99)))
    assert not reconcile(whole, [MINUTE], None).holds
    assert reconcile(replace(whole, results_since_ms=10), [MINUTE], None).holds
