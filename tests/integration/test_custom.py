"""The package in ``examples/custom``, installed beside Headwater, does what its page says."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from streams.adapters.log_reader import read_all
from streams.adapters.results import read_table
from streams.agents.detectors import detector_of
from streams.agents.readings import make_readings
from streams.errors import SettingsError
from streams.intake.decode import BatchDecoder, Message
from streams.intake.mapping import TopicMap
from streams.settings import Detection, Mapping, Settings
from streams.testing import Driver, check_detector, frame
from tests.property.test_alert_states import frame as scores
from tests.waiting import PATIENCE_S, eventually

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


def publish(kafka, values, topic="aggregates"):
    async def go():
        async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
            for value in values:
                await producer.send_and_wait(topic, value, partition=1)
            marker = [("hw-time", b"1")]
            await producer.send_and_wait(topic, b"", headers=marker, partition=1)

    asyncio.run(go())


def packed(t_ms, *readings):
    """A message of the protocol that the example's codec reads."""
    head = struct.pack(">3sQ", b"PK1", t_ms)
    return head + b"".join(struct.pack(">Bf", number, value) for number, value in readings)


def told(kafka, topic):
    """All that a topic holds."""

    async def go():
        return [record async for record in read_all(kafka, [topic])]

    return asyncio.run(go())


def ask(installed, home, *words, **env):
    """What a command says beside the example."""
    return subprocess.run(
        [sys.executable, "-m", "streams.cli.main", *words],
        env={**os.environ, "PYTHONPATH": str(installed), **env},
        cwd=home, capture_output=True, text=True, check=False,
    )  # fmt: skip


def results(value):
    """Return what a worker makes of one window of readings of a boiler, and of a correction."""
    driver = Driver(make_readings(Settings()))
    for seq, (t_ms, degrees) in enumerate([(0, value), (900_000, 1.0), (1, value + 2)]):
        row = {"device": "boiler", "metric": "c", "t_ms": t_ms, "value": degrees}
        driver.send(frame({**row, "boot": 1, "seq": seq}, received_ms=900_000), at_ms=900_000)
    return driver.values("aggregates")


def test_a_sink_of_another_package_keeps_the_greatest_rank(
    module_servers, processes, installed, tmp_path
):
    env = module_servers.env(
        tmp_path,
        PYTHONPATH=str(installed),
        SQLITE_SINK=str(tmp_path / "windows.sqlite"),
        HEADWATER_SINK__TARGETS='["sqlite"]',
        HEADWATER_SINK__FLUSH_MS="100",
    )
    found = results(95.0)
    processes("sink", env=env)
    publish(module_servers.addresses["kafka"], [*found, *reversed(found)])

    def kept():
        try:
            with sqlite3.connect(tmp_path / "windows.sqlite") as database:
                return database.execute(
                    "SELECT device, rank, count, mean FROM windows "
                    "WHERE start_ms = 0 AND device = 'boiler'"
                ).fetchall()
        except sqlite3.OperationalError:
            return []

    eventually(lambda: kept() == [("boiler", 1, 2, 96.0)], what="the correction")


def test_a_sink_that_is_not_installed_is_refused_with_those_that_are(module_servers, tmp_path):
    env = module_servers.env(tmp_path, HEADWATER_SINK__TARGETS='["sqlite"]')
    told = subprocess.run(
        [sys.executable, "-m", "streams.cli.main", "sink"],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode != 0
    assert "no sink named sqlite is installed; there are influx, lake" in " ".join(
        (told.stdout + told.stderr).split()
    )


TOML = """
codecs = ["packed"]

[[windows]]
name = "minute"
size_ms = 60000
aggregates = ["iqr"]

[detection]
detector = "jump"
emit_score = 5.0
options = { usual_per_s = 1.0 }
"""


def test_a_worker_uses_a_codec_an_aggregate_and_a_detector_of_another_package(
    module_servers, processes, installed, tmp_path
):
    (tmp_path / "headwater.toml").write_text(TOML)
    kafka, key = module_servers.addresses["kafka"], b"default/press"
    named = [("content-type", b"application/x-packed; v=1")]
    values = [20.0, 21.0, 22.0, 23.0, 80.0]
    records = [
        (packed(i * 1_000, (1, value)), named if i % 2 else []) for i, value in enumerate(values)
    ]
    cut, unknown = packed(5_000, (1, 1.0))[:-1], packed(6_000, (1, 2.0), (9, 1.0))
    records[2:2] = [(cut, named), (unknown, [])]
    records.append((b'{"t_ms": 120000, "temperature": 80.0}', []))

    async def go():
        async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
            for value, headers in records:
                await producer.send_and_wait("readings", value, key=key, headers=headers)

    asyncio.run(go())
    processes("worker", env=module_servers.env(tmp_path, PYTHONPATH=str(installed)))

    def closed():
        frames = [record.value for record in told(kafka, "aggregates") if record.value]
        rows = [row for value in frames for row in read_table(value).to_pylist()]
        mine = [row for row in rows if row["device"] == "press"]
        return [row for row in mine if row["rank"] == 0 and row["start_ms"] == 0]

    window, *_ = eventually(closed)
    assert (window["count"], window["sum"]) == (5, sum(values))
    assert window["iqr"] == pytest.approx(2.0, abs=0.5)  # of two quantiles, each right to 1 %
    assert "p25" not in window

    def refused():
        return {r.value: dict(r.headers)["hw-reason"] for r in told(kafka, "rejected")}

    wanted = {cut: b"malformed-packed", unknown: b"unknown-metric"}
    eventually(lambda: refused() == wanted, what=refused)

    def scores_told():
        found = [read_table(r.value) for r in told(kafka, "anomalies") if r.value]
        rows = [row for table in found for row in table.to_pylist()]
        return [row for row in rows if row["device"] == "press"]

    (scored, *_) = eventually(scores_told)
    assert (scored["detector"], scored["value"], scored["score"]) == ("jump/1", 80.0, 57.0)


def test_a_mapping_names_a_codec_of_another_package(installed, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    topics = TopicMap([Mapping(topic="raw/{device}", format="packed")])
    decoder = BatchDecoder(topics, {}, 100, 10_000)
    payloads = [packed(7, (1, 1.5), (2, 9.0)), b'{"temperature": 1}', packed(8, (2, 3.0))]
    decoded = decoder.decode([Message("raw/press", payload, 9) for payload in payloads])
    rows = decoded.readings
    found = zip(rows.t_ms.tolist(), (rows.metric[i] for i in range(3)), rows.value, strict=True)
    assert list(found) == [(7, "temperature", 1.5), (7, "pressure", 9.0), (8, "pressure", 3.0)]
    assert [(refused.index, refused.reason) for refused in decoded.refused] == [
        (1, "malformed-packed")
    ]


def test_the_detector_keeps_the_promises_of_a_detector(installed, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    detection = Detection(detector="jump", options={"usual_per_s": 0.5})
    check_detector(lambda: detector_of(detection))
    with pytest.raises(SettingsError, match="jump needs usual_per_s"):
        detector_of(Detection(detector="jump"))


def test_another_detector_learns_anew_and_windows_go_on(installed, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    one = frame({"device": "d", "metric": "m", "t_ms": 1, "value": 1.0})
    driver = Driver(make_readings(Settings()))
    driver.send(one, at_ms=1)
    driver.checkpoint()
    stored = driver.stored
    jumping = Settings(detection=Detection(detector="jump", options={"usual_per_s": 0.001}))
    driver = Driver(make_readings(jumping))
    driver.append(one, at_ms=1)
    driver.stored, driver.committed = stored, 1
    driver.crash()
    for t_ms, value in ((2, 9.0), (60_001, 9_999.0)):
        driver.send(frame({"device": "d", "metric": "m", "t_ms": t_ms, "value": value}), at_ms=t_ms)
    assert [row["count"] for row in driver.rows("aggregates")] == [2]
    assert [(row["detector"], row["expected"]) for row in driver.rows("anomalies")] == [
        ("jump/1", 9.0)
    ]


def test_results_name_the_settings_with_the_package_that_decides_them(installed, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    plain = Settings()
    assert Settings(codecs=["packed"]).fingerprint() != plain.fingerprint()
    assert Settings(codecs=["json"]).fingerprint() == plain.fingerprint()


def test_a_channel_of_another_package_gets_alerts(module_servers, processes, installed, tmp_path):
    lines = tmp_path / "late" / "alerts.jsonl"
    (tmp_path / "headwater.toml").write_text(
        '[[rules]]\nname = "r"\nscore_over = 5.0\nresolve_ms = 0\n'
        f'[[channels]]\nname = "book"\nkind = "file"\noptions = {{ path = "{lines}" }}\n'
        "[alerts]\nretry_min_ms = 20\nretry_max_ms = 50\n"
    )
    log = tmp_path / "alerts-0.log"
    processes("alerts", env=module_servers.env(tmp_path, PYTHONPATH=str(installed)))
    publish(module_servers.addresses["kafka"], [scores([("pump", 5, 9.0)])], "anomalies")
    # Its folder is not there: it is tried again until it is.
    eventually(lambda: "delivery failed" in log.read_text(), what=log.read_text)
    lines.parent.mkdir()

    def of_the_pump():
        told = lines.read_text().splitlines(keepends=True) if lines.exists() else []
        whole = [json.loads(line) for line in told if line.endswith("\n")]
        return [one["type"] for one in whole if one["data"]["device"] == "pump"]

    assert eventually(of_the_pump) == ["alert.firing"]


def test_what_is_installed_is_shown(installed, tmp_path):
    found = ask(installed, tmp_path, "config", "check").stdout
    assert "file (headwater-custom 0.1.0), webhook" in found
    assert "json, number, packed (headwater-custom 0.1.0), senml" in found
    items = json.loads(ask(installed, tmp_path, "doctor", "--json").stdout)
    (shown,) = [item["found"] for item in items if item["what"] == "extensions"]
    assert "detectors: jump (headwater-custom 0.1.0)" in shown


def test_the_options_of_an_extension_are_checked_with_the_settings(installed, tmp_path):
    (tmp_path / "headwater.toml").write_text('[[channels]]\nname = "book"\nkind = "file"\n')
    refused = ask(installed, tmp_path, "config", "check")
    assert refused.returncode == 2
    assert "channel book: the kind file needs the option path" in refused.stderr


def test_an_agent_of_ones_own_reads_results(module_servers, installed, tmp_path):
    publish(module_servers.addresses["kafka"], results(95.0))
    env = {
        **os.environ,
        "PYTHONPATH": str(installed),
        "KAFKA_URL": f"kafka://{module_servers.addresses['kafka']}",
    }
    command = [sys.executable, "-m", "faust", "-A", "headwater_custom.agent", "worker"]
    with (tmp_path / "agent.log").open("wb") as log:
        agent = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log)
    try:
        text = (tmp_path / "agent.log").read_text
        eventually(lambda: "boiler c 0 is hot: 96.0" in text(), what=text)
    finally:
        agent.terminate()
        agent.wait(PATIENCE_S)
