"""Rules on windows, comparisons and groups of alerts, as a former version stored them.

A document is applied before the state is taken, so that it follows an edition.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from streams.agents.grouping import make_grouping
from streams.agents.peers import make_peers
from streams.agents.window_alerting import make_window_alerting
from streams.alerts.disabled import Disabled
from streams.ports import Produce
from streams.settings import Inhibition, Match, Route, Rule, Settings, Topics, Webhook, Window
from streams.settings.applied import Document, document_of, following, parse
from streams.testing import Driver
from tests.golden import append, play, rows_of
from tests.windows import MINUTE_MS, result, results_frame

STAGES: dict[str, Callable[..., Any]] = {
    "windows": make_window_alerting,
    "peers": make_peers,
    "groups": make_grouping,
}
_TOPICS = {"windows": "", "peers": "alert.peers", "groups": "alert.groups"}
_ON = {"window": "1m", "resolve_ms": MINUTE_MS}
RULES = [
    Rule(name="hot", kind="threshold", over=90.0, clear=80.0, hold_ms=MINUTE_MS, **_ON),
    Rule(name="soon", kind="forecast", over=95.0, within_ms=600_000, **_ON),
    Rule(name="leak", kind="compare", metrics=["in"], with_metric="out", over=5.0, **_ON),
    Rule(name="odd", kind="compare", metrics=["in"], among="site", over=5.0, **_ON),
    Rule(name="gone", kind="absence", window="1m", silent_ms=5 * MINUTE_MS),
    Rule(name="both", kind="any", of=["hot", "leak"], within_ms=MINUTE_MS),
]


def settings(*, first: bool) -> Settings:
    """Return the settings of the file, or those that are applied later."""
    return Settings(
        topics=Topics(shards=2, partitions=1),
        windows=[Window(name="1m", size_ms=MINUTE_MS, aggregates=["trend", "trend_last"])],
        rules=RULES[:1] if first else RULES,
        webhooks=[Webhook(name="hook", url="https://example.org/", secret_file="none")],
        routes=[Route(name="all", group_by=["site"], group_wait_ms=1_000)],
        inhibitions=[
            Inhibition(name="i", source=Match(rules=["hot"]), target=Match(rules=["soon"]))
        ],
    )


def driver(stage: str, documents: dict[str, Document]) -> Driver:
    """Return a logic in a driver."""
    return Driver(partial(STAGES[stage], settings(first=True), documents)())


def _frames() -> list[Produce]:
    frames = []
    for minute in range(16):
        rows = []
        for n, device in enumerate(("fan", "pump", "saw", "tank")):
            value = 20.0 + 75.0 * ((minute + 3 * n) % 8 > 4)
            trend = {"trend": 0.02 * n, "trend_last": value}
            if minute < 9 or device != "saw":
                rows.append(result(minute, value, device=device, metric="in", **trend))
                rows.append(result(minute, 19.0, device=device, metric="out", **trend))
        if minute == 11:
            rows.append(result(9, 20.0, rank=1, device="pump", metric="in"))
        frames.append(Produce("aggregates", results_frame(*rows), None, 0))
    return frames


def _given(made: list[Produce], marker: str) -> list[dict[str, Any]]:
    given = [
        {
            "value": (one.value or b"").hex(),
            "at_ms": (i + 1) * MINUTE_MS,
            "key": "",
            "headers": {name: text.hex() for name, text in one.headers.items()},
        }
        for i, one in enumerate(made)
    ]
    headers = {"hw-time": b"1".hex(), "hw-config": marker.encode().hex()}
    return [{"value": "", "at_ms": 1, "key": "", "headers": headers}, *given]


def write_rules(folder: Path) -> None:
    """Record each stage's input, its state in the middle, and what it tells then."""
    folder.mkdir(exist_ok=True)
    first = document_of(settings(first=True))
    applied = following(settings(first=False), first)
    made, stages = {"": _frames()}, {}
    for stage in STAGES:
        documents = {first.id: first}
        one, given = driver(stage, documents), _given(made[_TOPICS[stage]], applied.id)
        documents[applied.id] = applied
        half = len(given) // 2 + 1
        play(one, given[:half])
        one.checkpoint()
        states = {key: [stamp, state.hex()] for key, (stamp, state) in one.stored.items()}
        before = len(one.output)
        play(one, given[half:])
        for produce in one.output:
            made.setdefault(produce.topic, []).append(produce)
        del one.output[:before]
        stages[stage] = {"input": given, "half": half, "states": states, "told": rows_of(one)}
    note = Disabled.of(settings(first=True)).note("hook")
    kept = {
        "stages": stages,
        "documents": [one.encode().hex() for one in (first, applied)],
        "note": [part.hex() for part in note],
    }
    (folder / "rules.json.gz").write_bytes(gzip.compress(orjson.dumps(kept), mtime=0))


def read_rules(folder: Path) -> dict[str, Any]:
    """Return what :func:`write_rules` kept."""
    return dict(orjson.loads(gzip.decompress((folder / "rules.json.gz").read_bytes())))


def resumed(stage: str, golden: dict[str, Any]) -> Driver:
    """Return a logic that goes on from the stored state."""
    known = [parse(bytes.fromhex(value)) for value in golden["documents"]]
    one, of = driver(stage, {document.id: document for document in known}), golden["stages"][stage]
    append(one, of["input"][: of["half"]])
    one.stored = {key: (at, bytes.fromhex(state)) for key, (at, state) in of["states"].items()}
    one.committed = of["half"]
    one.crash()
    return one
