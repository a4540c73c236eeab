"""Filtered readings, from the edge to the lake: each has its place, and the audit says so."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from streams import lake
from streams.audit import audit
from streams.backfill import ask
from streams.intake.backfill_wire import Request, State
from streams.settings import Settings
from tests.conftest import Servers
from tests.integration.edge_child import EdgeChild, edge_node
from tests.integration.gateway_child import gateway, unique
from tests.waiting import PATIENCE_S, eventually

_FILTER = """
[[filters]]
devices = ["press"]
mode = "swinging-door"
bound = 0.6

[[filters]]
devices = ["mill"]
mode = "windows"
"""
_FIRST_MS = 1_750_000_000_000
_READINGS = 600
_MEASURED = {"press": _READINGS, "pump": _READINGS, "mill": _READINGS}


def values() -> list[float]:
    """A course, and noise that the filter leaves out."""
    return [n // 100 + n * 7_919 % 101 / 101 for n in range(_READINGS)]


def send_all(edge: EdgeChild) -> None:
    """Post the readings of both devices, and let the edge tell all that it has to."""
    for first in range(0, _READINGS, 100):
        rows = [
            {"device": device, "t_ms": _FIRST_MS + 1_000 * n, "boot": 1, "seq": n, "m": value}
            for device in _MEASURED
            for n, value in list(enumerate(values()))[first : first + 100]
        ]
        assert edge.post(rows).status_code == 202
    # What waits in the filter, and how much was filtered, is stored by an orderly stop.
    assert edge.stop() == 0
    edge.start()


def audited(env: dict[str, str]) -> dict[str, Any] | None:
    """Return the report of ``headwater audit`` if every identity holds."""
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli.main", "audit", "--json"],
        env=env,
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, 1), (done.stdout, done.stderr)
    found: dict[str, Any] = orjson.loads(done.stdout)
    return found if done.returncode == 0 else None


def test_what_filters_left_out_is_counted_and_comes_up_once_when_it_is_asked_for(
    own_servers: Servers, processes: Any, tmp_path: Path
) -> None:
    env = own_servers.env(tmp_path, HEADWATER_SINK__LAKE_FLUSH_MS="300")
    kafka, broker = own_servers.addresses["kafka"], own_servers.addresses["mqtt"]
    site, settings = unique("site"), own_servers.settings(tmp_path)
    with (
        gateway(kafka, broker, tmp_path, ""),
        edge_node(broker, tmp_path, site, _FILTER) as edge,
    ):
        # One after the other: a busy machine starts them all at once too slowly.
        for name in ("worker", "sink"):
            processes(name, env=env)
        send_all(edge)

        def all_is_there() -> bool:
            report = asyncio.run(audit(settings))
            # The sink has stored all of the log, and windows of it are told.
            return report.holds and report.windows > 0 and len(report.edges) == 2

        eventually(lambda: edge.waiting() + edge.waiting("losses") == 0)
        eventually(all_is_there, every_s=2)
        # Results may have been told since that look, and not be in the sinks yet.
        report = eventually(lambda: audited(env), what="every identity holds")
        assert report is not None
        mill, press = report["edges"]
        assert (press["device"], press["site"]) == ("press", site)
        assert (mill["filtered"], mill["in_log"]) == (_READINGS, 0)
        assert press["measured"] == _READINGS == press["sent"] + press["filtered"]
        assert press["filtered"] > press["sent"]
        # A batch whose answer comes late is sent again: it is in the log twice, and counts once.
        assert press["sent"] <= press["in_log"]
        assert accepted(report) == {"press": press["sent"], "pump": _READINGS}

        # Its windows are the edge's, and hold what the edge has counted into them.
        (windows,) = report["edge_windows"]
        assert (windows["device"], windows["counted"]) == ("mill", _READINGS)
        # Those that were open then may have closed since, if the machine is very slow.
        assert _READINGS >= windows["in_log"] >= _READINGS - windows["open"] > 0

        def raw() -> dict[str, list[tuple[int, float]]]:
            found: dict[str, list[tuple[int, float]]] = {}
            for row in lake.raw(root=tmp_path / "lake").to_pylist():
                found.setdefault(row["device"], []).append((row["t_ms"], row["value"]))
            return found

        whole = [(_FIRST_MS + 1_000 * n, value) for n, value in enumerate(values())]
        assert len(raw()["press"]) == press["sent"]
        for asked in (1, 2):
            assert brought_up(settings, site) == 2 * _READINGS
            rows = asked * 2 * _READINGS
            eventually(lambda: backfilled(tmp_path / "lake") >= rows)  # noqa: B023 called at once
            # However often it was asked for: each reading once, with those that were sent.
            assert raw() == dict.fromkeys(_MEASURED, whole)
        # No window, and no class of readings, has what was brought up.
        eventually(all_is_there, every_s=2)
        again = asyncio.run(audit(settings)).as_json()
        assert accepted(again) == accepted(report)
        assert [one["measured"] for one in again["edges"]] == [_READINGS, _READINGS]
        assert [one["counted"] for one in again["edge_windows"]] == [_READINGS]


def accepted(report: dict[str, Any]) -> dict[str, int]:
    """The readings of each device that count."""
    return {one["device"]: one["accepted"] for one in report["devices"]}


def brought_up(settings: Settings, site: str) -> int:
    """Ask for all readings of the ring; return how many are in Kafka when the edge has done it."""
    request = Request(uuid4().hex, _FIRST_MS, _FIRST_MS + 1_000 * _READINGS)
    waits = {"silence_s": PATIENCE_S, "expiry_s": 600}
    found = asyncio.run(
        ask(settings, "default", site, request, on_progress=lambda _: None, **waits)
    )
    assert found is not None
    assert found.state is State.DONE, found
    return found.readings


def backfilled(root: Path) -> int:
    """How many rows the lake's table of backfills has."""
    if "backfill" not in lake.tables(root=root):
        return 0
    return int(lake.sql("SELECT count(*) AS n FROM backfill", root=root)["n"][0].as_py())
