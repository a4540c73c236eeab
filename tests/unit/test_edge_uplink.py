"""What goes up next, how much, and when it is sent again."""

from __future__ import annotations

import random

import pytest

from edge.spool.lane import Entry
from edge.spool.records import Record
from edge.uplink.pace import BatchSize, Bucket, Hours, Shares
from edge.uplink.window import Batch, Window
from streams.settings import EdgeUplink


def batch(number: int, *, backlog: bool = False, size: int = 100) -> Batch:
    entry = Entry("readings", 1, number, Record(b"", 1, 0, 0))
    return Batch(f"s/{number}", "readings", bytes(size), [entry], backlog)


def window(max_batches: int = 4, max_bytes: int = 10_000) -> Window:
    return Window(max_batches, max_bytes, (2.0, 60.0), random.Random(1))


def test_a_bucket_lets_a_burst_pass_and_then_its_rate() -> None:
    bucket = Bucket(1_000, 0.0)
    sent, now_s = 0, 0.0
    while now_s < 10.0:
        now_s += bucket.wait_s(now_s) or 0.0
        if bucket.wait_s(now_s) == 0.0:
            bucket.take(300)
            sent += 300
    assert 10_000 <= sent <= 10_000 + 1_000 + 2 * 300
    assert Bucket(0, 0.0).wait_s(5.0) == 0.0


@pytest.mark.parametrize(
    ("minute", "is_open"), [(21 * 60 + 59, False), (22 * 60, True), (0, True), (360, False)]
)
def test_upload_hours_may_pass_midnight(minute: int, *, is_open: bool) -> None:
    hours = Hours(EdgeUplink(hours=["22:00-06:00"]).spans())
    assert hours.open(minute) is is_open
    assert Hours().open(minute)


def test_hours_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="expected such as 22:00-06:00"):
        EdgeUplink(hours=["25:00-06:00"])


def test_batches_grow_on_a_quick_link_and_halve_when_answers_stay_away() -> None:
    size = BatchSize(50, 5_000, 0.5)
    before = size.rows
    for _ in range(100):
        size.answered(0.1)
    assert before < size.rows == 5_000
    size.lost()
    assert size.rows == 2_500
    for _ in range(20):
        size.lost()
    assert size.rows == 50
    size.rows = 1_000
    size.answered(3.0)
    assert size.rows == 900


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_the_backlog_gets_its_share_while_fresh_readings_wait(share: float) -> None:
    shares = Shares(share)
    sent = {True: 0, False: 0}
    for _ in range(2_000):
        backlog = shares.backlog_first()
        shares.sent(100, backlog=backlog)
        sent[backlog] += 100
    assert sent[True] / 200_000 == pytest.approx(share, abs=0.05)


def test_a_quarter_of_the_window_is_never_the_backlogs() -> None:
    found = window(max_batches=4)
    for number in range(3):
        assert found.room(backlog=True)
        found.add(batch(number, backlog=True), 0.0)
    assert not found.room(backlog=True)
    assert found.room(backlog=False)
    found.add(batch(3), 0.0)
    assert not found.room(backlog=False)


def test_a_window_is_bounded_by_bytes_too() -> None:
    found = window(max_bytes=150)
    found.add(batch(1), 0.0)
    assert found.room(backlog=False)
    found.add(batch(2), 0.0)
    assert not found.room(backlog=False)
    found.answered(["s/1"], 1.0)
    assert found.room(backlog=False)


def test_what_is_not_answered_is_sent_again_after_ever_longer_pauses_with_jitter() -> None:
    found = window()
    one = batch(1)
    found.add(one, 0.0)
    now_s, pauses = 0.0, []
    for _ in range(8):
        assert found.due(now_s) == [one]
        found.sent(one, now_s)
        assert found.due(now_s) == []
        pauses.append(found.next_due_s() - now_s)
        now_s = found.next_due_s()
    expected = [2, 4, 8, 16, 32, 60, 60, 60]
    assert all(0.75 * e <= p <= 1.25 * e for p, e in zip(pauses, expected, strict=True))
    assert len(set(pauses)) == len(pauses)
    assert found.resent == 7


def test_an_answer_to_a_batch_that_was_sent_twice_tells_no_time() -> None:
    found = window()
    for number in (1, 2):
        found.add(batch(number), 0.0)
        found.sent(found.due(0.0)[0], 0.0)
    found.sent(found.due(10.0)[0], 10.0)
    done, times = found.answered(["s/1", "s/2", "s/2", "other"], 11.0)
    assert [one.id for one in done] == ["s/1", "s/2"]
    assert times == [11.0]
    assert found.round_trip_s == 11.0


def test_a_gateway_that_is_busy_says_when() -> None:
    found = window()
    one = batch(1)
    found.add(one, 0.0)
    found.sent(one, 0.0)
    found.postpone("s/1", 30.0)
    assert found.due(29.0) == []
    assert found.due(30.0) == [one]


def test_after_a_connection_every_batch_waits_anew() -> None:
    found = window()
    sent, unsent = batch(1), batch(2)
    for one in (sent, unsent):
        found.add(one, 0.0)
    for _ in range(9):
        found.sent(sent, 0.0)
    found.reconnected(100.0)
    assert found.due(100.0) == [unsent]
    assert 101.0 < sent.due_s < 103.0
