"""The demo, small: everything adds up, an independent count agrees, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter

import orjson
import psutil
import pyarrow as pa
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from streams.services import supervisor
from tests import web
from tests.waiting import PATIENCE_S, eventually


async def partitions_of(kafka, topics):
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    try:
        await admin.start()
        described = await admin.describe_topics(list(topics))
    finally:
        await admin.close()
    return [
        TopicPartition(topic["topic"], partition["partition"])
        for topic in described
        for partition in topic["partitions"]
    ]


async def count_kafka(kafka):
    """Count what is in the log with Arrow and aiokafka alone, none of Headwater's own code."""
    topics = ("readings", "aggregates", "rejected", "late", "quarantine")
    rows, windows, aside = Counter(), {}, set()
    places = await partitions_of(kafka, topics)
    # Assigned by hand: a subscription may be assigned anew. "earliest": aiokafka looks up where to
    # begin by itself, too, and may do so after a seek.
    async with AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest") as consumer:
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        while any([await consumer.position(place) < ends[place] for place in places]):
            for place, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    headers = dict(record.headers)
                    if "hw-time" in headers:
                        continue
                    if place.topic == "rejected":
                        rows[place.topic] += 1
                        continue
                    # What a worker said again after the kill names the same reading.
                    if (source := headers.get("hw-source")) in aside:
                        continue
                    aside |= {source} - {None}
                    table = pa.ipc.open_stream(record.value).read_all()
                    rows[place.topic] += len(table)
                    if place.topic == "aggregates":
                        for row in table.to_pylist():
                            key = (row["tenant"], row["device"], row["metric"], row["window"])
                            best = windows.setdefault((*key, row["start_ms"]), (-2, 0))
                            windows[(*key, row["start_ms"])] = max(
                                best, (row["rank"], row["count"])
                            )
    return rows, windows


def count_influx(influx):
    """Count windows and their readings with InfluxQL over plain HTTP."""
    query = 'SELECT count("count"), sum("count") FROM "windows"'
    answer = web.get(f"{influx}/query", params={"db": "headwater", "q": query}).raise_for_status()
    return answer.json()["results"][0]["series"][0]["values"][0][1:]


@pytest.fixture
def demo(tmp_path):
    """A small demo that was left running: its summary, and the folder of its servers."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli.main", "demo", "--scale", "0.08", "--json", "--keep"],
        cwd=tmp_path,
        env={**mine, "HEADWATER_STATE": str(tmp_path / "state")},
        capture_output=True,
        timeout=800,
        check=False,
    )
    state = tmp_path / "state" / "demo"
    try:
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        yield orjson.loads(done.stdout), state
    finally:
        pids = state / "pids"
        children = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
        for child in children:
            child.terminate()
        psutil.wait_procs(children, timeout=PATIENCE_S)
        supervisor.down(state)


def test_the_summary_agrees_with_an_independent_count_of_kafka_and_influxdb(demo, tmp_path):
    summary, state = demo
    assert summary["holds"]
    assert summary["alerts"]["firing"] > 0
    assert summary["twin"]["conflicts"], "both sides wrote the same field"
    assert summary["twin"]["fields"]["desired.limits.vibration"] == 65
    servers, audit = supervisor.running(state), summary["audit"]
    rows, windows = asyncio.run(count_kafka(servers["kafka"].address))
    assert rows["readings"] == audit["received"]
    assert rows["late"] == audit["classes"]["late"]
    assert rows["quarantine"] == audit["classes"]["quarantined"]
    assert rows["rejected"] == audit["refused_records"]
    assert len(windows) == audit["windows"] > 1000
    assert sum(count for _, count in windows.values()) == audit["classes"]["accepted"]
    assert count_influx(servers["influx"].address) == [
        audit["windows"],
        audit["classes"]["accepted"],
    ]


def test_the_demo_leaves_nothing_behind(tmp_path):
    mine = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli.main", "demo", "--scale", "0.02"],
        cwd=tmp_path,
        env={**mine, "HEADWATER_STATE": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Does everything add up?" in done.stdout

    def left():
        return [
            process.info["cmdline"]
            for process in psutil.process_iter(["cmdline"])
            if any(str(tmp_path) in part for part in process.info["cmdline"] or ())
        ]

    eventually(lambda: not left(), what=left)
