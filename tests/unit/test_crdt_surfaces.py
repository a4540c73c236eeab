"""The surfaces of twins: edge over HTTP, API over HTTP, the bridge's records, refusals."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import orjson
import pytest

from crdt.core.messages import decode_batch, encode_batch
from crdt.log import Log
from crdt.replica import Reading
from edge.http import edge_app
from edge.node import EdgeNode
from edge.process import run_edge
from streams.adapters.twin_edits import parse_edit
from streams.adapters.twin_records import edit_record, policies_of, reading_of, sync_record
from streams.agents.twins import make_twins
from streams.api.http import api_app
from streams.api.read_model import TwinStates
from streams.core.placement import partition_of
from streams.gateway.link import Delivery
from streams.gateway.twin_bridge import up_records
from streams.ports import Produce
from streams.services.ports import free_port
from streams.settings import Settings
from streams.testing import Driver
from streams.twin_history import steps_of
from streams.twin_view import history_lines
from tests.waiting import PATIENCE_S, eventually_async

SETTINGS = Settings(
    twins={
        "paths": [
            {"path": "reported.starts", "kind": "counter"},
            {"path": "tags.roles", "kind": "set"},
            {"path": "desired.stop", "kind": "latch"},
        ]
    }
)
POLICIES = policies_of(SETTINGS.twins)
READING = reading_of(SETTINGS.twins)
IDENTITY = {"tenant": "default", "site": "north"}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[EdgeNode]:
    found = EdgeNode(Log(tmp_path / "twins.db"), "north", READING, lambda: 1_000)
    yield found
    found.close()


def client(app: object) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://edge")


async def test_an_edge_edits_and_shows_twins_without_any_link(node: EdgeNode) -> None:
    async with client(edge_app(node, lambda: "the link is cut", IDENTITY)) as http:
        assert (await http.get("/v1/devices/pump-1/twin")).status_code == 404
        body = {"desired": {"speed": 40}, "tags.room": "hall 3"}
        answer = await http.patch("/v1/devices/pump-1/twin", json=body)
        assert answer.status_code == 200
        shown = (await http.get("/v1/devices/pump-1/twin")).json()
        assert {p: f["value"] for p, f in shown["fields"].items()} == {
            "desired.speed": 40,
            "tags.room": "hall 3",
        }
        assert shown["fields"]["desired.speed"]["winner"] == "edge"
        assert shown["in_sync"] is False
        assert (await http.get("/readyz")).status_code == 200
        status = (await http.get("/v1/status")).json()
        assert (status["devices"], status["connected"]) == (1, False)
        assert status["why"] == "the link is cut"
        await http.patch("/v1/devices/pump-1/twin", json={"tags.room": None})
        shown = (await http.get("/v1/devices/pump-1/twin")).json()
        assert list(shown["fields"]) == ["desired.speed"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "malformed-json"),
        (b"1", "malformed-json"),
        (b"[]", "empty-edit"),
        (b"[1]", "bad-operation"),
        (b'[{"op": "dance"}]', "bad-operation"),
        (b'[{"op": "increment", "path": "reported.starts", "by": 1.5}]', "bad-operation"),
        (b'[{"op": "add", "path": "tags.roles", "elements": [null]}]', "bad-type"),
        (b"{}", "empty-edit"),
        (b'{"speed": 1}', "bad-path"),
        (b'{"desired.a": 1, "desired": {"a": 2}}', "contradiction"),
        (b'{"desired.a": 18446744073709551615}', "integer-too-big"),
        (b'{"desired.a": NaN}', "malformed-json"),
    ],
)
async def test_edge_and_api_refuse_a_bad_edit_with_the_same_reason(
    node: EdgeNode, body: bytes, reason: str
) -> None:
    written: list[Produce] = []

    async def write(record: Produce) -> tuple[int, int]:
        written.append(record)
        return 0, 0

    api = api_app(TwinStates("nowhere:1", 4), write, lambda: (True, ""), 4, POLICIES)
    for app in (edge_app(node, lambda: "", IDENTITY), api):
        async with client(app) as http:
            answer = await http.patch("/v1/devices/pump-1/twin", content=body)
        assert answer.status_code == 422
        assert answer.json()["detail"]["reason"] == reason
    assert written == []
    assert node.devices() == []


async def test_an_edit_in_the_cloud_is_one_record_in_the_devices_partition() -> None:
    written: list[Produce] = []

    async def write(record: Produce) -> tuple[int, int]:
        written.append(record)
        return record.partition or 0, 17

    app = api_app(TwinStates("nowhere:1", 4), write, lambda: (True, ""), 4, POLICIES)
    async with client(app) as http:
        answer = await http.patch("/v1/devices/pump-1/twin?tenant=t", json={"desired.speed": 1})
    partition = partition_of("t", "pump-1", 4)
    assert (answer.status_code, answer.json()["offset"]) == (202, 17)
    (record,) = written
    assert (record.key, record.partition) == (b"t/pump-1", partition)
    assert parse_edit(record.value, POLICIES).sets == {"desired.speed": 1}


def test_an_up_message_is_split_by_device_and_a_bad_one_is_kept_with_its_reason() -> None:
    def up(payload: bytes) -> list[Produce]:
        return up_records(Delivery("hw/v1/t/north/twin/up", payload, 1, 1, 5), SETTINGS)

    records = up(encode_batch([("pump-1", b"one"), ("pump-2", b"two")]))
    assert [(r.topic, r.key, r.value) for r in records] == [
        ("twin.updates", b"t/pump-1", b"one"),
        ("twin.updates", b"t/pump-2", b"two"),
    ]
    assert [r.partition for r in records] == [partition_of("t", f"pump-{n}", 4) for n in (1, 2)]
    assert {r.headers["hw-site"] for r in records} == {b"north"}
    for payload, reason in ((b"junk", b"malformed-cbor"), (b"\x80", b"bad-envelope")):
        (refused,) = up(payload)
        assert (refused.topic, refused.value) == ("rejected", payload)
        assert refused.headers["hw-reason"] == reason
    (refused,) = up(b"x" * 2_000_000)
    assert refused.headers["hw-reason"] == b"too-big"
    assert len(refused.value or b"") == SETTINGS.gateway.max_rejected_bytes


def test_bad_records_are_rejected_and_the_good_ones_beside_them_are_folded() -> None:
    driver = Driver(make_twins(SETTINGS))
    good = edit_record("t", "pump-1", {"desired.a": 1}, 1)
    bad = [
        (sync_record("t", "north", "pump-1", b"junk", 1), b"malformed-cbor"),
        (Produce("", b"{}", b"t/pump-1", headers={"hw-kind": b"edit"}), b"empty-edit"),
        (Produce("", b"{}", b"no slash", headers={"hw-kind": b"edit"}), b"bad-key"),
        (Produce("", b"{}", b"t/pump-1", headers={"hw-kind": b"dance"}), b"bad-kind"),
        (Produce("", None, b"t/pump-1", headers={"hw-kind": b"edit"}), b"malformed-json"),
        (Produce("", b"\x00", b"t/pump-1", headers={"hw-kind": b"sync"}), b"unknown-version"),
    ]
    for record, _ in bad:
        driver.append(record.value, at_ms=1, key=record.key, headers=record.headers)
    driver.append(good.value, at_ms=1, key=good.key, headers=good.headers)
    driver.run()
    refused = [p for p in driver.output if p.topic == "rejected"]
    assert [p.headers["hw-reason"] for p in refused] == [reason for _, reason in bad]
    assert refused[0].headers["hw-source"] == b"kafka:twin.updates/0/0"
    (state,) = map(orjson.loads, driver.values("twin.state"))
    assert state["fields"]["desired.a"]["value"] == 1


def test_an_edge_refuses_junk_from_the_cloud_and_goes_on(node: EdgeNode) -> None:
    sent: list[bytes] = []
    node.send = sent.append
    node.edit("pump-1", {"desired.a": 1}, [])
    before = node.view("pump-1")
    for junk in (b"", b"junk", encode_batch([("pump-1", b"junk"), ("", b"x")])):
        node.hear(junk)
    assert node.view("pump-1") == before
    node.edit("pump-1", {"desired.a": 2}, [])
    assert [device for device, _ in decode_batch(sent[-1])] == ["pump-1"]


def test_what_an_edge_was_told_is_there_after_a_restart_under_a_new_life(tmp_path: Path) -> None:
    lives = []
    for number in range(3):
        node = EdgeNode(Log(tmp_path / "twins.db"), "north", Reading(), lambda: 1_000)
        lives.append(node.status()["life"])
        shown = node.view("pump-1")
        if number:
            assert shown is not None
            assert shown["fields"]["desired.n"]["value"] == number - 1
        node.edit("pump-1", {"desired.n": number}, [])
        node.close()
    assert len(set(lives)) == 3


def test_an_edge_process_loads_neither_faust_nor_aiokafka() -> None:
    script = "import edge.process, sys; print({'faust', 'mode', 'aiokafka'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert done.stdout.strip() == b"set()"


async def test_an_edge_without_a_broker_serves_and_stops_when_asked(tmp_path: Path) -> None:
    port, nowhere = free_port(), free_port()
    settings = Settings(
        mqtt=f"mqtt://127.0.0.1:{nowhere}", ops={"edge_port": port}, edge={"data": tmp_path}
    )
    stop = asyncio.Event()
    running = asyncio.create_task(run_edge(settings, stop))
    base = f"http://127.0.0.1:{port}"

    async def answers() -> bool:
        assert not running.done()
        try:
            async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
                return (await http.get(f"{base}/healthz")).status_code == 200
        except httpx.TransportError:
            return False

    await eventually_async(answers, what="the edge serves")
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        answer = await http.patch(f"{base}/v1/devices/pump-1/twin", json={"desired.a": 1})
    assert answer.status_code == 200
    stop.set()
    await asyncio.wait_for(running, PATIENCE_S)
    again = Log(tmp_path / "twins.db")
    assert list(again.load()) == ["pump-1"]
    again.close()


OPERATIONS = [
    {"op": "increment", "path": "reported.starts", "by": 2},
    {"op": "add", "path": "tags.roles", "elements": ["spare", 7]},
    {"op": "set", "path": "desired.stop"},
    {"op": "set", "path": "desired.speed", "value": 40},
]


async def test_an_edge_counts_adds_and_stops_over_http(node: EdgeNode) -> None:
    async with client(edge_app(node, lambda: "", IDENTITY)) as http:

        async def patch(body: object) -> httpx.Response:
            return await http.patch("/v1/devices/pump-1/twin", json=body)

        shown = (await patch(OPERATIONS)).json()["fields"]
        assert {path: (f["value"], f["kind"]) for path, f in shown.items()} == {
            "desired.speed": (40, "register"),
            "desired.stop": (True, "latch"),
            "reported.starts": (2, "counter"),
            "tags.roles": ([7, "spare"], "set"),
        }
        assert (await patch({"desired.stop": False})).json()["detail"]["reason"] == "wrong-kind"
        later = [
            {"op": "remove", "path": "tags.roles", "elements": [7]},
            {"op": "release", "path": "desired.stop"},
            {"op": "increment", "path": "reported.starts", "by": -5},
        ]
        shown = (await patch(later)).json()["fields"]
        assert {path: f["value"] for path, f in shown.items()} == {
            "desired.speed": 40,
            "desired.stop": False,
            "reported.starts": -3,
            "tags.roles": ["spare"],
        }


async def test_operations_in_the_cloud_are_a_record_that_its_worker_folds_and_history_tells() -> (
    None
):
    written: list[Produce] = []

    async def write(record: Produce) -> tuple[int, int]:
        written.append(record)
        return record.partition or 0, len(written)

    app = api_app(TwinStates("nowhere:1", 1), write, lambda: (True, ""), 1, POLICIES)
    async with client(app) as http:
        for body in (OPERATIONS, [{"op": "release", "path": "desired.stop"}], {"tags.x": 1}):
            answer = await http.patch("/v1/devices/pump-1/twin?tenant=t", json=body)
            assert answer.status_code == 202
    driver = Driver(make_twins(SETTINGS))
    for record in written:
        driver.append(record.value, at_ms=5, key=record.key, headers=record.headers)
    driver.run()
    state = orjson.loads(driver.values("twin.state")[-1])
    assert state["fields"]["tags.roles"]["value"] == [7, "spare"]
    assert state["fields"]["desired.stop"]["value"] is False

    async def records() -> AsyncIterator[object]:
        for record in driver.log:
            yield record

    found = await steps_of(SETTINGS, 0, b"t/pump-1", records())
    assert [[change.path for change in step.fields] for step in found.steps] == [
        ["desired.speed", "desired.stop", "reported.starts", "tags.roles"],
        ["desired.stop"],
        ["tags.x"],
    ]
    lines = history_lines(found.of("desired.*"))
    assert lines[1:3] == [
        "  [green]+ desired.speed[/] = 40",
        "  [green]+ desired.stop[/] = true",
    ]
    assert lines[-1] == "  [yellow]~ desired.stop[/] = false, was true"
