"""Models at an edge: asked for by twins, fetched by hash, loaded while it runs."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from crdt.log import Log
from edge.models import EdgeModels, add_routes, fetch_from
from edge.node import EdgeNode
from models.depot import Depot, wanted
from models.errors import ModelError
from models.registry import Registry
from streams.adapters.twin_records import reading_of
from streams.api.models import add_models
from streams.settings import Settings
from tests.unit.test_model_scoring import learn

STRANGE = {"flow": 120.0, "heat": 60.0}
USUAL = {"flow": 120.0, "heat": 40.0}


@pytest.fixture
def node(tmp_path):
    found = EdgeNode(Log(tmp_path / "twins.db"), "north", reading_of(Settings().twins), lambda: 1)
    yield found
    found.close()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """A registry with two versions, and a way to fetch its files through the API."""
    folder = tmp_path_factory.mktemp("registry")
    learn(folder, seed=1)
    learn(folder, seed=2)
    app = FastAPI()
    add_models(app, folder)

    async def fetch(one, file):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
            answer = await http.get(f"/v1/models/{one.name}/{one.version}/{file}")
        if answer.is_error:
            raise ModelError(f"answered {answer.status_code}")
        return answer.content

    return Registry(folder), fetch, app


def value(node, path):
    return node.view("press")["fields"].get(path, {}).get("value")


async def test_a_version_is_fetched_loaded_reported_and_replaced_while_it_runs(
    node, cloud, tmp_path
):
    registry, fetch, _ = cloud
    models = EdgeModels(node, Depot(tmp_path / "depot"), fetch)
    with pytest.raises(ModelError, match="has no model 'pump' ready"):
        models.judge("press", "pump", USUAL)
    for version in (1, 2, 1):
        asked = registry.named("pump", version)
        node.edit("press", {"desired.models.pump": asked}, ())
        await models.settle()
        assert value(node, "reported.models.pump") == asked
        found = models.judge("press", "pump", STRANGE)
        stored = registry.load("pump", version)
        row = np.asarray([list(STRANGE.values())])
        assert (found.version, found.is_strange) == (version, True)
        assert found.score == pytest.approx(stored.model().score(row)[0], abs=1e-4)
        assert "heat 60" in found.why
        assert not models.judge("press", "pump", USUAL).is_strange


async def test_what_was_changed_on_its_way_is_refused_and_the_version_before_goes_on(
    node, cloud, tmp_path
):
    registry, fetch, _ = cloud

    async def changing(one, file):
        data = await fetch(one, file)
        return data if one.version == 1 or file == "card.json" else data + b"\0"

    models = EdgeModels(node, Depot(tmp_path / "depot"), changing)
    first, second = (registry.named("pump", version) for version in (1, 2))
    node.edit("press", {"desired.models.pump": first}, ())
    await models.settle()
    node.edit("press", {"desired.models.pump": second}, ())
    await models.settle()
    assert value(node, "reported.models.pump") == first
    assert models.judge("press", "pump", STRANGE).version == 1
    (status,) = models.status()
    assert not status["ready"]
    assert "the graph is another than its card says" in status["why_not"]


async def test_it_is_there_after_a_restart_without_a_link(node, cloud, tmp_path):
    registry, fetch, _ = cloud
    node.edit("press", {"desired.models.pump": registry.named("pump")}, ())
    await EdgeModels(node, Depot(tmp_path / "depot"), fetch).settle()
    offline = EdgeModels(node, Depot(tmp_path / "depot"), fetch_from(None))
    await offline.settle()
    assert offline.judge("press", "pump", STRANGE).is_strange


async def test_without_an_address_or_with_one_that_does_not_answer_it_says_so(node, tmp_path):
    asked = "1/" + "0" * 64
    node.edit("press", {"desired.models.pump": asked, "desired.models.saw": "newest"}, ())
    for url, why in ((None, "edge.models.url is not set"), ("http://127.0.0.1:9", "127.0.0.1:9")):
        models = EdgeModels(node, Depot(tmp_path / "depot"), fetch_from(url))
        await models.settle()
        (status,) = models.status()
        assert why in status["why_not"]
    assert value(node, "reported.models.pump") is None
    with pytest.raises(ModelError, match="expected NUMBER/SHA256"):
        wanted("../x", asked)


async def test_the_surfaces_score_and_give_no_other_file(node, cloud, tmp_path):
    registry, fetch, api = cloud
    node.edit("press", {"desired.models.pump": registry.named("pump")}, ())
    models = EdgeModels(node, Depot(tmp_path / "depot"), fetch)
    await models.settle()
    app = FastAPI()
    add_routes(app, models)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as http:
        answer = await http.post("/v1/devices/press/models/pump", json=STRANGE)
        assert answer.json()["is_strange"]
        answer = await http.post("/v1/devices/press/models/pump", json={"flow": 1.0})
        assert answer.status_code == 409
        assert "needs heat" in answer.text
        assert (await http.get("/v1/models")).json()[0]["ready"]
    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        for path in ("pump/1/model.skops", "pump/9/card.json", "pump/1/..%2Fregistry.json"):
            assert (await http.get(f"/v1/models/{path}")).status_code == 404


def test_a_depot_keeps_some_versions_and_no_more(cloud, tmp_path):
    registry, _, _ = cloud
    depot = Depot(tmp_path / "depot", keep=1)
    for version in (1, 2):
        stored = registry.load("pump", version)
        one = wanted("pump", registry.named("pump", version))
        depot.put(one, stored.read("card.json"), stored.read("model.onnx"))
        # Stored by a clock that was ahead, and is right again before the next one comes.
        (held,) = (tmp_path / "depot" / "pump").iterdir()
        os.utime(held, (2**32, 2**32))
    assert depot.load(one).version == 2
    with pytest.raises(ModelError):
        depot.load(wanted("pump", registry.named("pump", 1)))


def test_an_edge_loads_no_library_of_training():
    code = "import sys, edge.process; print({'sklearn', 'onnx', 'skops'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
