"""Alerts on NAB's files: never early, never twice, and the same for a scorer without memory."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.nab.alerts import QUIET, begins, told
from benchmarks.nab.scoring import Labelled, curve

SCORES = arrays(np.float64, st.integers(1, 600), elements=st.sampled_from([0.0, 1.0, 2.5, 4.0]))
BOUNDS = st.sampled_from([0.5, 1.0, 3.0])


@given(SCORES, BOUNDS, st.integers(0, QUIET))
def test_an_alert_begins_where_none_went_on(score, bound, quiet):
    expected, last = [], None
    for row, s in enumerate(score.tolist()):
        if s >= bound:
            if last is None or row - last > quiet:
                expected.append(row)
            last = row
    assert begins(score, bound, quiet).tolist() == expected


@given(SCORES, BOUNDS, st.integers(0, 600))
def test_what_comes_later_changes_no_alert(score, bound, cut):
    rows = begins(score, bound)
    assert begins(score[:cut], bound).tolist() == rows[rows < cut].tolist()
    assert told(score[:cut], bound).tolist() == told(score, bound)[:cut].tolist()


@given(SCORES, BOUNDS)
def test_what_is_written_earns_the_same_from_a_scorer_without_memory(score, bound):
    n = len(score)
    file = Labelled("f", np.arange(n), np.zeros(n), [(n // 3, n // 2)])
    bounds = np.asarray([bound])
    ours, plain = curve(file, score, bounds), curve(file, told(score, bound), bounds, quiet=0)
    assert (ours.hits, ours.false, ours.missed) == (plain.hits, plain.false, plain.missed)
