"""The robust detector: causal, and the same to the bit in any batching."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.core.robust import SCORE_MAX, RobustLevel, RobustParams
from models.core.rounds import rounds

PARAMS = RobustParams(half_life=32, warmup=4, min_spread=1e-9)
values = st.floats(-1e12, 1e12, allow_subnormal=False)
rows = st.lists(st.tuples(st.integers(0, 4), values), min_size=1, max_size=60)


def fresh():
    detector = RobustLevel(PARAMS)
    detector.grow(5)
    return detector


def split(rows):
    return np.asarray([s for s, _ in rows], np.int32), np.asarray([v for _, v in rows])


@settings(max_examples=150)
@given(rows, st.lists(st.integers(0, 60), max_size=5))
def test_scores_have_the_same_bits_in_any_batching(rows, cuts):
    series, value = split(rows)
    whole = np.stack(fresh().score(series, value))
    detector, parts = fresh(), []
    edges = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    for a, b in pairwise(edges):
        parts.append(np.stack(detector.score(series[a:b], value[a:b])))
    assert np.concatenate(parts, axis=1).tobytes() == whole.tobytes()


@settings(max_examples=100)
@given(rows, rows)
def test_a_score_does_not_depend_on_what_comes_later(past, future):
    series, value = split(past)
    alone = fresh().score(series, value)[0]
    with_future = fresh().score(*split(past + future))[0][: len(past)]
    assert alone.tobytes() == with_future.tobytes()


@settings(max_examples=100)
@given(rows)
def test_series_do_not_touch_each_other(rows):
    series, value = split(rows)
    together = fresh().score(series, value)[0]
    for s in np.unique(series):
        mine = series == s
        assert fresh().score(series[mine], value[mine])[0].tobytes() == together[mine].tobytes()


@settings(max_examples=100)
@given(rows)
def test_scores_are_finite_and_within_bounds(rows):
    score, expected, spread = fresh().score(*split(rows))
    assert np.isfinite(score).all()
    assert (score >= 0).all()
    assert (score <= SCORE_MAX).all()
    assert np.isfinite(expected).all()
    assert (spread > 0).all()


@given(st.lists(st.integers(0, 3), max_size=30))
def test_rounds_hold_each_series_once_and_in_order(series):
    codes = np.asarray(series, np.int32)
    parts = list(rounds(codes))
    assert sorted(np.concatenate(parts).tolist() if parts else []) == list(range(len(series)))
    for part in parts:
        assert len(set(codes[part].tolist())) == len(part)
    for s in set(series):
        order = [row for part in parts for row in part.tolist() if series[row] == s]
        assert order == sorted(order)


def test_a_spike_stands_out_and_hardly_widens_the_bound():
    rng = np.random.default_rng(7)
    value = rng.normal(20.0, 0.5, 2000)
    value[1500] = 30.0
    detector = RobustLevel(RobustParams(576, 64, 1e-9))
    detector.grow(1)
    score, _, spread = detector.score(np.zeros(2000, np.int32), value)
    assert score[1500] > 10
    assert np.delete(score, 1500)[64:].max() < 6
    assert spread[1501] < 1.3 * spread[1500]


def test_a_flat_series_does_not_divide_by_zero():
    detector = RobustLevel(RobustParams(576, 64, 1e-3))
    detector.grow(1)
    score, _, _ = detector.score(np.zeros(500, np.int32), np.full(500, 7.0))
    assert score.max() == 0.0
