"""kill -9 to the worker in the middle of a replay: the results are those of an undisturbed run."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from streams.adapters.frames import encode
from streams.adapters.log_reader import read_all
from streams.adapters.results import decode_scores, decode_windows
from streams.agents.readings import make_readings
from streams.core.placement import partition_of
from streams.core.readings import Labels, Readings
from streams.settings import load
from streams.testing import Driver
from tests.waiting import eventually

PARTITIONS = 4
DEVICES = 40
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


def frame(rng, first_ms, seqs):
    """Return one frame per partition with 60 readings, some of them late or out of order."""
    by_partition = {}
    for i in range(60):
        device = f"d{rng.integers(DEVICES)}"
        seqs[device] = seqs.get(device, -1) + 1
        t_ms = first_ms + i * 30 - int(rng.choice([0, 0, 0, 500, 15_000, 90_000]))
        by_partition.setdefault(partition_of("t", device, PARTITIONS), []).append(
            (device, t_ms, seqs[device], rng.normal() * rng.choice([1, 1, 1, 9]))
        )
    for partition, rows in by_partition.items():
        n = len(rows)
        yield (
            partition,
            encode(
                Readings(
                    Labels.constant("t", n),
                    Labels.constant("s", n),
                    Labels.of(device for device, *_ in rows),
                    Labels.constant("m", n),
                    np.asarray([t for _, t, *_ in rows], np.int64),
                    np.full(n, time.time_ns() // 1_000_000, np.int64),
                    np.asarray([value for *_, value in rows]),
                    np.zeros(n, np.uint8),
                    np.zeros(n, np.int64),
                    np.asarray([seq for _, _, seq, _ in rows], np.int64),
                    {},
                    {},
                )
            ),
        )


async def produce(kafka, seconds, seed):
    rng, seqs = np.random.default_rng(seed), {}
    producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True)
    await producer.start()
    first_ms = 1_700_000_000_000
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for partition, value in frame(rng, first_ms, seqs):
            await producer.send_and_wait("readings", value, partition=partition)
        first_ms += 1800
    await producer.stop()


async def log_of(kafka, topics):
    found = {topic: [] for topic in topics}
    async for record in read_all(kafka, topics):
        found[record.topic].append(record)
    return found


def windows(values):
    """Return each window's greatest revision, to the bit; every revision must be one value."""
    seen, greatest = {}, {}
    for value in values:
        w = decode_windows(value)
        floats = (w.sum, w.min, w.max, w.mean, w.sd)
        for i in range(len(w)):
            key = (w.device[i], w.metric[i], w.window[i], int(w.start_ms[i]))
            rank = int(w.rank[i])
            bits = (int(w.count[i]), int(w.kafka_ms[i]), *(float(x[i]).hex() for x in floats))
            if rank >= 0:
                assert seen.setdefault((key, rank), bits) == bits, (key, rank)
            if rank >= greatest.get(key, (-2,))[0]:
                greatest[key] = (rank, bits)
    return greatest


def scores(values):
    told = {}
    for value in values:
        s = decode_scores(value)
        for i in range(len(s)):
            told[s.device[i], int(s.t_ms[i]), int(s.offset[i]), int(s.row[i])] = s.score[i].hex()
    return told


def caught_up(env):
    """Whether the worker has folded all there is and waits for nothing."""
    port = env["HEADWATER_OPS__WORKER_PORT"]
    try:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    except httpx.TransportError:
        return False
    lags = [line for line in text.splitlines() if line.startswith("headwater_host_lag_records{")]
    return len(lags) == 2 * PARTITIONS and all(line.endswith(" 0.0") for line in lags)


def undisturbed(settings, log):
    """Run the same log through the logic in memory, without any disturbance."""
    aggregates, anomalies = [], []
    for partition in range(PARTITIONS):
        driver = Driver(make_readings(settings), partition=partition, partitions=PARTITIONS)
        for record in log:
            if record.partition == partition:
                driver.append(record.value, at_ms=record.timestamp, headers=dict(record.headers))
        driver.run()
        aggregates += driver.values("aggregates")
        anomalies += driver.values("anomalies")
    return windows(aggregates), scores(anomalies)


def play(
    own_servers, processes, tmp_path: Path, monkeypatch, *, kills, seconds, seed, store="memory"
):
    config = tmp_path / "headwater.toml"
    config.write_text(TOML)
    env = own_servers.env(
        tmp_path,
        HEADWATER_CONFIG=str(config),
        HEADWATER_WORKER__STORE=store,
    )
    kafka = own_servers.addresses["kafka"]
    worker = processes("worker", env=env)
    for k in range(kills):
        asyncio.run(produce(kafka, seconds, seed + k))
        worker.kill()
        worker.wait()
        worker = processes("worker", env=env)
    asyncio.run(produce(kafka, seconds, seed + kills))

    monkeypatch.setenv("HEADWATER_CONFIG", str(config))
    settings = load()

    def differences():
        """Return what differs from the undisturbed run, ``None`` while there is nothing yet."""
        log = asyncio.run(log_of(kafka, ["readings", "aggregates", "anomalies"]))
        values = {topic: [r.value for r in records] for topic, records in log.items()}
        found = windows(values["aggregates"]), scores(values["anomalies"])
        expected = undisturbed(settings, log["readings"])
        if not found[0] or not found[1]:
            return None
        return [
            (key, one.get(key), other.get(key))
            for one, other in zip(found, expected, strict=True)
            for key in one.keys() | other.keys()
            if one.get(key) != other.get(key)
        ]

    eventually(lambda: caught_up(env), within_s=90)
    left: list[object] | None = None

    def equal():
        nonlocal left
        left = differences()
        return left == []

    try:
        eventually(equal, within_s=60, every_s=2.0)
    except AssertionError as error:
        raise AssertionError(f"{left and len(left)} differences: {left and left[:3]}") from error


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
