"""Alerts as a former version stored them: what stands, and the outbox."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from streams.adapters.results import encode
from streams.agents.alerting import make_alerting
from streams.core.readings import Labels
from streams.core.results import Scores
from streams.settings import Rule, Settings, Webhook
from streams.testing import Driver
from tests.golden import append, play, rows_of

_START_MS = 1_792_800_000_000


def settings(secret_file: Path) -> Settings:
    """Return rules that hold and resolve, and an endpoint."""
    hook = Webhook(name="hook", url="https://example.org/", secret_file=secret_file)
    rules = [
        Rule(name="at-once", score_over=5.0, resolve_ms=3_000),
        Rule(name="held", score_over=8.0, hold_ms=2_000, severity="critical"),
    ]
    return Settings(rules=rules, webhooks=[hook])


def driver() -> Driver:
    """Return the alert logic in a driver."""
    return Driver(make_alerting(settings(Path("none"))))


def _scores(step: int) -> bytes:
    devices = ("fan-2", "pump-1", "saw-3")
    score = [9.0 if (step + i) % 7 < 4 else 1.0 for i in range(3)]
    t_ms = np.full(3, _START_MS + step * 1_000, np.int64)
    labels = {"tenant": "acme", "site": "north", "metric": "bar", "detector": "robust-level/1"}
    found = Scores(
        **{name: Labels.constant(value, 3) for name, value in labels.items()},
        device=Labels.of(devices),
        t_ms=t_ms,
        received_ms=t_ms + 20,
        kafka_ms=t_ms + 40,
        value=np.asarray(score) * 2.0,
        score=np.asarray(score),
        expected=np.full(3, 20.0),
        spread=np.ones(3),
        offset=np.full(3, step, np.int64),
        row=np.arange(3, dtype=np.int32),
        why=Labels.constant("", 3),
    )
    return encode(found, code="0.1.0", settings="0123456789ab")


def write_alerts(folder: Path) -> None:
    """Record scores, what stands in the middle (pending and firing), and what is told then."""
    given = [
        {"value": _scores(i).hex(), "at_ms": _START_MS + i * 1_000 + 60, "key": "", "headers": {}}
        for i in range(16)
    ]
    one = driver()
    append(one, given[:8])
    one.run()
    one.checkpoint()
    outbox = [[(p.key or b"").hex(), (p.value or b"").hex()] for p in one.records("deliveries")]
    states = {key: [stamp, state.hex()] for key, (stamp, state) in one.stored.items()}
    del one.output[:]
    play(one, given[8:])
    kept: dict[str, Any] = {
        "input": given,
        "half": 8,
        "states": states,
        "outbox": outbox,
        "told": rows_of(one),
    }
    (folder / "alerts.json.gz").write_bytes(gzip.compress(orjson.dumps(kept), mtime=0))


def read_alerts(folder: Path) -> dict[str, Any]:
    """Return what :func:`write_alerts` kept."""
    return dict(orjson.loads(gzip.decompress((folder / "alerts.json.gz").read_bytes())))
