"""The audit finds what is missing and what is counted twice."""

from __future__ import annotations

import pyarrow as pa
import pytest

from streams.audit import Log, reconcile
from streams.core.windows import Tumbling

MINUTE = Tumbling(name="1m", size_ms=60_000, horizon_ms=600_000)


def reading(offset, t_ms, *, seq=None, value=1.0, quality=0):
    return {
        "tenant": "t", "site": "s", "device": "d", "metric": "m", "t_ms": t_ms, "value": value,
        "quality": quality, "boot": 0 if seq is not None else None, "seq": seq,
        "kafka_partition": 0, "kafka_offset": offset, "row": 0,
    }  # fmt: skip


def result(start_ms, count, rank=0, offset=0):
    return {
        "tenant": "t", "site": "s", "device": "d", "metric": "m", "window": "1m",
        "source": "cloud", "start_ms": start_ms, "rank": rank, "count": count,
        "kafka_partition": 0, "kafka_offset": offset, "row": 0,
    }  # fmt: skip


READING = pa.Table.from_pylist([reading(0, 0, seq=0)]).schema
READING = pa.schema([f.with_type(pa.int64()) if f.name in ("boot", "seq") else f for f in READING])


def log(readings, results, verdicts=()):
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
