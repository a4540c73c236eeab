"""Two sites that sign, links cut at random, an edge killed and its clock moved back an hour."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from streams.adapters.log_reader import read_all
from streams.sim.proxy import Proxy
from tests.conftest import Servers
from tests.scenario.two_sites import World
from tests.waiting import PATIENCE_S, eventually

Start = Callable[..., subprocess.Popen[bytes]]


def play(servers: Servers, home: Path, start: Start, *, run_s: float, equal_s: float) -> None:
    broker = urlsplit(servers.addresses["mqtt"])
    with ExitStack() as stack:
        proxies = {
            name: stack.enter_context(Proxy(broker.hostname or "", broker.port or 1883))
            for name in ("north", "south")
        }
        world = World(servers, home, start, proxies, seed=int(run_s))
        stack.callback(world.http.close)
        world.start()
        began_s = time.monotonic()
        for kill in (1, 2):
            while time.monotonic() - began_s < run_s * kill / 3:
                world.step()
            world.kill_edge("north")
            if kill == 2:
                world.sites["north"].clock.move(-3_600_000)
            world.start_edge("north")
        while time.monotonic() - began_s < run_s or not _enough(world, run_s):
            world.step()
            assert time.monotonic() - began_s < run_s + 2 * PATIENCE_S, "too little happened"
        _write_apart(world)
        world.heal()
        twins = eventually(world.equal, within_s=equal_s, what="equal digests after the heal")
        _check_twins(world, twins)
        eventually(world.all_ended, what="every command ended")
        _check_commands(world)
        told = asyncio.run(_ends(servers, world))
        assert {id_: len(numbers) for id_, numbers in told.items()} == dict.fromkeys(
            world.issued, 1
        )


def _enough(world: World, run_s: float) -> bool:
    """Whether as much has happened as a quiet machine does in the time; a busy one takes longer."""
    return min(len(world.issued), len(world.begun), len(world.roles), world.starts) > run_s / 4


def _write_apart(world: World) -> None:
    """Let all three write the same field while none can hear of another."""
    for site in world.sites.values():
        site.toggle(linked=False)
    for side, value in (("north", -1), ("south", -2), ("cloud", -3)):
        world.limit(side, value)


def _check_twins(world: World, twins: list[dict]) -> None:
    """No acknowledged edit is missing, on any side, and every conflict of the last cut is told."""
    for twin in twins:
        values = {path: field["value"] for path, field in twin["fields"].items()}
        assert values["reported.starts"] == world.starts
        assert set(values.get("tags.roles", ())) == world.roles
        for side, last in world.last.items():
            assert values[f"desired.of_{side}"] == last
        pairs = [
            (entry["winner"]["value"], entry["loser"]["value"])
            for entry in twin["conflicts"]
            if entry["path"] == "desired.limit"
        ]
        # Whoever writes again has seen what he wrote before, over every kill and jump of the clock.
        assert all(world.limits[one] != world.limits[other] for one, other in pairs), pairs
        told = {frozenset(pair) for pair in pairs}
        assert {frozenset(pair) for pair in itertools.combinations((-1, -2, -3), 2)} <= told


def _check_commands(world: World) -> None:
    for id_ in world.issued:
        statuses = world.statuses(id_)
        assert [s["number"] for s in statuses] == list(range(1, len(statuses) + 1))
        (end,) = [s for s in statuses if s["ended"]]
        assert world.begun[id_] <= 1, statuses
        if end["state"] in ("expired", "cancelled", "refused"):
            assert world.begun[id_] == 0, statuses
        if end["state"] == "done":
            assert world.begun[id_] == 1, statuses


async def _ends(servers: Servers, world: World) -> dict[str, set[int]]:
    """Return the numbers of the ends in the status stream, by command."""
    found: dict[str, set[int]] = {}
    async for record in read_all(servers.addresses["kafka"], ["commands.status"]):
        status = orjson.loads(record.value)
        if status["tenant"] == world.tenant and status["ended"]:
            found.setdefault(status["id"], set()).add(status["number"])
    return found


def test_two_sites_and_the_cloud_agree_after_random_cuts_and_kills(
    servers: Servers, tmp_path: Path, processes: Start
) -> None:
    play(servers, tmp_path, processes, run_s=12, equal_s=PATIENCE_S)


@pytest.mark.long
def test_they_agree_within_ten_seconds_after_a_minute_of_cuts(
    servers: Servers, tmp_path: Path, processes: Start
) -> None:
    play(servers, tmp_path, processes, run_s=60, equal_s=10)
