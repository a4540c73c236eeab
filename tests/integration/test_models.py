"""Trained models and labels through a real worker and the commands that people type."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time

import numpy as np
import orjson
import pytest
from aiokafka import AIOKafkaProducer

from models.registry import Registry
from models.training import Plan, train
from streams.adapters.log_reader import read_all
from streams.adapters.results import decode_scores
from streams.core.placement import partition_of
from streams.testing import frame
from tests.waiting import eventually
from tests.windows import results_frame


def learn(folder, seed):
    rng = np.random.default_rng(seed)
    heat = rng.normal(40.0, 2.0, 600)
    rows = np.column_stack([3.0 * heat + rng.normal(0, 1.0, 600), heat])
    t_ms, plan = np.arange(600) * 60_000, Plan("covariance", seed)
    Registry(folder).add("pump", plan, train(plan, ("flow", "heat"), t_ms, rows), t_ms, rows)


@pytest.fixture
def plant(own_servers, processes, tmp_path):
    (tmp_path / "headwater.toml").write_text(
        '[[scoring]]\nname = "pump"\npromote_rows = 1\ndrift_rows = 20\n'
        '[worker]\nid = "w"\ninstance_id = "w1"\n'
    )
    models = tmp_path / "models"
    learn(models, 1)
    env = own_servers.env(
        tmp_path,
        HEADWATER_CONFIG=str(tmp_path / "headwater.toml"),
        HEADWATER_MODELS=str(models),
    )
    processes("worker", env=env)
    kafka = own_servers.addresses["kafka"]

    def publish(topic, value, partition):
        async def go():
            async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
                await producer.send_and_wait(topic, value, partition=partition)

        asyncio.run(go())

    def told():
        async def go():
            return [decode_scores(r.value) async for r in read_all(kafka, ["anomalies"])]

        return asyncio.run(go())

    def tried(*words):
        return subprocess.run(
            [sys.executable, "-m", "streams.cli.main", *words],
            env={**os.environ, **env}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def command(*words, code=0):
        done = tried(*words)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    command.tried = tried
    return publish, told, command, models


def minute(start, flow, heat, minutes=1):
    values = (("flow", flow), ("heat", heat))
    return results_frame(
        *(
            {"metric": metric, "start": at, "value": value}
            for at in range(start, start + minutes)
            for metric, value in values
        )
    )


def test_a_worker_takes_a_promoted_model_without_a_restart_and_heeds_a_label(plant):
    publish, told, command, models = plant
    publish("aggregates", minute(1, 120.0, 60.0), 1)

    def versions():
        """Who has judged each row; a worker says again what it had not stored."""
        found = {}
        for one in told():
            if one.metric[0] == "model.pump":
                found.setdefault((int(one.offset[0]), int(one.row[0])), one.detector[0])
        return list(found.values())

    eventually(lambda: versions() == ["pump/1"])
    learn(models, 2)
    assert "was not promoted: it has scored 0 rows" in " ".join(
        command("models", "promote", "pump", "--by-rule", code=1).split()
    )
    publish("aggregates", minute(2, 120.0, 60.0), 1)
    eventually(lambda: len(versions()) == 2)
    # The trial's count comes to its topic after the scores.
    promote = "models", "promote", "pump", "--by-rule"
    eventually(lambda: command.tried(*promote).returncode == 0, what="promoted by the rule")
    publish("aggregates", minute(3, 120.0, 60.0), 1)
    eventually(lambda: versions() == ["pump/1", "pump/1", "pump/2"])

    now_ms = int(time.time() * 1000) // 60_000 * 60_000
    rng = np.random.default_rng(3)

    def kiln():
        return [float(one.score.max()) for one in told() if one.device[0] == "kiln"]

    def spike(begin_ms):
        value = np.append(rng.normal(20.0, 0.5, 100), 24.5)
        rows = [
            {"device": "kiln", "metric": "t", "t_ms": begin_ms + i * 1_000, "value": v}
            for i, v in enumerate(value.tolist())
        ]
        before = kiln()
        publish("readings", frame(*rows), partition_of("default", "kiln", 4))
        return eventually(lambda: kiln()[len(before) :])

    spike(now_ms - 600_000)
    said = command(
        "labels", "add", "not-an-anomaly", "kiln", "t", str(now_ms - 500_000), "--note", "x"
    )
    identity = said.split(":")[0]
    listed = command("labels", "list")
    assert identity in listed
    assert "× 1.10" in listed
    spike(now_ms - 300_000)
    command("labels", "remove", identity)
    assert json.loads(command("labels", "list", "--json")) == []


def test_inputs_that_leave_what_was_learnt_are_an_alert_that_names_the_feature(
    plant, own_servers, processes, tmp_path
):
    publish, *_ = plant
    (tmp_path / "alerts.toml").write_text('[alerts]\ninstance_id = "a1"\n')
    env = own_servers.env(tmp_path, HEADWATER_CONFIG=str(tmp_path / "alerts.toml"))
    processes("alerts", env=env)
    publish("aggregates", minute(1, 120.0, 60.0, minutes=30), 1)

    def drift():
        async def go():
            kafka = own_servers.addresses["kafka"]
            return [orjson.loads(r.value) async for r in read_all(kafka, ["alerts"]) if r.value]

        return [one for one in asyncio.run(go()) if one["metric"] == "model.pump.drift"]

    alert, *_ = eventually(drift)
    assert alert["state"] == "firing"
    assert alert["device"] == "d"
    assert "of heat are outside of what the model has learnt" in alert["why"]
