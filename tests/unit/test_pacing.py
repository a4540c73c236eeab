"""When a failed delivery is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.alerts.pacing import AT_LEAST_S, Breaker, Pace, left_s
from streams.alerts.sender import retry_after_s

PACE = Pace(min_s=1.0, max_s=100.0, failures=3)


@given(st.integers(1, 200), st.floats(0, 1, exclude_max=True))
def test_pauses_double_with_jitter_up_to_the_longest(attempt, luck):
    bound = min(100.0, 2.0 ** (attempt - 1))
    assert bound / 2 <= PACE.pause_s(attempt, luck) <= bound


def test_what_the_receiver_asks_for_is_obeyed_up_to_the_longest_pause():
    assert PACE.pause_s(1, 0.0, 30.0) == 30.0
    assert PACE.pause_s(1, 0.0, 1e9) == 100.0


def test_a_message_is_tried_for_as_long_as_it_has_left_when_it_is_first_seen():
    day_s = 86_400.0
    assert left_s(3 * day_s, day_s) == 2 * day_s
    assert left_s(3 * day_s, -day_s) == 3 * day_s  # It comes from a clock that is ahead.
    # And if this one is ahead, or the process was away for days, it is tried all the same.
    assert left_s(3 * day_s, 1e9) == AT_LEAST_S
    assert left_s(60.0, 1e9) == 60.0


def test_retry_after_is_a_number_of_seconds_or_a_date():
    assert retry_after_s("120", 0.0) == 120.0
    assert retry_after_s("Thu, 01 Jan 1970 00:02:00 GMT", 30.0) == 90.0
    assert retry_after_s("Thu, 01 Jan 1970 00:00:00 GMT", 30.0) == 0.0
    assert retry_after_s("soon", 0.0) is None
    assert retry_after_s("١٢", 0.0) in (None, 12.0)
    assert retry_after_s(None, 0.0) is None


def test_a_breaker_lets_one_at_a_time_try_once_it_is_open():
    breaker = Breaker(PACE)
    for _ in range(3):
        assert breaker.wait_s(0.0) == 0.0
        breaker.failed(0.0, 0.0, None)
    assert breaker.is_open
    assert breaker.wait_s(0.1) == 0.4
    assert breaker.wait_s(0.5) == 0.0
    assert breaker.wait_s(0.5) == PACE.min_s
    breaker.failed(0.5, 0.0, None)
    assert breaker.wait_s(0.6) == 0.9
    assert breaker.wait_s(1.5) == 0.0
    breaker.succeeded()
    assert [breaker.wait_s(1.5), breaker.wait_s(1.5)] == [0.0, 0.0]


def test_failures_that_were_under_way_do_not_lengthen_the_pause():
    breaker = Breaker(PACE)
    for _ in range(50):
        breaker.failed(0.0, 0.0, None)
    assert breaker.wait_s(0.0) == 0.5


def test_a_success_in_between_keeps_it_closed():
    breaker = Breaker(PACE)
    for _ in range(10):
        breaker.failed(0.0, 0.0, None)
        breaker.failed(0.0, 0.0, None)
        breaker.succeeded()
        assert not breaker.is_open
