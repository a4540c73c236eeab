"""Detectors over several features: learnt, as ONNX, stored, changed, promoted, rolled back."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

from models.errors import ModelError
from models.graphs import to_onnx
from models.multivariate import KINDS, STEP, fit
from models.registry import Registry, compare, drift
from models.report import html
from models.scorer import Scorer
from models.training import Plan, train
from streams.cli.main import app
from streams.errors import HeadwaterError
from streams.training_data import from_file, from_lake

FEATURES = ("current", "pressure", "flow", "heat")


def healthy(n, seed=1):
    """Four features that move together: two causes, and a little noise."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(0).normal(size=(2, 4))
    return rng.normal(size=(n, 2)) @ mix + 0.1 * rng.normal(size=(n, 4)) + [5.0, 1e3, 0.0, -40.0]


@pytest.fixture(scope="module")
def models():
    return {kind: fit(kind, FEATURES, healthy(600), 1) for kind in KINDS}


def times(n):
    return 1_700_000_000_000 + np.arange(n) * 60_000


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_has_the_same_scores(models, kind):
    model = models[kind]
    scorer = Scorer(to_onnx(model), FEATURES)
    rows = np.concatenate([healthy(400, 2), healthy(50, 3) * 1.5])
    assert np.abs(scorer.raw(rows) - model.raw(rows)).max() < 1e-6
    assert np.isnan(scorer.score(np.full((1, 4), np.nan))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_decisions_do_not_depend_on_batches(models, kind):
    rows = np.concatenate([healthy(100, 4), healthy(20, 5) * 1.5])
    whole = models[kind].score(rows)
    single = np.concatenate([models[kind].score(row[None]) for row in rows])
    assert whole.tobytes() == single.tobytes()
    assert np.allclose(whole / STEP, np.round(whole / STEP))


@pytest.mark.parametrize("kind", ["covariance", "pca"])
def test_a_broken_relation_is_often_stranger_than_any_healthy_row(models, kind):
    rows = healthy(300, 6)
    broken = rows.copy()
    broken[:, 2] = np.random.default_rng(7).permutation(broken[:, 2])
    found = models[kind].score(rows).max()
    assert (models[kind].score(broken) > found).mean() > 1 / 3


def coarse(n, seed):
    """As of a pump: a pressure of five values, and a flow that is 32.000 in most rows, now and then
    one more or less, or off by a trace."""
    rows, rng = healthy(n, seed), np.random.default_rng(seed + 10)
    rows[:, 1] = 0.33 * rng.choice(5, n, p=[0.02, 0.2, 0.54, 0.2, 0.04])
    rows[:, 2] = 32 + rng.choice([-1, 0, 1], n, p=[0.05, 0.75, 0.2])
    rows[:, 2] += rng.choice([0, 0.003, 0.0032, 0.0036], n, p=[0.79, 0.07, 0.07, 0.07])
    return rows


def test_coarse_features_leave_a_covariance_that_is_no_matter_of_luck():
    """Half of the rows have the same values, so that their determinant would be 0."""
    rows, others = coarse(200, 1), coarse(200, 2)
    scores = [fit("covariance", FEATURES, rows, seed).score(others) for seed in (1, 2, 3)]
    assert np.quantile(scores[0], 0.99) < 100.0
    assert all(np.median(np.abs(score / scores[0] - 1.0)) < 0.1 for score in scores[1:])


def test_too_few_rows_and_unknown_kinds_are_said():
    with pytest.raises(ModelError, match="10 complete rows"):
        fit("pca", FEATURES, healthy(10), 1)
    with pytest.raises(ModelError, match="no kind of model"):
        fit("oracle", FEATURES, healthy(100), 1)
    with pytest.raises(ModelError, match="expected n rows of 4"):
        fit("pca", FEATURES, healthy(100), 1).score(healthy(5)[:, :2])


def test_a_constant_feature_and_nan_rows_do_not_stop_training():
    rows = healthy(200)
    rows[:, 1] = 7.0
    rows[::9, 0] = np.nan
    for kind in KINDS:
        if kind != "covariance":  # a determinant needs movement
            assert np.isfinite(fit(kind, FEATURES, rows, 1).score(healthy(20))).any()


def stored(folder, *, kind="pca", seed=1, n=400):
    plan = Plan(kind, seed=seed, parts=3, alarm_share=0.01)
    trained = train(plan, FEATURES, times(n), healthy(n, seed))
    registry = Registry(folder)
    registry.add("pump", plan, trained, times(n), healthy(n, seed))
    return registry


def test_the_same_seed_gives_the_same_model_to_the_bit(tmp_path):
    first, second = stored(tmp_path / "a"), stored(tmp_path / "b")
    rows = healthy(50, 9)
    assert first.load("pump").card.threshold == second.load("pump").card.threshold
    assert (
        first.load("pump").model().score(rows).tobytes()
        == second.load("pump").model().score(rows).tobytes()
    )


def test_it_is_judged_by_what_comes_later():
    told = []
    rows = healthy(600)
    trained = train(Plan("covariance", parts=4), FEATURES, times(600)[::-1], rows, told.append)
    assert told[-1] == 1.0
    assert told == sorted(told)
    assert [part.rows for part in trained.parts] == [150, 150, 150]
    assert trained.parts[0].since_ms == times(600)[150]


def test_champion_challenger_promotion_and_back(tmp_path):
    registry = stored(tmp_path)
    assert registry.entry("pump").champion == 1
    stored(tmp_path, kind="covariance", seed=2)
    entry = registry.entry("pump")
    assert (entry.champion, entry.challenger) == (1, 2)
    found = compare(registry.load("pump"), registry.load("pump", 2), healthy(200, 8))
    assert found.rows == 200
    assert 0.0 <= found.both_over <= min(found.champion_over, found.challenger_over)
    assert registry.promote("pump") == 2
    assert registry.roll_back("pump") == 1
    assert registry.entry("pump").challenger == 2
    with pytest.raises(ModelError, match="no champion before"):
        registry.roll_back("pump")
    with pytest.raises(ModelError, match="no version 9"):
        registry.challenge("pump", 9)


@pytest.mark.parametrize("name", ["model.skops", "model.onnx", "card.json"])
def test_a_changed_file_is_refused(tmp_path, name):
    registry = stored(tmp_path)
    path = tmp_path / "pump" / "1" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    def use():
        version = registry.load("pump")
        version.model()
        version.scorer()

    with pytest.raises(ModelError, match="refused"):
        use()


def test_a_pickle_in_place_of_a_model_is_refused(tmp_path):
    registry = stored(tmp_path)
    (tmp_path / "pump" / "1" / "model.skops").write_bytes(pickle.dumps({"center": 1}))
    with pytest.raises(ModelError, match="refused"):
        registry.load("pump").model()


def test_values_outside_of_training_are_told(tmp_path):
    card = stored(tmp_path).load("pump").card
    rows = healthy(100, 3)
    rows[:50, 1] = 5_000.0
    assert drift(card, rows)["pressure"] >= 0.5
    assert drift(card, healthy(100))["pressure"] <= 0.1


def test_the_report_has_figures_and_plots_and_no_script(tmp_path):
    plan = Plan("pca", parts=3)
    trained = train(plan, FEATURES, times(300), healthy(300))
    registry = Registry(tmp_path)
    version = registry.add("pump", plan, trained, times(300), healthy(300))
    page = html(registry.load("pump").card, version, trained)
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert "pump, version 1" in page


def test_the_command_trains_compares_and_promotes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_MODELS", str(tmp_path / "models"))
    lines = ["timestamp;" + ";".join(FEATURES)]
    for t_ms, row in zip(times(300), healthy(300), strict=True):
        at = np.datetime64(int(t_ms), "ms")
        lines.append(f"{at};" + ";".join(f"{value:.6f}" for value in row))
    (tmp_path / "pump.csv").write_text("\n".join(lines) + "\n")
    run = CliRunner()
    command = ["train", *FEATURES, "--file", "pump.csv", "--name", "pump", "--json"]
    first = run.invoke(app, [*command, "--kind", "pca", "--report", "pump.html"])
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["version"] == 1
    assert (tmp_path / "pump.html").read_text().startswith("<!doctype html>")
    assert run.invoke(app, command).exit_code == 0
    compared = run.invoke(app, ["models", "compare", "pump", "pump.csv", "--json"])
    assert json.loads(compared.stdout)["rows"] == 300
    assert "version 2" in run.invoke(app, ["models", "promote", "pump"]).stdout
    assert "version 1" in run.invoke(app, ["models", "rollback", "pump"]).stdout
    listed = json.loads(run.invoke(app, ["models", "list", "--json"]).stdout)
    assert listed["pump"]["champion"] == 1
    shown = json.loads(run.invoke(app, ["models", "show", "pump", "--json"]).stdout)
    assert shown["kind"] == "pca"
    assert run.invoke(app, ["models", "show", "nobody"]).exit_code != 0


def write_readings(lake, columns):
    n = len(columns["t_ms"])
    table = pa.table({"tenant": ["acme"] * n, "kafka_offset": range(n), **columns})
    write_deltalake(lake / "readings", table)


def test_the_lake_gives_means_by_time_with_holes_as_nan(tmp_path):
    rows = [("pump", "a", 0, 1.0), ("pump", "a", 30_000, 3.0), ("pump", "b", 61_000, 5.0)]
    columns = dict(zip(("device", "metric", "t_ms", "value"), zip(*rows, strict=True), strict=True))
    write_readings(tmp_path, columns)
    table = from_lake(["a", "b"], "pump", 60_000, root=tmp_path)
    assert table.t_ms.tolist() == [0, 60_000]
    assert np.array_equal(table.rows, [[2.0, np.nan], [np.nan, 5.0]], equal_nan=True)
    with pytest.raises(HeadwaterError, match="no readings of pump for c"):
        from_lake(["a", "c"], "pump", 60_000, root=tmp_path)


def test_what_was_labelled_as_missed_is_not_learnt_from_and_is_counted(tmp_path):
    n = 4
    columns = {"device": ["pump"] * n, "metric": ["a"] * n, "t_ms": [0, 60_000, 120_000, 180_000]}
    write_readings(tmp_path, columns | {"value": [1.0, 2.0, 3.0, 4.0]})
    said = [("missed", "a", 70_000, 130_000), ("not-an-anomaly", "a", 0, 9), ("missed", "b", 0, 9)]
    names = ("kind", "metric", "since_ms", "until_ms")
    labels = [
        dict(zip(names, one, strict=True), id=str(k), device="pump", removed=False, kafka_offset=k)
        for k, one in enumerate(said)
    ]
    write_deltalake(tmp_path / "labels", pa.Table.from_pylist(labels))
    table = from_lake(["a"], "pump", 60_000, root=tmp_path)
    assert table.t_ms.tolist() == [0, 180_000]
    assert dict(table.labels) == {"missed": 1, "not-an-anomaly": 1}


def test_a_file_that_lacks_something_says_what(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("timestamp,heat\n2026-01-01,1\n2026-01-02,hot\n")
    with pytest.raises(HeadwaterError, match="no column 'cold'; it has timestamp, heat"):
        from_file(path, ["cold"])
    with pytest.raises(HeadwaterError, match="expected times, and numbers"):
        from_file(path, ["heat"])
