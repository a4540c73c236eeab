"""A real Yjs client joins as a third replica: the same cells, the same messages, equal digests."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from crdt.core.messages import encode_batch
from crdt.log import Log
from edge.node import EdgeNode
from streams.adapters.twin_records import edit_record, reading_of
from streams.agents.twins import make_twins
from streams.gateway.link import Delivery
from streams.gateway.twin_bridge import down_batches, up_records
from streams.ports import Produce
from streams.settings import Settings
from streams.testing import Driver

HERE = Path(__file__).parent / "yjs"
SETTINGS = Settings(topics={"partitions": 1})
DEVICE = "pump-1"


def installed() -> Path:
    """Return the folder with the replica and its locked packages, which npm checks by hash."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: the Yjs client runs on Node.js 20 or later")
    lock = (HERE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headwater"
    folder = cache / f"yjs-{sha256(lock).hexdigest()[:16]}"
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, check=False, cwd=folder, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr.decode()
        (folder / "installed").touch()
    shutil.copy(HERE / "replica.mjs", folder)
    return folder


class Yjs:
    """The client: a line in, a line out."""

    def __init__(self, life: str) -> None:
        self._child = subprocess.Popen(
            ["node", "replica.mjs", DEVICE, life],
            cwd=installed(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.said: list[bytes] = []

    def ask(self, **what: object) -> dict[str, Any]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(what) + "\n")
        self._child.stdin.flush()
        found: dict[str, Any] = json.loads(self._child.stdout.readline())
        self.said += map(base64.b64decode, found["say"])
        return found

    def hear(self, envelope: bytes) -> None:
        self.ask(hear=base64.b64encode(envelope).decode())

    def close(self) -> None:
        self._child.kill()
        self._child.communicate()


class Record:
    """A record as the bridge gets it from Kafka."""

    def __init__(self, produce: Produce) -> None:
        self.headers, self.value = list(produce.headers.items()), produce.value


class World:
    """The cloud, an edge and the client, each behind a site of its own."""

    def __init__(self, folder: Path) -> None:
        self.now_ms = 1_000
        self.cloud = Driver(make_twins(SETTINGS))
        log = Log(folder / "twins.db")
        self.edge = EdgeNode(log, "north", reading_of(SETTINGS.twins), lambda: self.now_ms)
        self.edge_said: list[bytes] = []
        self.edge.send = self.edge_said.append
        self.client = Yjs("edge:web:1-feed")
        self._told = 0

    def append(self, record: Produce) -> None:
        assert record.topic == "twin.updates", record
        self.cloud.append(record.value, at_ms=self.now_ms, key=record.key, headers=record.headers)

    def edit_in_cloud(self, **fields: object) -> None:
        self.append(edit_record("t", DEVICE, {f"desired.{k}": v for k, v in fields.items()}, 1))

    def talk(self) -> None:
        """Carry what all have to say until they are silent."""
        sites = {"north": self.edge_said, "web": self.client.said}
        hears = {"north": self.edge.hear, "web": self.client.hear}
        while True:
            for site, said in sites.items():
                sent, said[:] = list(said), []
                for envelope in sent:
                    delivery = Delivery(f"hw/v1/t/{site}/twin/up", envelope, 1, 1, 0)
                    for record in up_records(delivery, SETTINGS):
                        self.append(record)
            self.cloud.run()
            fresh = self.cloud.records("twin.down")[self._told :]
            self._told += len(fresh)
            for _, site, parts in down_batches([Record(record) for record in fresh]):
                hears[site](encode_batch(parts))
            if not (fresh or any(sites.values())):
                return

    def digests(self) -> set[str]:
        twin = self.cloud.logic.device(f"t/{DEVICE}")  # type: ignore[attr-defined]
        edge = self.edge._devices[DEVICE].replica
        digests = {twin.replica.digest().hex(), edge.digest().hex()}
        return digests | {self.client.ask(show=True)["digest"]}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path)
    yield found
    found.client.close()
    found.edge.close()


def test_a_yjs_client_joins_writes_and_conflicts_as_any_replica(world: World) -> None:
    world.edge.edit(DEVICE, {"desired.speed": 40, "tags.room": "hall 3"}, ())
    world.talk()
    world.client.ask(greet=True)
    world.talk()
    assert world.client.ask(show=True)["fields"] == {"desired.speed": 40, "tags.room": "hall 3"}
    assert len(world.digests()) == 1

    world.now_ms = 2_000
    world.client.ask(set=["desired.speed", 50], at_ms=2_000)
    world.talk()
    shown = world.edge.view(DEVICE)
    assert shown is not None
    assert shown["fields"]["desired.speed"]["value"] == 50
    assert shown["conflicts"] == []
    assert len(world.digests()) == 1

    # Nobody hears of another: three writes of one field.
    world.now_ms = 3_000
    world.edge.edit(DEVICE, {"desired.speed": 60, "reported.rpm": 1}, ())
    world.now_ms = 3_002
    world.edit_in_cloud(speed=70, mode="eco")
    world.client.ask(set=["desired.speed", 80], at_ms=3_001)
    world.client.ask(set=["tags.floor", [1, "ä"]], at_ms=3_001)
    world.talk()
    world.edge.greet(all_devices=True)
    world.client.ask(greet=True)
    world.talk()
    told = world.client.ask(show=True)
    values = {"desired.speed": 70, "desired.mode": "eco", "reported.rpm": 1}
    assert told["fields"] == {**values, "tags.room": "hall 3", "tags.floor": [1, "ä"]}
    assert told["conflicts"] == 3
    assert len(world.digests()) == 1
    shown = world.edge.view(DEVICE)
    assert shown is not None
    assert {path: field["value"] for path, field in shown["fields"].items()} == told["fields"]
    assert len(shown["conflicts"]) == 3
