"""Twins as a former version stored them: the worker's state, an edge's log, and what they said."""

from __future__ import annotations

import gzip
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from crdt.core.edits import Alter, Increment, Latch
from crdt.log import Log
from edge.node import EdgeNode
from streams.adapters.twin_records import compact_record, edit_record, reading_of, sync_record
from streams.agents.twins import make_twins
from streams.settings import Settings
from streams.testing import Driver
from tests.golden import append

_FIRST = {"paths": [{"path": "desired.limit", "policy": "edge-wins"}]}
"""Twins of the first version: registers only."""
_NOW = {
    "paths": [
        {"path": "desired.limit", "policy": "edge-wins"},
        {"path": "reported.starts", "kind": "counter"},
        {"path": "tags.roles", "kind": "set"},
        {"path": "desired.stop", "kind": "latch"},
    ]
}
DEVICES = ("fan-2", "pump-1")
_PASSING = ("in_sync", "stored_bytes")
_START_MS = 1_792_800_000_000


def settings_of(golden: dict[str, Any]) -> Settings:
    """Return the settings that a recording was made with."""
    return Settings(twins=golden.get("twins", _FIRST))


def node(path: Path, golden: dict[str, Any]) -> EdgeNode:
    """Return an edge over a log; its clock stands where no record was yet."""
    clock = count(_START_MS, 1_000)
    log, reading = Log(path), reading_of(settings_of(golden).twins)
    return EdgeNode(log, "north", reading, lambda: next(clock), DEVICES)


def shown(edge: EdgeNode) -> dict[str, Any]:
    """Return what an edge shows of its devices' fields and conflicts."""
    views = {device: edge.view(device) or {} for device in DEVICES}
    return {
        device: {name: part for name, part in view.items() if name not in _PASSING}
        for device, view in views.items()
    }


def as_told(found: Any, told: Any) -> Any:
    """Return what was found without what later versions add: fields are only ever added."""
    if isinstance(found, dict) and isinstance(told, dict):
        return {name: as_told(part, told.get(name)) for name, part in found.items() if name in told}
    if isinstance(found, list) and isinstance(told, list) and len(found) == len(told):
        return [as_told(*pair) for pair in zip(found, told, strict=True)]
    return found


def states(driver: Driver) -> list[dict[str, Any]]:
    """Return what the cloud showed, in order."""
    return list(orjson.loads(orjson.dumps([orjson.loads(v) for v in driver.values("twin.state")])))


class _Recording:
    """A cloud and an edge that talk, while all is written down."""

    def __init__(self, path: Path) -> None:
        self.cloud = Driver(make_twins(Settings(twins=_NOW)))
        self.edge = node(path, {"twins": _NOW})
        self.updates: list[dict[str, Any]] = []
        self.down: list[str] = []
        self._told = 0
        self._up: list[bytes] = []
        self.edge.send = self._up.append

    def edit(self, device: str, **fields: object) -> None:
        self.record(edit_record("acme", device, {"desired": fields}, 1))

    def operate(self, device: str, *operations: dict[str, object]) -> None:
        self.record(edit_record("acme", device, operations, 1))

    def talk(self) -> None:
        """Let both say what they have to say."""
        from crdt.core.messages import decode_batch

        while self._up or self._told < len(self.cloud.records("twin.down")):
            sent, self._up[:] = list(self._up), []
            for device, message in (part for each in sent for part in decode_batch(each)):
                self.record(sync_record("acme", "north", device, message, 1))
            for produce in self.cloud.records("twin.down")[self._told :]:
                self._told += 1
                self.down.append((produce.value or b"").hex())
                self.edge.hear(produce.value or b"")

    def record(self, produce: Any) -> None:
        record = {
            "value": produce.value.hex(),
            "at_ms": _START_MS + 500 * len(self.updates),
            "key": produce.key.hex(),
            "headers": {name: text.hex() for name, text in produce.headers.items()},
        }
        self.updates.append(record)
        append(self.cloud, [record])
        self.cloud.run()


def write_twins(folder: Path) -> None:
    """Record edits of both sides, a conflict, and a cut link; then what follows."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "twins.db"
        both = _Recording(path)
        both.edge.greet(all_devices=True)
        both.edit("pump-1", limit=5, mode="eco", calibration={"gain": 1.25, "on": True})
        both.talk()
        edge_did = [Increment("reported.starts", 2), Alter("tags.roles", ("spare", "old"))]
        both.edge.edit("pump-1", {}, (), [*edge_did, Latch("desired.stop", on=True)])
        both.operate("pump-1", {"op": "increment", "path": "reported.starts"})
        both.talk()
        both.operate("pump-1", {"op": "remove", "path": "tags.roles", "elements": ["old"]})
        both.operate("pump-1", {"op": "release", "path": "desired.stop"})
        # Neither hears the other: a conflict.
        both.edge.edit("pump-1", {"desired.limit": 7, "reported.rpm": 1_480}, ())
        both.edit("pump-1", limit=6)
        both.edge.edit("fan-2", {"reported.state": "on"}, ())
        both.talk()
        both.edge.compact("pump-1")
        both.record(compact_record("acme", "fan-2", 1))
        both.talk()
        both.cloud.checkpoint()
        kept: dict[str, Any] = {
            "twins": _NOW,
            "half": len(both.updates),
            "states": {key: [at, state.hex()] for key, (at, state) in both.cloud.stored.items()},
            "edge": shown(both.edge),
        }
        # What the log holds while the process still runs, and what it is after a clean end.
        ahead = [Increment("reported.starts", 5), Alter("tags.roles", ("new",), ("spare",))]
        both.edge.edit("pump-1", {"reported.rpm": 1_500}, ["desired.mode"], ahead)
        kept["edge_ahead"] = shown(both.edge)
        told = len(both.down)
        both.edge.close()
        kept["log"] = path.read_bytes().hex()
        both.edge = node(path, kept)
        both.edge.send = both._up.append
        both.edge.greet(all_devices=True)
        both.edit("fan-2", limit=3)
        both.talk()
        kept |= {
            "updates": both.updates,
            "down": both.down[told:],
            "told": states(both.cloud),
            "shown": shown(both.edge),
        }
        both.edge.close()
    folder.mkdir(exist_ok=True)
    (folder / "twins.json.gz").write_bytes(gzip.compress(orjson.dumps(kept), mtime=0))


def read_twins(folder: Path) -> dict[str, Any]:
    """Return what :func:`write_twins` kept."""
    return dict(orjson.loads(gzip.decompress((folder / "twins.json.gz").read_bytes())))
