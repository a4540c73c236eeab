"""Servers on a plain machine: started once, found again, never mistaken for another."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import orjson
import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.services import cache, supervisor
from streams.services.ports import free_port, is_open
from streams.settings import Settings
from streams.topics import specs
from tests.waiting import PATIENCE_S, eventually


def headwater(*command, home, **env):
    mine = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
    return subprocess.run(
        [sys.executable, "-m", "streams.cli.main", *command],
        cwd=home,
        env={**mine, "HEADWATER_STATE": str(home / "state"), **env},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )


@pytest.fixture
def home(tmp_path):
    yield tmp_path
    supervisor.down(tmp_path / "state")


def test_up_status_down_and_data_that_stays(home):
    up = headwater("services", "up", "--only", "mqtt", "--json", home=home)
    address = orjson.loads(up.stdout)["mqtt"]
    assert address.startswith("mqtt://127.0.0.1:")
    rows = orjson.loads(headwater("services", "status", "--json", home=home).stdout)
    (mqtt,) = [row for row in rows if row["name"] == "mqtt"]
    assert (mqtt["address"], mqtt["ours"], mqtt["up"]) == (address, True, True)
    assert orjson.loads(
        headwater("services", "up", "--only", "mqtt", "--json", home=home).stdout
    ) == {"mqtt": address}
    assert psutil.Process(mqtt["pid"]).is_running()
    assert "stopped" in headwater("services", "down", home=home).stdout
    eventually(lambda: not psutil.pid_exists(mqtt["pid"]))
    assert not is_open(address.rpartition("//")[2])
    again = headwater("services", "up", "--only", "mqtt", "--json", home=home)
    assert orjson.loads(again.stdout) == {"mqtt": address}


def test_a_killed_server_shows_and_is_started_again(home):
    state = home / "state"
    address = supervisor.up(state, ["mqtt"])["mqtt"]
    first = supervisor.running(state)["mqtt"].pid
    psutil.Process(first).kill()
    eventually(lambda: not supervisor.running(state)["mqtt"].alive())
    rows = orjson.loads(headwater("services", "status", "--json", home=home).stdout)
    assert [row["up"] for row in rows if row["name"] == "mqtt"] == [False]
    assert supervisor.up(state, ["mqtt"]) == {"mqtt": address}
    assert supervisor.running(state)["mqtt"].pid != first


def test_another_process_that_got_the_recorded_id_is_left_alone(home):
    state = home / "state"
    supervisor.up(state, ["mqtt"])
    supervisor.stop_one(state, "mqtt")
    stranger = subprocess.Popen(["sleep", "3600"])
    try:
        file = state / "services.json"
        content = orjson.loads(file.read_bytes())
        content["processes"]["mqtt"]["pid"] = stranger.pid
        content["processes"]["mqtt"]["started_at"] -= 60
        file.write_bytes(orjson.dumps(content))
        assert not supervisor.running(state)["mqtt"].alive()
        supervisor.down(state)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_two_that_start_at_once_start_one_server(home):
    with ThreadPoolExecutor(2) as pool:
        runs = list(
            pool.map(
                lambda _: headwater("services", "up", "--only", "mqtt", "--json", home=home),
                range(2),
            )
        )
    assert [run.returncode for run in runs] == [0, 0]
    assert runs[0].stdout == runs[1].stdout
    mine = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(home) in part for part in process.info["cmdline"] or ())
    ]
    assert len(mine) == 1


@pytest.mark.parametrize("how", ["environment", "file"])
def test_a_server_that_settings_name_is_used_and_none_is_started(home, how):
    address = f"mqtt://127.0.0.1:{free_port()}"
    env = {"HEADWATER_MQTT": address} if how == "environment" else {}
    if how == "file":
        (home / "headwater.toml").write_text(f'mqtt = "{address}"\n')
    up = headwater("services", "up", "--only", "mqtt", "--json", home=home, **env)
    assert orjson.loads(up.stdout) == {"mqtt": address}
    assert supervisor.running(home / "state") == {}
    doctor = headwater("doctor", "--json", home=home, **env)
    (item,) = [i for i in orjson.loads(doctor.stdout) if i["what"] == "MQTT broker"]
    assert not item["ok"]
    assert "does not answer" in item["found"]
    assert doctor.returncode == 1


@pytest.mark.parametrize("damage", ["changed", "missing", "added", "manifest cut short"])
def test_a_damaged_installation_is_made_again(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runs = []

    def install(folder):
        runs.append(folder)
        (folder / "bin").mkdir()
        (folder / "bin" / "server").write_text("whole")

    folder = cache.installed("thing", "1.0", install)
    assert cache.installed("thing", "1.0", install) == folder
    assert len(runs) == 1
    server = folder / "bin" / "server"
    if damage == "changed":
        server.write_text("whole?")
    elif damage == "missing":
        server.unlink()
    elif damage == "added":
        (folder / "more").write_text("x")
    else:
        manifest = folder / "manifest.json"
        manifest.write_bytes(manifest.read_bytes()[:10])
    assert cache.installed("thing", "1.0", install) == folder
    assert server.read_text() == "whole"
    assert len(runs) == 2


def test_an_installation_that_failed_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def broken(folder):
        (folder / "half").write_text("x")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        cache.installed("thing", "1.0", broken)
    assert [path.name for path in (tmp_path / "headwater").iterdir()] == ["thing-1.0.lock"]


def test_doctor_is_content_with_this_machine(home):
    done = headwater("doctor", home=home)
    assert done.returncode == 0, done.stdout
    assert all(line.startswith("✓") for line in done.stdout.splitlines())


def test_doctor_names_what_is_missing_and_how_to_get_it(home):
    (home / "empty").mkdir()
    done = headwater(
        "doctor", home=home, PATH=str(home / "empty"), XDG_CACHE_HOME=str(home / "cache")
    )
    assert done.returncode == 1
    for line in done.stdout.splitlines():
        assert line.startswith("✓") or "→" in line
    for package in ("openjdk-17-jre-headless", "apt-get install maven", "golang-go"):
        assert package in done.stdout


# -- topics ---------------------------------------------------------------------------------


@pytest.fixture
def broker(home):
    return supervisor.up(home / "state", ["kafka"])["kafka"]


async def with_admin(kafka, act):
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        return await act(admin)
    finally:
        await admin.close()


async def segment_ms(admin):
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "alerts")])
    (*_, entries) = answer.resources[0]
    return {entry[0]: entry[1] for entry in entries}["segment.ms"]


def test_topics_are_made_checked_set_and_differences_named(home, broker):
    config = ConfigResource(
        ConfigResourceType.TOPIC, "aggregates", configs={"retention.ms": "1000"}
    )

    missing = headwater("topics", "check", home=home)
    assert missing.returncode != 0
    assert "readings: does not exist" in missing.stderr
    asyncio.run(with_admin(broker, lambda a: a.create_topics([NewTopic("readings", 3, 1)])))
    wrong = headwater("topics", "apply", home=home)
    assert wrong.returncode != 0
    assert "readings: has 3 partitions, expected 4" in wrong.stderr
    asyncio.run(with_admin(broker, lambda a: a.delete_topics(["readings"])))
    eventually(lambda: headwater("topics", "apply", home=home).returncode == 0, every_s=0.5)
    assert headwater("topics", "check", home=home).returncode == 0
    assert headwater("topics", "apply", home=home).returncode == 0
    names = asyncio.run(with_admin(broker, lambda a: a.list_topics()))
    assert {spec.name for spec in specs(Settings().topics)} <= set(names)
    asyncio.run(with_admin(broker, lambda a: a.alter_configs([config])))

    def differs():
        changed = headwater("topics", "check", home=home)
        expected = "aggregates: retention.ms is 1000, expected 604800000"
        return changed.returncode != 0 and expected in changed.stderr

    # The broker answers before it goes by what it was told.
    eventually(differs, every_s=0.5)
    more = ConfigResource(
        ConfigResourceType.TOPIC,
        "alerts",
        configs={"message.timestamp.type": "CreateTime", "segment.ms": "3600000"},
    )
    asyncio.run(with_admin(broker, lambda a: a.alter_configs([more])))
    applied = ""

    def mended():
        nonlocal applied
        applied += headwater("topics", "apply", home=home).stdout
        return "message.timestamp.type" in applied

    eventually(mended, every_s=0.5)
    assert "aggregates: retention.ms = 604800000" in applied
    assert "alerts: message.timestamp.type = LogAppendTime" in applied
    eventually(lambda: headwater("topics", "check", home=home).returncode == 0, every_s=0.5)
    # What somebody has set beside stays.
    assert asyncio.run(with_admin(broker, segment_ms)) == "3600000"
