"""Every stored format, as a former version wrote it.

``python -m tests.golden NAME`` (``NAME twins``, ``NAME segments``, ``NAME rules`` for those alone)
writes a folder of this directory with the code as it is; the tests read all folders so, too. A
folder is never written again: a change of a format adds one, and its reader goes on reading the
former ones or says what to do (docs/upgrading.md).
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from streams.agents.readings import make_readings
from streams.agents.rollups import make_groups, make_partials
from streams.ports import LogicFactory
from streams.settings import Settings, Window
from streams.testing import Driver, frame

HERE = Path(__file__).parent
SETTINGS = Settings(
    windows=[
        Window(name="minute", size_ms=60_000, aggregates=["first", "last", "delta", "p50"]),
        Window(name="sliding-minute", kind="hopping", size_ms=60_000, step_ms=20_000),
        Window(name="visit", kind="session", gap_ms=30_000),
        Window(name="day", kind="calendar", period="day", zone="Europe/Berlin"),
    ]
)
_START_MS = 1_792_800_000_000
_STEP_MS = 5_000
END_MS = _START_MS + 10_000_000
"""Log time at which all are silent for long."""


@dataclass(frozen=True)
class Stage:
    """One logic, and the topic of the stage before it whose output it reads (none: readings)."""

    name: str
    factory: LogicFactory
    source: str


STAGES = (
    Stage("readings", make_readings(SETTINGS), ""),
    Stage("partials", make_partials(SETTINGS), "aggregates"),
    Stage("groups", make_groups(SETTINGS), "rollups.partial"),
)


def readings() -> list[bytes]:
    """Return frames with disorder, a gap, a duplicate, a late one, a correction and silence."""
    random = np.random.default_rng(4)
    rows = [
        {
            "device": f"pump-{i % 3}",
            "metric": ("bar", "celsius")[i % 2],
            "t_ms": _START_MS + i * _STEP_MS + int(random.integers(-9_000, 9_000)),
            "value": float(np.round(random.normal(20, 3), 3)),
            "boot": 1,
            "seq": i // 3 + (i > 36),
            "site": ("north", "south")[i % 3 % 2],
        }
        for i in range(72)
    ]
    rows.insert(24, rows[18])
    rows.insert(54, {**rows[48], "t_ms": _START_MS - 7_200_000, "seq": 900})
    rows.insert(64, {**rows[63], "t_ms": _START_MS + 20 * _STEP_MS, "seq": 500})
    return [frame(*rows[i : i + 8]) for i in range(0, len(rows), 8)]


def append(driver: Driver, values: list[dict[str, Any]]) -> None:
    """Append values to the log as they were recorded."""
    for value in values:
        driver.append(
            bytes.fromhex(value["value"]),
            at_ms=value["at_ms"],
            key=bytes.fromhex(value["key"]) if value["key"] else None,
            headers={name: bytes.fromhex(text) for name, text in value["headers"].items()},
        )


def play(driver: Driver, values: list[dict[str, Any]]) -> None:
    """Send values one after the other."""
    for value in values:
        append(driver, [value])
        driver.run()


def rows_of(driver: Driver) -> list[dict[str, Any]]:
    """Return what a driver wrote, comparable to what was kept as JSON."""
    topics = dict.fromkeys(p.topic for p in driver.output)
    told = [{"topic": topic, **row} for topic in topics for row in driver.rows(topic)]
    kept = orjson.dumps(told, default=lambda value: value.hex())
    # Which row of a frame comes first is no promise.
    return sorted(orjson.loads(kept), key=orjson.dumps)


def write(folder: Path) -> None:
    """Record a folder: per stage its input, its state in the middle, and what it tells then."""
    folder.mkdir()
    outputs: dict[str, list[dict[str, Any]]] = {
        "": [
            {"value": value.hex(), "at_ms": _START_MS + i * 40_000, "key": "", "headers": {}}
            for i, value in enumerate(readings())
        ]
    }
    for stage in STAGES:
        driver, given = Driver(stage.factory), outputs[stage.source]
        half = len(given) // 2
        play(driver, given[:half])
        driver.checkpoint()
        states = {key: [stamp, state.hex()] for key, (stamp, state) in driver.stored.items()}
        before = len(driver.output)
        play(driver, given[half:])
        driver.tick(at_ms=END_MS)
        for produce in driver.output:
            outputs.setdefault(produce.topic, []).append(
                {
                    "value": (produce.value or b"").hex(),
                    "at_ms": _START_MS + len(outputs.get(produce.topic, ())) * 10_000,
                    "key": (produce.key or b"").hex(),
                    "headers": {name: text.hex() for name, text in produce.headers.items()},
                }
            )
        del driver.output[:before]
        kept = {"input": given, "half": half, "states": states, "told": rows_of(driver)}
        (folder / f"{stage.name}.json.gz").write_bytes(gzip.compress(orjson.dumps(kept), mtime=0))


def read(folder: Path, stage: Stage) -> dict[str, Any]:
    """Return what :func:`write` kept of a stage."""
    packed = (folder / f"{stage.name}.json.gz").read_bytes()
    return dict(orjson.loads(gzip.decompress(packed)))
