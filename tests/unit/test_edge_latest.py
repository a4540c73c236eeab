"""What can be read at an edge while the cloud is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from crdt.core.policies import Policies
from crdt.log import Log
from crdt.replica import Reading
from edge.coap import TwinFields
from edge.http import edge_app
from edge.latest import Latest
from edge.node import EdgeNode
from streams.core.readings import Labels, Readings


def readings(*rows: tuple[str, str, int, float]) -> Readings:
    n = len(rows)
    times = np.array([row[2] for row in rows], np.int64)
    return Readings(
        Labels.constant("acme", n),
        Labels.constant("north", n),
        Labels.of([row[0] for row in rows]),
        Labels.of([row[1] for row in rows]),
        times,
        times + 5,
        np.array([row[3] for row in rows]),
        np.zeros(n, np.uint8),
        np.full(n, -1, np.int64),
        np.full(n, -1, np.int64),
        {at: 2**60 + 1 for at, row in enumerate(rows) if row[1] == "count"},
        {at: "open" for at, row in enumerate(rows) if row[1] == "door"},
    )


NAN = float("nan")


def test_the_latest_is_that_of_event_time_and_not_of_arrival() -> None:
    latest = Latest(10)
    latest.update(readings(("a", "m", 3, 1.5), ("a", "m", 2, 9.0), ("b", "m", 1, 7.0)))
    latest.update(readings(("a", "m", 3, 2.5), ("b", "m", 0, 8.0)))
    assert latest.one("a", "m") == {"t_ms": 3, "received_ms": 8, "value": 2.5, "quality": 0}
    assert latest.one("b", "m") == {"t_ms": 1, "received_ms": 6, "value": 7.0, "quality": 0}
    assert latest.one("b", "x") is None
    assert latest.device("c") is None


def test_text_and_whole_integers_are_shown_as_they_are() -> None:
    latest = Latest(10)
    latest.update(readings(("a", "m", 1, 1.0), ("a", "door", 1, NAN), ("a", "count", 1, NAN)))
    found = latest.device("a")
    assert found is not None
    assert {name: one["value"] for name, one in found.items()} == {
        "m": 1.0,
        "door": "open",
        "count": 2**60 + 1,
    }


def test_series_beyond_the_bound_are_left_out_and_the_others_go_on() -> None:
    latest = Latest(1)
    latest.update(readings(("a", "m", 1, 1.0), ("b", "m", 1, 2.0), ("a", "m", 2, 3.0)))
    assert latest.one("a", "m") == {"t_ms": 2, "received_ms": 7, "value": 3.0, "quality": 0}
    assert latest.device("b") is None


@pytest.fixture
def node(tmp_path: Path) -> Iterator[EdgeNode]:
    found = EdgeNode(Log(tmp_path / "twins.db"), "north", Reading(Policies(())), lambda: 1_000)
    yield found
    found.close()


class Path1:
    """A way of readings of which only the latest are asked."""

    why_not_ready = "the local broker is away"

    def __init__(self) -> None:
        self.latest = Latest(10)

    async def status(self) -> dict[str, object]:
        return {"stored": 1}

    async def filters(self, device: str) -> list[dict[str, object]]:
        return [{"metric": "m", "bound": 0.5}] if device == "a" else []


async def test_http_shows_latest_readings_and_why_none_come(node: EdgeNode) -> None:
    path = Path1()
    path.latest.update(readings(("a", "m", 3, 1.5)))
    app = edge_app(node, lambda: "the link is cut", {"tenant": "acme", "site": "north"}, path)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as http:
        found = (await http.get("/v1/devices/a/latest")).json()
        assert found["metrics"]["m"]["value"] == 1.5
        assert found["site"] == "north"
        unknown = await http.get("/v1/devices/b/latest")
        assert unknown.status_code == 404
        assert "since the start" in unknown.json()["detail"]["detail"]
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()["why"]) == (503, "the local broker is away")
        assert (await http.get("/v1/status")).json()["stored"] == 1
        assert (await http.get("/v1/devices/a/filters")).json()[0]["bound"] == 0.5
        assert (await http.get("/v1/devices/b/filters")).json() == []


def test_fields_of_a_twin_say_which_of_them_changed(node: EdgeNode) -> None:
    told: list[str] = []
    node.changed = told.append
    fields = TwinFields(node)
    node.edit("pump", {"desired.limit": 5, "desired.mode": "auto"}, ())
    assert told == ["pump"]
    assert fields.changes("pump") == []
    assert fields.read("pump", "desired.limit") == b"5"
    assert fields.read("pump", "desired.none") is None
    node.edit("pump", {"desired.limit": 6, "desired.mode": "auto"}, ())
    assert fields.changes("pump") == ["desired.limit"]
    assert fields.changes("pump") == []
    node.edit("pump", {}, ("desired.mode",))
    assert fields.changes("pump") == ["desired.mode"]
