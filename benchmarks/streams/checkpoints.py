"""How long the stream stands still for a checkpoint, under steady load from many devices.

Measured in the worker itself (``loop_app.py``): a slice of a checkpoint holds the loop while it
takes snapshots; a stamp on each turn of the loop shows what else does.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.report import Measure, at_least, at_most
from benchmarks.streams import headwater
from benchmarks.streams.broker import broker, load
from benchmarks.streams.compare import records
from benchmarks.streams.data import generated
from benchmarks.streams.peers import Place
from benchmarks.streams.session import Session
from benchmarks.streams.steady import Load
from benchmarks.streams.tables import rows_of

_DEVICES = 100_000
_INTERVAL_MS = 10_000
_ROWS = 50
_PER_S = 10_000
_WARM_TURNS = 2
_BOUND_MS = 50.0
_PATIENCE_S = 120.0


def measure(session: Session, seconds: float) -> list[Measure]:
    """Return p50, p99 and greatest of the pauses, and the longest time without a fold."""
    turns = _WARM_TURNS + max(1, -(-round(seconds * 1000) // _INTERVAL_MS))
    data = generated(
        "checkpoints",
        devices=_DEVICES,
        readings=turns * _DEVICES,
        interval_ms=_INTERVAL_MS,
        seed=session.seed,
    )
    every = list(records(data, _ROWS))
    warm = len(every) * _WARM_TURNS // turns
    servers, work = session.folders("checkpoints")
    out = work / "loop.json"
    with broker(servers) as kafka:
        app = ("-m", "benchmarks.streams.loop_app", str(out))
        worker = headwater.Worker(Place(kafka, servers, work), app=app)
        steady = Load(kafka, every[warm:], _ROWS, _PER_S)
        try:
            total = load(kafka, every[:warm])
            worker.child.until(lambda: worker.committed() >= total, _PATIENCE_S)
            state = worker.metric("headwater_host_state_bytes_total")
            begin_s = time.monotonic()
            with steady.running():
                worker.child.until(lambda: steady.sent >= len(steady.records), 3 * seconds + 60)
            end_s = time.monotonic()
            state = worker.metric("headwater_host_state_bytes_total") - state
        finally:
            worker.child.stop()
        found = _between(out, begin_s, end_s)
    session.history.note("checkpoints", {k: v.tolist() for k, v in found.items()})
    return _figures(session, found, end_s - begin_s, state, len(steady.records))


def _between(out: Path, begin_s: float, end_s: float) -> dict[str, Any]:
    """Return durations in ms by kind, and ``unfolded``: the times between two folds."""
    noted = {kind: np.asarray(pairs) for kind, pairs in orjson.loads(out.read_bytes()).items()}
    kept = {}
    for kind, pairs in noted.items():
        inside = pairs[(pairs[:, 0] >= begin_s) & (pairs[:, 0] <= end_s)]
        kept[kind] = inside[:, 1]
        if kind == "folds":
            kept["unfolded"] = np.diff(inside[:, 0]) * 1000 - inside[1:, 1]
    return kept


def _figures(
    session: Session, found: dict[str, Any], length_s: float, state: float, sent: int
) -> list[Measure]:
    told = {
        "a slice of a checkpoint holds the loop": found["slices"],
        "a batch is folded": found["folds"],
        "the loop stands for 2 ms or more": found["gaps"],
        "between two folds": found["unfolded"],
    }
    about = f"{_DEVICES:,} devices, {_PER_S:,} readings/s in frames of {_ROWS}, checkpoint 1 s"
    rows, measures = [], []
    for name, ms in told.items():
        p50, p99 = np.percentile(ms, [50, 99]) if len(ms) else (0.0, 0.0)
        greatest = float(ms.max()) if len(ms) else 0.0
        rows.append((name, len(ms), round(p50, 1), round(p99, 1), round(greatest, 1)))
        measures += [
            Measure(f"{name}, p50", round(float(p50), 2), "ms"),
            Measure(f"{name}, p99", round(float(p99), 2), "ms"),
            at_most(f"{name}, greatest", greatest, "ms", _BOUND_MS)
            if ms is found["slices"]
            else Measure(f"{name}, greatest", round(greatest, 2), "ms"),
        ]
    columns = ("what", "times", "p50 ms", "p99 ms", "greatest ms")
    session.console.print(rows_of(about, columns, rows))
    share = float(found["slices"].sum()) / length_s / 10
    return [
        Measure(f"checkpoints: {about}", round(length_s, 1), "s"),
        *measures,
        Measure("share of the time that slices take", round(share, 2), "%"),
        Measure("state written", round(state / length_s / 1e6, 2), "MB/s"),
        at_least("rate published", sent * _ROWS / length_s, "readings/s", 0.95 * _PER_S),
    ]
