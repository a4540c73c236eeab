"""State that left memory, as a former version wrote it: devices that are away, closed windows."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson

from streams.agents import eviction, shelving
from streams.agents.readings import make_readings
from streams.settings import Devices, Settings, Topics, Window, Worker
from streams.testing import Driver
from tests.golden import rows_of

FILE = "segments.json.gz"
_SETTINGS = Settings(
    topics=Topics(shards=1),
    windows=[
        Window(name="minute", size_ms=60_000, horizon_ms=3_600_000, aggregates=["p50", "distinct"])
    ],
    devices=Devices(disorder_ms=0, idle_ms=60_000, idle_final_ms=120_000),
    worker=Worker(evict_ms=600_000, shelve_ms=60_000),
)
_START_MS = 1_792_800_000_000


def driver() -> Driver:
    """Return a driver of the logic whose state is kept."""
    return Driver(make_readings(_SETTINGS))


def resumed(golden: dict[str, Any]) -> Driver:
    """Return a driver that goes on from what was kept."""
    again = driver()
    for _ in range(golden["position"]):
        again.append(None, at_ms=_START_MS, headers={"hw-time": b"1"})
    again.stored = {
        key: (at, bytes.fromhex(state)) for key, (at, state) in golden["states"].items()
    }
    again.segments |= {name: bytes.fromhex(state) for name, state in golden["segments"].items()}
    again.named = golden["named"]
    again.committed = golden["position"]
    again.crash()
    return again


def go_on(again: Driver) -> None:
    """Send a late reading for a window that is away, and two of a device that is."""
    at_ms = _START_MS + 4_000_000
    for number, (device, back_ms) in enumerate(
        (("here", 900_000), ("gone", 3_990_000), ("gone", 0))
    ):
        _send(again, device, at_ms - back_ms, at_ms, 900 + number)
    again.tick(at_ms=at_ms + 1_000_000)


def write_segments(folder: Path) -> None:
    """Record a folder: the state in the middle with all that is away, and what is told then."""
    first = driver()
    for number in range(4):
        _send(first, "gone", _START_MS + number * 10_000, _START_MS + number * 10_000, number)
    for number in range(200):
        at_ms = _START_MS + number * 20_000
        _send(first, "here", at_ms, at_ms, number)
    least = {"_LEAST": 1}
    with patch.multiple(eviction, **least), patch.multiple(shelving, **least):
        first.evict()
    first.checkpoint()
    before = len(first.output)
    go_on(first)
    del first.output[:before]
    kept = {
        "states": {key: [stamp, state.hex()] for key, (stamp, state) in first.stored.items()},
        "segments": {name: state.hex() for name, state in first.segments.items()},
        "named": first.named,
        "position": 204,
        "told": rows_of(first),
    }
    (folder / FILE).write_bytes(gzip.compress(orjson.dumps(kept), mtime=0))


def read_segments(folder: Path) -> dict[str, Any]:
    """Return what :func:`write_segments` kept."""
    return dict(orjson.loads(gzip.decompress((folder / FILE).read_bytes())))


def _send(to: Driver, device: str, t_ms: int, at_ms: int, seq: int) -> None:
    text = b'{"t_ms":%d,"celsius":%d,"seq":%d,"boot":1}' % (t_ms, seq % 7, seq)
    to.send(text, at_ms=at_ms, key=b"plant/" + device.encode(), headers={"hw-site": b"north"})
