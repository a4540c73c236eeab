"""Log time on a replay: never later than it was the first time."""

from __future__ import annotations

import numpy as np

from streams.core.log_clock import LogClock


def read(clock, *records):
    offset, log_ms = zip(*records, strict=True)
    return clock.read(np.asarray(offset), np.asarray(log_ms)).tolist()


def test_time_never_goes_back():
    clock = LogClock()
    assert read(clock, (0, 50), (1, 40), (2, 60)) == [50, 50, 60]
    assert read(clock, (3, 10)) == [60]


def test_a_replayed_record_takes_the_time_only_of_what_was_stored_before_it():
    clock = LogClock()
    clock.learn(9, 300)
    clock.learn(5, 100)
    assert read(clock, (4, 80), (5, 90), (6, 90)) == [80, 90, 100]
    assert read(clock, (9, 250), (10, 260)) == [250, 300]
    assert clock.now_ms == 300
