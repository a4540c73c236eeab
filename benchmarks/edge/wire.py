"""Bytes a reading: frames packed for the uplink, plain frames, and JSON as one message each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
from pyarrow import csv

from benchmarks.edge.data import steady
from benchmarks.report import Measure, at_most
from edge import contents
from streams.adapters import frames
from streams.core.readings import Labels, Readings

_NAB = Path(__file__).parents[2] / "data" / "nab"
_ROWS = 500


def on_the_wire(seed: int) -> list[Measure]:
    """Return bytes a reading of 1 Hz series in frames of 500, and of the NAB series."""
    found: list[Measure] = []
    for devices in (1, 10, 100):
        name = f"1 Hz, three decimals, {devices} devices"
        readings = steady(_ROWS, devices, 0, seed)
        found.append(at_most(f"{name}: packed", len(contents.pack(readings)) / _ROWS, "B", 6))
        found += _others(name, readings)
    for path in sorted(_NAB.glob("*.csv")):
        series = _series(path)
        found.append(Measure(f"{path.stem}: packed", len(contents.pack(series)) / len(series), "B"))
        found += _others(path.stem, series)
    return found


def _others(name: str, readings: Readings) -> list[Measure]:
    n = len(readings)
    json = sum(
        len(f"sensors/{device}") + len(orjson.dumps({metric: value, "t_ms": t_ms, "seq": seq}))
        for device, metric, value, t_ms, seq in zip(
            readings.device.to_list(),
            readings.metric.to_list(),
            readings.value.tolist(),
            readings.t_ms.tolist(),
            readings.seq.tolist(),
            strict=True,
        )
    )
    return [
        Measure(f"{name}: plain frame", len(frames.encode(readings)) / n, "B"),
        Measure(f"{name}: JSON, one message each, without packet heads", json / n, "B"),
    ]


def _series(path: Path) -> Readings:
    """The first 500 rows of a NAB file."""
    table = csv.read_csv(path).slice(0, _ROWS)
    n = len(table)
    times = table.column("timestamp").cast("timestamp[ms]").cast("int64").to_numpy()
    return Readings(
        *(Labels.constant(name, n) for name in ("default", "bench", path.stem, "value")),
        times,
        times + 7,
        table.column("value").cast("float64").to_numpy(),
        np.zeros(n, np.uint8),
        np.ones(n, np.int64),
        np.arange(n),
        {},
        {},
    )
