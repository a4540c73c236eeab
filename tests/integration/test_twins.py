"""Twins on the real servers: a cut link, edits on both sides, equal digests; kill -9 anywhere."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import pytest

from streams.pki import Pki
from streams.sim.proxy import Proxy
from tests import web
from tests.conftest import Servers
from tests.waiting import PATIENCE_S, eventually

ROOT = Path(__file__).parents[2]
PROCESSES = ("worker", "gateway", "api", "edge")
PATHS = [
    {"path": "desired.limit", "policy": "edge-wins"},
    {"path": "reported.starts", "kind": "counter"},
    {"path": "tags.roles", "kind": "set"},
    {"path": "desired.stop", "kind": "latch"},
]
Start = Callable[..., subprocess.Popen[bytes]]


class World:
    """The processes of the twins, with a link between edge and broker that can be cut."""

    def __init__(
        self,
        servers: Servers,
        proxy: Proxy,
        home: Path,
        start: Start,
        brokers: Sequence[str] = (),
    ) -> None:
        self._start = start
        self.home = home
        self.proxy = proxy
        self.device = f"pump-{uuid.uuid4().hex[:8]}"
        tenant = f"t{uuid.uuid4().hex[:8]}"
        self.tenant = tenant
        self.env = servers.env(
            home,
            HEADWATER_EDGE__TENANT=tenant,
            HEADWATER_EDGE__SITE="north",
            HEADWATER_EDGE__DATA=str(home / "edge"),
            HEADWATER_EDGE__RETRY_MAX_MS="1000",
            HEADWATER_WORKER__ID=f"twins-{tenant}",
            HEADWATER_WORKER__INSTANCE_ID="one",
            HEADWATER_GATEWAY__CLIENT_ID=f"gateway-{tenant}",
            HEADWATER_GATEWAY__GROUP=f"gateway-{tenant}",
            HEADWATER_TWINS__PATHS=orjson.dumps(PATHS).decode(),
            HEADWATER_COMMANDS__DEFAULT_TTL_MS="3600000",  # None expires on its way but who shall.
            HEADWATER_LOG__LEVEL="info",
            HEADWATER_GATEWAY__BROKERS=orjson.dumps(brokers).decode(),
            HEADWATER_EDGE__BROKERS=orjson.dumps(brokers).decode(),
        )
        keys = Pki(home / "pki")
        keys.init(["localhost"], datetime.now(UTC))
        issued = keys.issue(tenant, "north", datetime.now(UTC)).folder
        self.edge_env = {
            **self.env,
            "HEADWATER_MQTT": f"mqtt://127.0.0.1:{proxy.port}",
            "HEADWATER_TWINS__REGISTRY": str(issued / "registry.json"),
            "HEADWATER_EDGE__KEY": str(issued / "replica.key"),
        }
        self.env |= {
            "HEADWATER_TWINS__REGISTRY": str(keys.registry),
            "HEADWATER_GATEWAY__TWIN_KEY": str(keys.folder / "hub.key"),
        }
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        env = self.edge_env if name == "edge" else self.env
        self.children[name] = self._start(name, env=env)

    def headwater(self, *arguments: str, group: str = "twin") -> str:
        """Run ``headwater twin``, or another group, and return what it prints."""
        command = [sys.executable, "-m", "streams.cli.main", group, *arguments]
        done = subprocess.run(
            command, check=False, env=self.env, cwd=ROOT, capture_output=True, timeout=PATIENCE_S
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def kill(self, name: str) -> None:
        child = self.children.pop(name)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()

    def url(self, process: str) -> str:
        port = self.env[f"HEADWATER_OPS__{process.upper()}_PORT"]
        return f"http://127.0.0.1:{port}"

    def edit(self, process: str, **fields: object) -> httpx.Response:
        return self._patch(process, {n.replace("_", ".", 1): v for n, v in fields.items()})

    def operate(self, process: str, *operations: dict[str, object]) -> httpx.Response:
        return self._patch(process, operations)

    def _patch(self, process: str, body: object) -> httpx.Response:
        answer = web.patch(self._twin(process), json=body, params=self._query(process))
        assert answer.status_code == (200 if process == "edge" else 202), answer.text
        return answer

    def twin(self, process: str) -> dict[str, Any]:
        try:
            answer = web.get(self._twin(process), params=self._query(process))
        except httpx.TransportError:
            return {}
        return answer.json() if answer.status_code == 200 else {}

    def values(self, process: str) -> dict[str, object]:
        fields = self.twin(process).get("fields", {})
        return {path: field["value"] for path, field in fields.items()}

    def wait_equal(self, **fields: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """Wait until both sides show these fields and equal digests; return both views."""
        wanted = {name.replace("_", ".", 1): value for name, value in fields.items()}

        def met() -> tuple[dict[str, Any], dict[str, Any]] | None:
            edge, cloud = self.twin("edge"), self.twin("api")
            if not (edge and cloud) or self.values("edge") != wanted:
                return None
            same = all(edge[name] == cloud[name] for name in ("digest", "ledger_digest", "fields"))
            return (edge, cloud) if same and edge["in_sync"] else None

        return eventually(met, what=f"{wanted} on both sides")

    def ready(self, process: str) -> bool:
        try:
            return httpx.get(f"{self.url(process)}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def next_command(self) -> dict[str, Any]:
        """Wait for the next command as the device, and take it."""
        url = f"{self.url('edge')}/v1/devices/{self.device}/commands/next"

        def taken() -> dict[str, Any] | None:
            answer = web.post(url, params={"wait_ms": 20_000})
            return answer.json() if answer.status_code == 200 else None

        found = eventually(taken, what="a command for the device")
        assert found is not None
        return found

    def _twin(self, process: str) -> str:
        return f"{self.url(process)}/v1/devices/{self.device}/twin"

    def _query(self, process: str) -> dict[str, str]:
        return {} if process == "edge" else {"tenant": self.tenant}


@pytest.fixture
def world(servers: Servers, tmp_path: Path) -> Iterator[World]:
    with running_world(servers, tmp_path) as found:
        yield found


@contextmanager
def running_world(servers: Servers, tmp_path: Path, brokers: Sequence[str] = ()) -> Iterator[World]:
    """All processes, ready.

    :param brokers: beside the main one, for gateway and edge.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *, env: dict[str, str]) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{name}-{len(started)}.log").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "streams.cli.main", name],
                env=env,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started.append(child)
        return child

    broker = urlsplit(servers.addresses["mqtt"])
    with Proxy(broker.hostname or "127.0.0.1", broker.port or 1883) as proxy:
        found = World(servers, proxy, tmp_path, start, brokers)
        try:
            for name in PROCESSES:
                found.start(name)
            for process in PROCESSES:
                eventually(lambda p=process: found.ready(p), what=f"{process} ready")
            yield found
        finally:
            for child in started:
                if child.poll() is None:
                    child.terminate()
            for child in started:
                try:
                    child.wait(15)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()


def test_both_sides_of_a_cut_link_change_a_twin_and_meet_in_equal_digests(world: World) -> None:
    world.edit("edge", desired_speed=10, reported_mode="auto")
    world.wait_equal(**{"desired_speed": 10, "reported_mode": "auto"})

    world.proxy.cut()
    world.edit("api", desired_limit=70, desired_speed=20)
    world.edit("edge", desired_limit=65, tags_room="hall 3")
    cloud_side = {"desired.limit": 70, "desired.speed": 20, "reported.mode": "auto"}
    eventually(lambda: world.values("api") == cloud_side, what="the edit in the cloud")
    assert world.values("edge")["desired.limit"] == 65
    # Offline, and killed after the acknowledgement: nothing may be lost.
    world.kill("edge")
    world.start("edge")
    eventually(lambda: world.values("edge").get("tags.room") == "hall 3", what="edge is back")

    world.proxy.heal()
    _, cloud = world.wait_equal(
        desired_limit=65, desired_speed=20, reported_mode="auto", tags_room="hall 3"
    )
    (conflict,) = cloud["conflicts"]
    assert (conflict["path"], conflict["policy"]) == ("desired.limit", "edge-wins")
    assert (conflict["winner"]["value"], conflict["loser"]["value"]) == (65, 70)


def test_a_worker_and_a_gateway_killed_in_between_lose_no_edit(world: World) -> None:
    world.edit("edge", desired_n=0)
    world.wait_equal(desired_n=0)
    for number in range(1, 6):
        world.edit("edge", desired_n=number)
        world.edit("api", tags_m=number)
        if number == 2:
            world.kill("worker")
        if number == 4:
            world.kill("gateway")
    world.start("worker")
    world.start("gateway")
    world.wait_equal(desired_n=5, tags_m=5)


def test_the_command_line_changes_a_twin_and_explains_it(world: World) -> None:
    edge = ["--edge", world.url("edge")]
    cloud = ["--api", world.url("api"), "--tenant", world.tenant]
    world.headwater("set", world.device, "desired.speed=40", "tags.room=hall 3", *edge)
    world.wait_equal(desired_speed=40, tags_room="hall 3")
    accepted = world.headwater("set", world.device, "desired.speed=41", "--json", *cloud)
    assert orjson.loads(accepted)["accepted"] is True
    world.wait_equal(desired_speed=41, tags_room="hall 3")
    shown = [
        orjson.loads(world.headwater("get", world.device, "--json", *s)) for s in (edge, cloud)
    ]
    assert shown[0]["digest"] == shown[1]["digest"]
    assert shown[1]["fields"]["desired.speed"]["winner"] == "cloud"
    assert "hall 3" in world.headwater("get", world.device, *edge)
    assert "no conflicts" in world.headwater("conflicts", world.device, *cloud)

    with ThreadPoolExecutor(1) as pool:
        looks = ("--every-ms", "50", "--changes", "1")
        watched = pool.submit(world.headwater, "watch", world.device, *looks, *edge)
        values = itertools.count()

        def seen() -> bool:
            """Change something until it has looked."""
            world.edit("edge", reported_seen=next(values))
            return watched.done()

        eventually(seen)
        assert "reported.seen" in watched.result()
    world.edit("edge", reported_seen=None)

    said = world.headwater("increment", world.device, "reported.starts", "--by", "2", *edge)
    assert said == "+ reported.starts = 2\n"
    world.operate("edge", {"op": "add", "path": "tags.roles", "elements": ["spare", 7]})
    stop = {"op": "set", "path": "desired.stop"}
    world.operate("api", {"op": "increment", "path": "reported.starts"}, stop)
    both = {"desired_speed": 41, "tags_room": "hall 3", "desired_stop": True, "reported_starts": 3}
    world.wait_equal(**both, tags_roles=[7, "spare"])
    world.operate("api", {"op": "remove", "path": "tags.roles", "elements": [7]})
    world.headwater("release", world.device, "desired.stop", *edge)
    world.wait_equal(**{**both, "desired_stop": False}, tags_roles=["spare"])
    told = world.headwater("history", world.device, "--tenant", world.tenant, "--path", "desired.*")
    assert "~ desired.stop = false, was true" in told

    world.proxy.cut()
    world.edit("edge", desired_limit=65)
    world.edit("api", desired_limit=70)
    world.proxy.heal()
    both |= {"desired_stop": False}
    world.wait_equal(**both, tags_roles=["spare"], desired_limit=65)
    world.headwater("take-other", world.device, "desired.limit", *edge)
    world.wait_equal(**both, tags_roles=["spare"], desired_limit=70)


def test_a_command_is_carried_out_once_and_one_to_a_site_that_is_away_expires(
    world: World,
) -> None:
    cloud = ["--api", world.url("api"), "--tenant", world.tenant, "--json"]
    base = f"{world.url('edge')}/v1/devices/{world.device}/commands"

    def command(*arguments: str) -> Any:
        return orjson.loads(world.headwater(*arguments, *cloud, group="command"))

    world.edit("edge", tags_room="hall 3")
    world.wait_equal(tags_room="hall 3")
    sent = [command("send", world.device, "reboot", '{"delay_s": 5}', "--id", "r1")["id"]]
    sent.append(command("send", world.device, "reboot", '{"delay_s": 5}', "--id", "r1")["id"])
    assert sent == ["r1", "r1"]
    assert world.next_command()["args"] == {"delay_s": 5}
    assert web.post(f"{base}/next").status_code == 204
    web.post(f"{base}/r1/report", json={"state": "done", "result": 7}).raise_for_status()
    told = world.headwater("watch", world.device, "r1", *cloud, group="command").splitlines()
    assert orjson.loads(told[-1])["state"] == "done"
    shown = command("show", world.device, "r1")
    assert [s["state"] for s in shown["history"]] == ["pending", "delivered", "accepted", "done"]
    assert shown["result"] == 7

    world.proxy.cut()
    command("send", world.device, "blink", "--id", "b1", "--ttl-ms", "500", "--site", "north")
    command("send", world.device, "blink", "--id", "b2", "--ttl-ms", "3600000", "--site", "north")

    def ended() -> dict[str, str]:
        listed = web.get(
            f"{world.url('api')}/v1/devices/{world.device}/commands",
            params={"tenant": world.tenant},
        )
        return {one["id"]: one["state"] for one in listed.json()}

    eventually(lambda: len(ended()) == 3, what="b1, b2 known")
    command("cancel", world.device, "b2")
    wanted = {"r1": "done", "b1": "expired", "b2": "cancelled"}
    eventually(lambda: ended() == wanted, what="expired without the device")
    web.post(base, json={"name": "beep", "id": "e1"}).raise_for_status()
    web.post(f"{base}/next").raise_for_status()
    world.kill("edge")
    world.start("edge")
    eventually(lambda: world.ready("edge"), what="edge ready")
    world.proxy.heal()
    wanted |= {"e1": "failed"}
    eventually(lambda: ended() == wanted, what="what happened while it was away")
    assert command("show", world.device, "e1")["reason"] == "interrupted"
    assert web.post(f"{base}/next").status_code == 204
    assert "beep" in world.headwater("list", world.device, *cloud[:-1], group="command")
