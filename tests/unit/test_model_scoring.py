"""Trained models in the worker: rows from windows, versions that change while it runs, shadows."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.registry import Registry
from models.training import Plan, train
from models.trials import PromotionRule, Trial, objection, total
from streams.agents.scoring import make_scoring
from streams.core.feature_rows import FeatureRows, Result
from streams.errors import SettingsError
from streams.settings import Scoring, Settings
from streams.testing import Driver
from tests.windows import results_frame

FEATURES = ("flow", "heat")


def healthy(n, seed=1):
    rng = np.random.default_rng(seed)
    heat = rng.normal(40.0, 2.0, n)
    return np.column_stack([3.0 * heat + rng.normal(0, 1.0, n), heat])


def learn(folder, seed=1, kind="covariance", features=FEATURES):
    rows, t_ms = healthy(600, seed), np.arange(600) * 60_000
    plan = Plan(kind, seed)
    return Registry(folder).add("pump", plan, train(plan, features, t_ms, rows), t_ms, rows)


@pytest.fixture
def folder(tmp_path):
    learn(tmp_path)
    return tmp_path


def worker(folder, **scoring):
    return Driver(make_scoring(Settings(models=folder, scoring=[Scoring(name="pump", **scoring)])))


def minute(start, rows, **more):
    """Return the results of one minute: a row of features per device."""
    return results_frame(
        *(
            {"device": f"p{i}", "metric": metric, "start": start, "value": value, **more}
            for i, row in enumerate(rows)
            for metric, value in zip(FEATURES, row, strict=True)
        )
    )


def told(driver):
    return [
        (row["device"], row["metric"], row["t_ms"], row["score"].hex(), row["detector"])
        for row in driver.rows("anomalies")
    ]


BROKEN = (120.0, 60.0)


def test_a_strange_row_is_told_with_its_version_and_in_words_and_so_is_its_end(folder):
    driver = worker(folder)
    driver.send(minute(1, [(120.0, 40.0), (120.0, 40.0)]), at_ms=120_000)
    assert driver.rows("anomalies") == []
    driver.send(minute(2, [(120.0, 40.0), BROKEN]), at_ms=180_000)
    driver.send(minute(3, [(120.0, 40.0), (120.0, 40.0)]), at_ms=240_000)
    strange, ended = driver.rows("anomalies")
    assert strange["device"] == "p1"
    assert strange["metric"] == "model.pump"
    assert strange["detector"] == "pump/1"
    assert strange["t_ms"] == 120_000
    assert strange["score"] >= 5.0 > ended["score"]
    assert "heat 60 (usual 40" in strange["why"]
    assert ended["why"] == ""


def test_a_relation_that_breaks_inside_the_ranges_is_said_to_be_one(folder):
    driver = worker(folder)
    driver.send(minute(1, [(112.0, 43.0)]), at_ms=120_000)
    (strange,) = driver.rows("anomalies")
    assert strange["why"].startswith(("the relation between flow, heat", "heat", "flow"))
    assert "bound" in strange["why"]


def test_a_new_champion_is_taken_without_a_restart_and_rolled_back_in_one(folder):
    driver = worker(folder)
    driver.send(minute(1, [BROKEN]), at_ms=120_000)
    learn(folder, seed=2)
    registry = Registry(folder)
    registry.promote("pump")
    driver.send(minute(2, [BROKEN]), at_ms=180_000)
    registry.roll_back("pump")
    driver.send(minute(3, [BROKEN]), at_ms=240_000)
    assert [row["detector"] for row in driver.rows("anomalies")] == ["pump/1", "pump/2", "pump/1"]


def test_a_changed_version_is_refused_and_what_was_in_use_goes_on(folder):
    driver = worker(folder)
    driver.send(minute(1, [BROKEN]), at_ms=120_000)
    learn(folder, seed=2)
    (folder / "pump/2/model.onnx").write_bytes(b"something else")
    Registry(folder).promote("pump")
    driver.send(minute(2, [BROKEN]), at_ms=180_000)
    assert [row["detector"] for row in driver.rows("anomalies")] == ["pump/1", "pump/1"]


def test_a_challenger_is_scored_in_shadow_and_raises_no_alarm(folder):
    learn(folder, seed=2, kind="isolation-forest")
    driver = worker(folder)
    for k in range(1, 6):
        driver.send(minute(k, [(120.0, 40.0), BROKEN]), at_ms=60_000 * (k + 1))
    assert {row["detector"] for row in driver.rows("anomalies")} == {"pump/1"}
    trial = Trial(**orjson.loads(driver.records("model.trials")[-1].value))
    assert (trial.champion, trial.challenger, trial.rows, trial.champion_over) == (1, 2, 10, 5)
    assert total([trial, trial], "pump", 1, 2).rows == 20
    assert total([trial], "pump", 1, 3).rows == 0


def test_a_challenger_wins_by_the_rule_only_with_enough_rows_and_no_more_alarms():
    rule = PromotionRule(rows=100, alarms=1.0, agrees=0.5)
    good = Trial("pump", 1, 2, rows=100, champion_over=10, challenger_over=8, both_over=6)
    assert objection(good, rule) == ""
    assert "the rule: 100" in objection(Trial("pump", 1, 2, rows=99), rule)
    assert "times as many" in objection(Trial("pump", 1, 2, 100, 10, 11, 10), rule)
    assert "a share of 0.5" in objection(Trial("pump", 1, 2, 100, 10, 4, 4), rule)


def test_inputs_outside_of_training_are_told_as_drift_for_as_long_as_they_are(folder):
    driver = worker(folder, drift_rows=20)
    start = 0

    def minutes(n, row):
        nonlocal start
        for _ in range(n):
            start += 1
            driver.send(minute(start, [row]), at_ms=60_000 * (start + 1))

    def drift():
        return [r for r in driver.rows("anomalies") if r["metric"] == "model.pump.drift"]

    minutes(40, (120.0, 40.0))
    assert drift() == []
    minutes(10, (300.0, 100.0))
    assert "of flow are outside of what the model has learnt" in drift()[0]["why"]
    assert drift()[-1]["score"] > 5.0
    minutes(120, (120.0, 40.0))
    assert drift()[-1]["score"] < 5.0
    assert drift()[-1]["why"] == ""


rows = st.lists(st.sampled_from([(120.0, 40.0), BROKEN, (90.0, 30.0)]), min_size=3, max_size=3)


@settings(max_examples=25)
@given(
    plan=st.lists(st.tuples(rows, st.sampled_from([1, 1, 1, 0])), min_size=2, max_size=8),
    steps=st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), max_size=8),
)
def test_batches_and_crashes_change_nothing_that_is_told(tmp_path_factory, plan, steps):
    folder = tmp_path_factory.getbasetemp() / "shared-model"
    if not folder.exists():
        learn(folder)
    calm, rough = worker(folder, drift_rows=3), worker(folder, drift_rows=3)
    start = 0
    for row, step in plan:
        start += step  # 0: a correction of the minute before
        for driver in (calm, rough):
            driver.append(minute(start, row, rank=1 - step), at_ms=60_000 * (start + 1))
    for _ in plan:
        calm.step(1)
    for size, keeps, crashes in steps:
        rough.step(size)
        if keeps:
            rough.checkpoint()
        if crashes:
            rough.crash()
    rough.run()
    assert sorted(set(told(rough))) == sorted(set(told(calm)))


def result(start, mean=1.0):
    return Result("s", start, mean, 0, 0, 0, 0)


def test_a_row_waits_until_the_next_window_and_is_made_once():
    waiting = FeatureRows(("a", "b"), 1)
    device = ("t", "d")
    assert waiting.take(device, 0, result(0)) is None
    assert waiting.take(device, 0, result(60)) is None  # b had nothing in the first window
    assert waiting.incomplete == 1
    assert waiting.take(device, 1, result(0)) is None  # too late
    assert waiting.take(device, 1, result(60, 2.0)).values == (1.0, 2.0)
    assert waiting.take(device, 1, result(60, 3.0)) is None  # a correction
    assert waiting.take(("t", "other"), 0, result(60)) is None
    assert waiting.refused == 1


def test_a_model_needs_a_window_that_tumbles():
    with pytest.raises((ValueError, SettingsError), match="expected one that tumbles: 1m"):
        Settings(scoring=[Scoring(name="pump", window="hour")])
