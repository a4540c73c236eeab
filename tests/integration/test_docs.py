"""The programs that the documentation shows, run as they stand there (host and port changed)."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from standardwebhooks.webhooks import Webhook as Signer

from streams.adapters import frames
from streams.adapters.log_reader import read_all
from streams.adapters.reading_records import RecordDecoder
from streams.adapters.rejected import rejected_record
from streams.agents.readings import make_readings
from streams.agents.rollups import make_groups, make_partials
from streams.alerts.secrets import new_secret
from streams.core.readings import Labels, Readings
from streams.errors import DecodeError
from streams.recovery.ledger import Action, Decision, Status
from streams.services.ports import free_port, is_open
from streams.settings import Settings
from streams.testing import Driver
from tests import web
from tests.documents import titled
from tests.waiting import PATIENCE_S, eventually


def readings(device):
    n = 3
    return Readings(
        *(Labels.constant(name, n) for name in ("t", "s", device, "m")),
        np.asarray([1_000, 61_000, 121_000], np.int64),
        np.full(n, 130_000, np.int64),
        np.asarray([1.5, 2.5, 3.5]),
        np.zeros(n, np.uint8),
        np.full(n, -1, np.int64),
        np.full(n, -1, np.int64),
        {},
        {},
    )


@pytest.fixture
def program(tmp_path):
    """Run a program of a page; returns a function that reads what it has printed so far."""
    started = []

    def run(page, title, *arguments, replace=()):
        code = titled(page, title)
        for old, new in replace:
            assert old in code
            code = code.replace(old, new)
        (tmp_path / title).write_text(code)
        out = (tmp_path / f"{title}.out").open("wb")
        interpreter = shutil.which("node") if title.endswith(".mjs") else sys.executable
        command = [interpreter, str(tmp_path / title), *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT))
        out.close()
        return (tmp_path / f"{title}.out").read_text

    yield run
    for child in started:
        child.kill()
        child.wait()


async def produce(kafka, records):
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for topic, value, headers in records:
            await producer.send_and_wait(topic, value, headers=headers)


def groups_of(windows):
    """Take results of devices through both stages of roll-ups."""
    first, second = Driver(make_partials(Settings())), Driver(make_groups(Settings()))
    for value in windows:
        first.send(value, at_ms=130_000)
    first.tick(at_ms=140_000)
    for part in first.output:
        second.send(part.value, at_ms=140_000, key=part.key, headers=part.headers)
    second.tick(at_ms=150_000)
    return second.values("rollups")


def test_the_readers_of_the_wire_page_read_what_headwater_writes(kafka, program):
    device = f"doc-{uuid.uuid4().hex[:8]}"
    frame = frames.encode(readings(device))
    driver = Driver(make_readings(Settings()), partition=0, partitions=1)
    driver.append(frame, at_ms=130_000)
    driver.run()
    refused = rejected_record(
        b"not json",
        DecodeError("malformed-json", device),
        source="mqtt:a/b",
        received_ms=1,
        max_bytes=100,
    )
    records = [("readings", frame, []), ("rejected", refused.value, list(refused.headers.items()))]
    decision = Decision(device, "r1", Action.DROP, Status.DONE, at_ms=1)
    records.append(("redrives", decision.encode(), []))
    records.append(("losses", b'{"count": 7}', [("hw-site", device.encode())]))
    records += [("aggregates", value, []) for value in driver.values("aggregates")]
    records += [("rollups", value, []) for value in groups_of(driver.values("aggregates"))]
    asyncio.run(produce(kafka, records))
    where = [("127.0.0.1:9092", kafka)]
    seen = program("wire.md", "read_readings.py", replace=where)
    eventually(lambda: f"{device} m 121000 3.5" in seen(), what="a reading printed")
    seen = program("wire.md", "read_aggregates.py", replace=where)
    eventually(lambda: f"t {device} m 1m 0 rank 0 mean 1.5" in seen(), what="a window printed")
    seen = program("wire.md", "read_rollups.py", replace=where)
    eventually(lambda: "t site s m 0 rank 1 count 1" in seen(), what="a group printed")
    seen = program("wire.md", "read_redrives.py", replace=where)
    eventually(lambda: f"{device} drop done" in seen(), what="a decision printed")
    seen = program("wire.md", "read_losses.py", replace=where)
    eventually(lambda: f"{device} {{'count': 7}}" in seen(), what="a loss printed")
    seen = program("wire.md", "read_rejected.py", replace=where)
    eventually(lambda: f"malformed-json {device} b'not json'" in seen(), what="a refusal printed")


def test_what_the_producer_of_the_wire_page_writes_is_a_reading(kafka, program):
    device = f"doc-{uuid.uuid4().hex[:8]}"
    where = [("127.0.0.1:9092", kafka), ("boiler-1", device)]
    printed = program("wire.md", "write_readings.py", replace=where)

    async def written():
        key = f"acme/{device}".encode()
        return [record async for record in read_all(kafka, ["readings"]) if record.key == key]

    eventually(lambda: asyncio.run(written()), what="the record written")
    assert printed() == ""
    (record,) = asyncio.run(written())
    decoded = RecordDecoder({}, 10).decode([record])
    r = decoded.readings
    assert decoded.refused == []
    assert (r.tenant[0], r.site[0], r.device[0], r.metric[0]) == (
        "acme", "north", device, "temperature"
    )  # fmt: skip
    assert (r.value.tolist(), r.boot.tolist(), r.seq.tolist()) == ([21.5], [1], [1])
    assert 0 <= r.received_ms[0] - r.t_ms[0] < 1_000 * PATIENCE_S


@pytest.mark.parametrize("title", ["receive.py", "receive.mjs"])
def test_the_receivers_of_the_webhooks_page_tell_true_signatures_from_false(
    title, program, tmp_path
):
    if title.endswith(".mjs") and not shutil.which("node"):
        pytest.skip("node is not installed")
    secret, port = new_secret(), free_port()
    (tmp_path / "secret").write_text(secret)
    seen = program("webhooks.md", title, tmp_path / "secret", port)
    eventually(lambda: is_open(f"127.0.0.1:{port}"), what="the receiver listening")
    body = json.dumps({"data": {"why": "ümläut 95 °C"}}).encode()

    def post(content=body, *, at=None, key=secret, message="msg_1"):
        now = at or datetime.now(tz=UTC)
        headers = {
            "webhook-id": message,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Signer(key).sign("msg_1", now, body.decode()),
        }
        return web.post(f"http://127.0.0.1:{port}/", content=content, headers=headers).status_code

    assert post() == 204
    eventually(lambda: "ümläut 95 °C" in seen())
    assert post(body + b" ") == 401
    assert post(key=new_secret()) == 401
    assert post(message="msg_2") == 401
    assert post(at=datetime.fromtimestamp(time.time() - 3600, tz=UTC)) == 401


def test_the_tests_of_the_testing_page_pass_as_a_user_copies_them(tmp_path):
    (tmp_path / "test_my_windows.py").write_text(titled("testing.md", "test_my_windows.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_windows.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
