"""NAB's scoring, against what its rules say by hand; and that nothing looks ahead on real files."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.nab.alerts import QUIET, begins
from benchmarks.nab.contestants import CONTESTANTS
from benchmarks.nab.files import load
from benchmarks.nab.scoring import PROFILES, Labelled, candidates, curve, judge
from models.core.catalogue import detectors
from models.core.ensemble import EnsembleParams


def file(windows, n=1_000):
    return Labelled("f", np.arange(n) * 300_000, np.zeros(n), windows)


def scored(labelled, *alerts):
    score = np.zeros(len(labelled.value))
    score[list(alerts)] = 1.0
    thresholds = np.asarray([1.0])
    rng = np.random.default_rng(1)
    curves = {"f": curve(labelled, score, thresholds)}
    return {p: judge(curves, thresholds, p, rng).best for p in PROFILES}


def test_every_window_found_at_its_begin_is_a_hundred():
    assert scored(file([(300, 399), (600, 699)]), 300, 600) == pytest.approx(
        dict.fromkeys(PROFILES, 100.0)
    )


def test_no_alert_is_nothing():
    assert scored(file([(300, 399)])) == dict.fromkeys(PROFILES, 0.0)


def test_a_false_alert_far_from_any_window_costs_its_weight():
    found = scored(file([(300, 399)]), 152, 300)
    assert found["standard"] == pytest.approx(100 * (2 - 0.11) / 2)
    assert found["low FP"] == pytest.approx(100 * (2 - 0.22) / 2)
    assert found["low FN"] == pytest.approx(100 * (3 - 0.11) / 3)


def test_late_in_the_window_is_worth_less_and_probation_is_free():
    early, late = scored(file([(300, 399)]), 310), scored(file([(300, 399)]), 390)
    assert late["standard"] < early["standard"] < 100
    assert scored(file([(300, 399)]), 100, 300)["standard"] == pytest.approx(100.0)


def test_an_alert_that_goes_on_is_one_alert_however_high_it_rises():
    score = np.zeros(1_000)
    score[500:520] = np.linspace(4.0, 9.0, 20)
    score[520 + QUIET - 1] = 5.0
    assert begins(score, 4.0).tolist() == [500]
    assert begins(score, 8.0).tolist() == [516]


def test_an_alert_is_over_after_its_quiet():
    score = np.zeros(1_000)
    score[[500, 501 + QUIET]] = 4.0
    assert begins(score, 4.0).tolist() == [500, 501 + QUIET]


def test_a_rising_alert_outside_costs_once():
    score = np.zeros(1_000)
    score[200:220], score[300] = np.linspace(1.0, 3.0, 20), 1.0
    score[300 + QUIET] = 1.0
    thresholds = np.asarray([1.0])
    labelled = file([(600, 699)])
    assert curve(labelled, score, thresholds).false == pytest.approx([-1.0])
    assert curve(labelled, score, thresholds, quiet=0).false == pytest.approx([-22.0])


def test_baselines_score_every_row_of_the_files_that_come_with_the_project():
    files = load(None)[-2:]
    for name in ("windowed Gaussian", "range check", "clock"):
        scores = CONTESTANTS[name](files)
        assert [len(s) for s in scores] == [len(f.value) for f in files]
        assert len(candidates(scores)) >= 2


def test_prefixes_of_a_real_file_have_the_scores_of_the_whole():
    key_hold = next(f for f in load(None) if "key_hold" in f.name)
    series = np.zeros(len(key_hold.value), np.int32)

    def score(ends):
        detector, found = detectors()["ensemble"](EnsembleParams()), []
        detector.grow(1)
        for begin, end in zip([0, *ends], [*ends, len(series)], strict=True):
            rows = slice(begin, end)
            found.append(detector.score(series[rows], key_hold.t_ms[rows], key_hold.value[rows])[0])
        return np.concatenate(found)

    assert score([400, 401, 1_200]).tobytes() == score([]).tobytes()
