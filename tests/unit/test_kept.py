"""Readings that panes keep: the time-weighted mean and the number of distinct values."""

import numpy as np
import pytest

from streams.core import kept
from streams.core.kept import States, Steps
from streams.core.windows import Hopping, Tumbling

A, B = np.asarray([0]), np.asarray([1])


def steps(*readings):
    found = Steps()
    for t_ms, value in readings:
        found.add(A, np.asarray([t_ms]), np.asarray([value]))
    return found.means(A, A, 1)[0]


def test_a_value_holds_until_the_next_reading():
    # 2 for 10 ms, 8 for 30 ms; the last value holds for no time.
    assert steps((0, 2.0), (10, 8.0), (40, 100.0)) == (2 * 10 + 8 * 30) / 40


def test_the_order_of_arrival_does_not_matter_but_at_one_moment():
    assert steps((40, 100.0), (0, 2.0), (10, 8.0)) == (2 * 10 + 8 * 30) / 40
    assert steps((0, 2.0), (10, 3.0), (10, 8.0), (40, 1.0)) == (2 * 10 + 8 * 30) / 40
    assert steps((10, 3.0), (10, 8.0)) == 8.0
    assert steps((10, 3.0)) == 3.0


def test_values_are_counted_once_and_zero_has_no_sign():
    states, count = States(), np.zeros(2, np.int64)
    values = np.asarray([0.0, -0.0, 1.5, 1.5, 2.0])
    assert states.add(count, np.asarray([0, 0, 0, 1, 0]), values, 10) == 0
    assert states.add(count, A, np.asarray([2.0]), 10) == 0
    assert count.tolist() == [3, 1]
    assert states.counts(np.asarray([0, 0]), np.asarray([0, 1]), 1).tolist() == [3.0]
    states.absorb(count, 1, 0, 10)
    assert count.tolist() == [3, 3]


def test_what_goes_beyond_the_limit_is_not_kept():
    states, count = States(), np.zeros(1, np.int64)
    dropped = [states.add(count, A, np.asarray([float(i)]), 3) for i in range(5)]
    assert dropped == [0, 0, 0, 1, 1]
    assert count[0] > 3


@pytest.mark.parametrize("scanned", [0, 1_000])
def test_rows_are_found_and_renumbered_in_order_of_arrival(monkeypatch, scanned):
    monkeypatch.setattr(kept, "_SCANNED", scanned)
    found = Steps()
    found.add(np.asarray([1, 0, 1]), np.asarray([5, 6, 5]), np.asarray([1.0, 2.0, 3.0]))
    assert found.means(np.asarray([0]), B, 1).tolist() == [3.0]
    # A pane may belong to several owners.
    assert found.means(np.asarray([0, 1]), np.asarray([1, 1]), 2).tolist() == [3.0, 3.0]
    found.renumber(np.asarray([-1, 0]))
    assert found.means(A, A, 1).tolist() == [3.0]
    again = Steps()
    again.restore(found.snapshot(A), np.asarray([4]))
    assert again.means(A, np.asarray([4]), 1).tolist() == [3.0]


def test_the_limit_tells_definitions_apart_only_where_it_decides_a_result():
    plain = [Tumbling(name="w", size_ms=5, max_points=n).written for n in (5, 6)]
    assert plain == [repr(Tumbling(name="w", size_ms=5))] * 2
    keeping = {"name": "w", "size_ms": 6, "step_ms": 2, "aggregates": ("distinct",)}
    assert Hopping(**keeping, max_points=5).written != Hopping(**keeping, max_points=6).written
