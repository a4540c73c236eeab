"""A site's own windows, scored by the models that its twins ask for."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from edge.model_scores import VERSIONS_MAX, SiteModels
from models.registry import Registry
from models.shelf import Live
from streams.adapters.results import decode_windows
from streams.settings import Scoring
from tests.unit.test_model_scoring import BROKEN, learn, minute

USUAL = (120.0, 40.0)


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Two versions of one model."""
    folder = tmp_path_factory.mktemp("registry")
    learn(folder, seed=1)
    learn(folder, seed=2)
    stored = {number: Registry(folder).load("pump", number) for number in (1, 2)}
    return {number: Live("pump", number, one.card, one.scorer()) for number, one in stored.items()}


def site(ready, **scoring):
    return SiteModels([Scoring(name="pump", **scoring)], lambda device, _name: ready.get(device))


def told(models, start, rows, **more):
    found = models.take(decode_windows(minute(start, rows, **more)), start)
    return sorted(
        (scores.device[i], scores.metric[i], scores.detector[i], bool(scores.score[i] >= 5.0))
        for scores in found
        for i in range(len(scores.score))
    )


def test_each_device_is_scored_by_the_version_that_is_ready_for_it(versions):
    models = site({"p0": versions[1], "p1": versions[2]})
    assert told(models, 1, [USUAL, USUAL, BROKEN]) == []
    assert told(models, 2, [BROKEN, BROKEN, BROKEN]) == [
        ("p0", "model.pump", "pump/1", True),
        ("p1", "model.pump", "pump/2", True),
    ]
    assert told(models, 3, [USUAL, BROKEN, BROKEN]) == [
        ("p0", "model.pump", "pump/1", False),
        ("p1", "model.pump", "pump/2", True),
    ]


def test_scores_are_those_of_the_worker(versions):
    models = site({"p0": versions[1]})
    (scores,) = models.take(decode_windows(minute(1, [BROKEN])), 7)
    (expected,) = versions[1].scorer.score(np.asarray([BROKEN]))
    assert scores.value[0] == expected
    assert scores.offset[0] == 7
    assert "heat 60 (usual 40" in scores.why[0]


def test_a_version_that_comes_while_it_runs_takes_the_next_row(versions):
    ready = {"p0": versions[1]}
    models = site(ready)
    assert told(models, 1, [BROKEN]) == [("p0", "model.pump", "pump/1", True)]
    ready["p0"] = versions[2]
    assert told(models, 2, [BROKEN]) == [("p0", "model.pump", "pump/2", True)]
    ready.clear()
    assert told(models, 3, [BROKEN]) == []


def test_other_devices_and_provisional_results_are_left_out(versions):
    ready = {"p0": versions[1], "p1": versions[1]}
    models = site(ready, devices=["p1"])
    assert told(models, 1, [BROKEN, BROKEN], rank=-1) == []
    assert told(models, 2, [BROKEN, BROKEN]) == [("p1", "model.pump", "pump/1", True)]


def test_versions_that_are_followed_have_a_bound(versions):
    one, ready = versions[1], {}
    models = site(ready)
    for number in range(3 * VERSIONS_MAX):
        ready["p0"] = Live("pump", number, one.card, one.scorer)
        told(models, number, [USUAL])
    assert len(models._lines[0]) == VERSIONS_MAX


def test_neither_faust_nor_training_is_loaded_for_it():
    code = (
        "import sys, edge.model_scores; "
        "print([m for m in ('faust', 'aiokafka', 'sklearn', 'onnx', 'skops') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
