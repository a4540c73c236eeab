"""kill -9 to the worker in the middle of a replay: the results are those of an undisturbed run."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import httpx
import pytest

from streams.settings import load
from tests import web
from tests.scenario.load import PARTITIONS, Load, produce
from tests.scenario.replaying import found_equal
from tests.waiting import eventually

TOML = """
[[windows]]
name = "w"
size_ms = 10000
grace_ms = 1000
horizon_ms = 30000

[devices]
disorder_ms = 200
idle_ms = 2000
idle_final_ms = 4000

[detection]
warmup = 8
emit_score = 3.0

[worker]
instance_id = "w1"
checkpoint_ms = 300
"""

TOPICS = 3
"""That a worker reads: readings, edits of twins, and commands."""


def produce_for(kafka, readings, seconds):
    ended = threading.Event()
    timer = threading.Timer(seconds, ended.set)
    timer.start()
    asyncio.run(produce(kafka, readings, ended))
    timer.join()


def measured(env, name):
    """The values of one of the worker's metrics; none while it does not answer."""
    port = env["HEADWATER_OPS__WORKER_PORT"]
    try:
        text = web.get(f"http://127.0.0.1:{port}/metrics").text
    except httpx.TransportError:
        return []
    lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
    return [float(line.rpartition(" ")[2]) for line in lines]


def caught_up(env):
    """Whether the worker has folded all there is and waits for nothing."""
    lags = measured(env, "headwater_host_lag_records")
    return len(lags) == TOPICS * PARTITIONS and not any(lags)


def play(
    own_servers, processes, tmp_path: Path, monkeypatch, *, kills, seconds, seed, store="memory"
):
    config = tmp_path / "headwater.toml"
    config.write_text(TOML)
    env = own_servers.env(tmp_path, HEADWATER_CONFIG=str(config), HEADWATER_WORKER__STORE=store)
    kafka = own_servers.addresses["kafka"]
    readings = Load(seed)
    worker = processes("worker", env=env)
    for _ in range(kills):
        produce_for(kafka, readings, seconds)
        eventually(lambda: any(measured(env, "headwater_host_state_bytes_total")))
        worker.kill()
        worker.wait()
        worker = processes("worker", env=env)
    produce_for(kafka, readings, seconds)
    monkeypatch.setenv("HEADWATER_CONFIG", str(config))
    eventually(lambda: caught_up(env))
    found_equal(kafka, load())


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
def test_the_final_windows_equal_those_of_an_undisturbed_run_bit_for_bit(
    own_servers, processes, tmp_path, monkeypatch, store
):
    play(own_servers, processes, tmp_path, monkeypatch, kills=2, seconds=6, seed=1, store=store)


@pytest.mark.long
@pytest.mark.timeout(86_400)
def test_many_kills_change_nothing(own_servers, processes, tmp_path, monkeypatch, request):
    minutes = request.config.getoption("--minutes")
    kills = max(2, round(minutes * 60 / 8))
    play(own_servers, processes, tmp_path, monkeypatch, kills=kills, seconds=6, seed=7)
