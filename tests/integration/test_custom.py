"""The package in ``examples/custom``, installed beside Headwater, does what its page says."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from streams.agents.readings import make_readings
from streams.settings import Settings
from streams.testing import Driver, frame
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install the example into a folder of its own and return that folder."""
    target = tmp_path_factory.mktemp("custom")
    subprocess.run(
        [
            Path(sys.executable).parent / "uv", "pip", "install", "--quiet", "--offline",
            "--no-deps", "--no-build-isolation", "--python", sys.executable,
            "--target", target, ROOT / "examples" / "custom",
        ],
        check=True,
    )  # fmt: skip
    return target


def publish(kafka, values):
    async def go():
        async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
            for value in values:
                await producer.send_and_wait("aggregates", value)
            marker = [("hw-time", b"1")]
            await producer.send_and_wait("aggregates", b"", headers=marker)

    asyncio.run(go())


def results(value):
    """Return what a worker makes of one window of readings of a boiler, and of a correction."""
    driver = Driver(make_readings(Settings()))
    for seq, (t_ms, degrees) in enumerate([(0, value), (900_000, 1.0), (1, value + 2)]):
        row = {"device": "boiler", "metric": "c", "t_ms": t_ms, "value": degrees}
        driver.send(frame({**row, "boot": 1, "seq": seq}, received_ms=900_000), at_ms=900_000)
    return driver.values("aggregates")


def test_a_sink_of_another_package_keeps_the_greatest_rank(
    own_servers, processes, installed, tmp_path
):
    env = own_servers.env(
        tmp_path,
        PYTHONPATH=str(installed),
        SQLITE_SINK=str(tmp_path / "windows.sqlite"),
        HEADWATER_SINK__TARGETS='["sqlite"]',
        HEADWATER_SINK__FLUSH_MS="100",
    )
    found = results(95.0)
    processes("sink", env=env)
    publish(own_servers.addresses["kafka"], [*found, *reversed(found)])

    def kept():
        try:
            with sqlite3.connect(tmp_path / "windows.sqlite") as database:
                return database.execute(
                    "SELECT device, rank, count, mean FROM windows WHERE start_ms = 0"
                ).fetchall()
        except sqlite3.OperationalError:
            return []

    eventually(lambda: kept() == [("boiler", 1, 2, 96.0)], within_s=60, what="the correction")


def test_a_sink_that_is_not_installed_is_refused_with_those_that_are(own_servers, tmp_path):
    env = own_servers.env(tmp_path, HEADWATER_SINK__TARGETS='["sqlite"]')
    told = subprocess.run(
        [sys.executable, "-m", "streams.cli.main", "sink"],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode != 0
    assert "no sink named sqlite is installed; there are influx, lake" in " ".join(
        (told.stdout + told.stderr).split()
    )


def test_an_agent_of_ones_own_reads_results(own_servers, installed, tmp_path):
    publish(own_servers.addresses["kafka"], results(95.0))
    env = {
        **os.environ,
        "PYTHONPATH": str(installed),
        "KAFKA_URL": f"kafka://{own_servers.addresses['kafka']}",
    }
    command = [sys.executable, "-m", "faust", "-A", "headwater_custom.agent", "worker"]
    with (tmp_path / "agent.log").open("wb") as log:
        agent = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log)
    try:
        text = (tmp_path / "agent.log").read_text
        eventually(lambda: "boiler c 0 is hot: 96.0" in text(), within_s=60, what=text)
    finally:
        agent.terminate()
        agent.wait(30)
