"""Predictive maintenance: health, time to the limit, and whether its interval holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.core.wear import health, time_to_limit, trend
from models.errors import ModelError
from models.remaining import learn_remaining
from models.simulated_wear import LIMIT, lives


def coverage(share, *, exponential):
    held = []
    for life in lives(120, 5, exponential=exponential):
        seen = int(share * life.failed)
        found = time_to_limit(life.day[:seen], life.wear[:seen], LIMIT, logarithmic=exponential)
        held.append(found.low <= life.failed - life.day[seen - 1] <= found.high)
    return np.mean(held)


@pytest.mark.parametrize("exponential", [False, True], ids=["steady", "exponential"])
def test_the_interval_of_ninety_percent_holds_about_as_often(exponential):
    assert 0.8 <= coverage(0.8, exponential=exponential) <= 0.98


@pytest.mark.parametrize("exponential", [False, True], ids=["steady", "exponential"])
def test_it_holds_early_in_a_life_too(exponential):
    assert 0.84 <= coverage(0.3, exponential=exponential) <= 0.98


def test_a_straight_line_is_told_to_the_day():
    day = np.arange(50.0)
    found = time_to_limit(day, 1.0 + 0.1 * day, 10.9)
    assert found.median == pytest.approx(50.0, rel=0.02)
    assert found.low <= found.median <= found.high


def test_wear_may_shrink_towards_its_limit():
    day = np.arange(60.0)
    lining = 12.0 - 0.1 * day + np.random.default_rng(1).normal(0, 0.02, 60)
    assert time_to_limit(day, lining, 3.0).median == pytest.approx(31.0, abs=4.0)


def test_what_does_not_grow_never_gets_there():
    day = np.arange(100.0)
    still = 1.0 + np.random.default_rng(2).normal(0, 0.01, 100)
    assert time_to_limit(day, still, 100.0).high == np.inf


def test_wild_readings_hardly_move_the_rate():
    day = np.arange(200.0)
    wear = 0.1 * day + np.random.default_rng(3).normal(0, 0.1, 200)
    wear[::17] += 50.0
    assert trend(day, wear).rate == pytest.approx(0.1, rel=0.1)


@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), max_size=40))
def test_any_wear_has_an_interval_in_order_or_a_reason(wear):
    day = np.arange(len(wear), dtype=float)
    try:
        found = time_to_limit(day, np.asarray(wear), 2e6)
    except ValueError as error:
        assert "points of wear" in str(error)
    else:
        assert 0.0 <= found.low <= found.median <= found.high


def test_health_is_one_when_new_and_nothing_at_the_limit():
    assert health(np.asarray([1.0, 5.5, 10.0, 12.0]), 1.0, 10.0).tolist() == [1.0, 0.5, 0.0, 0.0]
    with pytest.raises(ValueError, match="expected two values"):
        health(np.zeros(1), 3.0, 3.0)


def known(machines, seed):
    rows, left, machine = [], [], []
    for k, life in enumerate(lives(machines, seed)):
        for seen in range(20, int(life.failed), 10):
            newest = life.wear[seen - 10 : seen].mean()
            rate = (newest - life.wear[:10].mean()) / (seen - 10)
            rows.append([newest, rate, seen])
            left.append(life.failed - life.day[seen - 1])
            machine.append(k)
    return np.asarray(rows), np.asarray(left), np.asarray(machine)


def test_machines_that_ran_to_failure_teach_an_interval_that_holds_for_others():
    learnt = learn_remaining(*known(40, 1))
    rows, left, _ = known(40, 2)
    low, median, high = learnt.predict(rows).T
    assert ((low <= left) & (left <= high)).mean() >= 0.8
    assert np.median(np.abs(median - left)) < np.median(np.abs(np.median(left) - left)) / 2
    assert (low <= median).all()
    assert (median <= high).all()


def test_too_few_machines_are_said():
    with pytest.raises(ModelError, match="3 machines that ran to failure; expected 10"):
        learn_remaining(*known(3, 1))
