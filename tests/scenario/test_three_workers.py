"""Three workers under load are killed, stopped, joined and left: nothing is lost, doubled or new.

One of them is of a later version, as while workers are upgraded one by one.

At the end Kafka holds what an undisturbed run over the same log says, to the bit: no window is
missing, and no revision of a window was ever told with two contents.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from contextlib import suppress

import orjson
import pytest

from streams.adapters import shard_codec
from streams.adapters.shard_keys import split_key
from streams.errors import StateError
from streams.settings import load
from tests.scenario.fleet import GROUP, Fleet, came_back
from tests.scenario.load import Load, under
from tests.scenario.next_version import ADDED
from tests.scenario.replaying import found_equal, log_of

# Windows of "d" leave memory before their horizon is over; devices with "c" do so as a whole.
TOML = """
[[windows]]
name = "w"
size_ms = 10000
grace_ms = 1000
horizon_ms = 60000
aggregates = ["first", "last", "p50"]
metrics = ["m", "d"]

[[windows]]
name = "c"
size_ms = 10000
grace_ms = 1000
horizon_ms = 3000
metrics = ["c"]

[[windows]]
name = "h"
kind = "hopping"
size_ms = 20000
step_ms = 5000
horizon_ms = 20000
metrics = ["m", "d"]

[[windows]]
name = "s"
kind = "session"
gap_ms = 2000
horizon_ms = 20000
metrics = ["m"]

[devices]
disorder_ms = 200
idle_ms = 2000
idle_final_ms = 4000

[detection]
warmup = 8
emit_score = 3.0

[worker]
checkpoint_ms = 300
evict_ms = 1000
shelve_ms = 1000

[sink]
targets = []
"""
CROWD = 12_000
"""Devices of one shard, whose state then takes more than one record of the changelog."""
PAUSE_S = 0.15
HEAD_BYTES = 20
"""Of each record of the changelog, before what it holds."""
PLAY_MINUTES = 5.0
MOST_DEEDS = 20
DEEDS = ("kill", "suspend", "add", "remove")


def play(own_servers, processes, tmp_path, monkeypatch, *, seed, minutes=0.0):
    """Do all four deeds in an order by the seed, and again until the minutes are over."""
    config = tmp_path / "headwater.toml"
    config.write_text(TOML)
    monkeypatch.setenv("HEADWATER_CONFIG", str(config))
    kafka, rng = own_servers.addresses["kafka"], random.Random(seed)
    monkeypatch.setenv("HEADWATER_KAFKA", kafka)
    fleet = Fleet(
        processes, own_servers, tmp_path, newer=["w1", "w3"], HEADWATER_CONFIG=str(config)
    )
    readings, done = Load(seed, CROWD), []
    deadline = time.monotonic() + minutes * 60
    for instance in ("w0", "w1", "w2"):
        fleet.start(instance)
    with under(kafka, readings, PAUSE_S):
        fleet.settled()
        while not done or time.monotonic() < deadline or wants_more(fleet, done):
            for deed in rng.sample(DEEDS, len(DEEDS)):
                done.append(do(fleet, deed, rng))
                # The next deed may fall into the rebalance that this one has caused.
                if rng.random() < 0.7:
                    fleet.settled()
        fleet.settled()
    fleet.drained()
    check(fleet, kafka, readings, done)


def wants_more(fleet, done):
    """Whether no partition has come back to a worker yet: the assignor may give it others."""
    return not came_back(fleet.openings()) and len(done) < MOST_DEEDS


def do(fleet, deed, rng):
    if deed == "add":
        instance = min({"w0", "w1", "w2", "w3"} - fleet.members.keys(), default="w4")
        fleet.start(instance)
    else:
        instance = rng.choice(sorted(fleet.members))
        getattr(fleet, deed)(instance)
    return deed, instance


def check(fleet, kafka, readings, done):
    windows, scores = found_equal(kafka, load())
    report = audit()
    assert report["holds"], report["problems"][:3]
    assert report["received"] == readings.rows
    assert report["classes"]["duplicate"] > 0
    assert report["classes"]["late"] > 0
    assert {name for _, _, name, _ in windows} == {"w", "c", "h", "s"}
    assert any(rank > 0 for rank, _ in windows.values()), "no window was corrected"
    state = asyncio.run(log_of(kafka, [f"{GROUP}-readings-state-changelog"]))
    keys = [split_key(record.key) for found in state.values() for record in found]
    assert max(key[4] for key in keys) > 0, "no piece of state was larger than a record"
    forms = {form for form in (b"HWC1", b"HWW1") if form in heads(state)}
    assert b"HWC1" in forms, "no device has left memory"
    assert b"HWW1" in forms, "no closed window has left memory"
    stored = {ADDED in piece for piece in pieces(state)}
    assert stored == {True, False}, "only one version has stored anything"
    openings = fleet.openings()
    assert came_back(openings) > 0, "no partition went from one worker to another and back"
    sys.stdout.write(
        f"\n{readings.rows:,} readings, {len(windows):,} windows, {len(scores):,} scores; "
        f"{len(done)} deeds: {' '.join('-'.join(deed) for deed in done)}; "
        f"{fleet.generations()} generations of the group, {len(openings)} openings of partitions, "
        f"{came_back(openings)} returns\n"
    )


def heads(changelog):
    """What the segments in the changelog begin with."""
    records = [record for found in changelog.values() for record in found if record.value]
    return {record.value[HEAD_BYTES:][:4] for record in records if "#" in split_key(record.key)[1]}


def pieces(changelog):
    """The states in the changelog that lie in one record, whoever wrote them."""
    for record in (record for found in changelog.values() for record in found):
        at = (record.value or b"").find(b"HWS2")
        if at >= 0 and split_key(record.key)[4] == 0:
            with suppress(StateError):  # The first record of several.
                yield shard_codec.decode(record.value[at:])


def audit():
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli.main", "audit", "--json"],
        env=os.environ,
        capture_output=True,
        timeout=250,
        check=False,
    )
    assert done.stdout, done.stderr.decode()[-3000:]
    return orjson.loads(done.stdout)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_three_workers_that_are_killed_stopped_joined_and_left_tell_what_one_would_have_told(
    own_servers, processes, tmp_path, monkeypatch
):
    play(own_servers, processes, tmp_path, monkeypatch, seed=3)


@pytest.mark.long
@pytest.mark.timeout(86_400)
def test_many_kills_and_rebalances_change_nothing(
    own_servers, processes, tmp_path, monkeypatch, course
):
    seed, minutes = course
    play(own_servers, processes, tmp_path, monkeypatch, seed=seed, minutes=minutes)


def pytest_generate_tests(metafunc):
    """Cut ``--minutes`` into plays of five, each with a seed of its own, at most ``--seeds``."""
    if "course" in metafunc.fixturenames:
        option = metafunc.config.getoption
        plays = min(option("--seeds"), max(1, round(option("--minutes") / PLAY_MINUTES)))
        courses = [(seed, option("--minutes") / plays) for seed in range(plays)]
        metafunc.parametrize("course", courses)
