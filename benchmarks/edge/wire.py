"""Bytes a reading: frames packed for the uplink, plain frames, and JSON as one message each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
from pyarrow import csv

from benchmarks.edge.data import steady
from benchmarks.report import Measure, at_most
from edge import contents
from edge.filters import Filters
from streams.adapters import frames
from streams.core.readings import Labels, Readings, concat_readings
from streams.settings import Filter

_NAB = Path(__file__).parents[2] / "data" / "nab"
_ROWS = 500
_SHARES = (0.1, 0.2)
"""Bounds of the filter, of a series' standard deviation."""
_MAX_GAP_MS = 6 * 3_600_000
"""NAB has a reading in five minutes or in thirty: 72 or 12 of them."""


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
    return found + [measure for share in _SHARES for measure in _filtered(share)]


def _filtered(share: float) -> list[Measure]:
    """Return what a swinging door leaves of whole NAB series, and how far the line is off.

    :param share: the bound, of each series' standard deviation.
    """
    before = after = rows = sent = 0
    greatest = total = 0.0
    for path in sorted(_NAB.glob("*.csv")):
        series = _whole(path)
        deviation = float(series.value.std())
        spec = Filter(mode="swinging-door", bound=share * deviation, max_gap_ms=_MAX_GAP_MS)
        filters = Filters([spec], 10)
        up = [filters.offer(frame).up for frame in _frames(series)]
        if (last := filters.flush(lambda _: 1 << 62)) is not None:
            up.append(last.up)
        went = concat_readings(up)
        rows, sent = rows + len(series), sent + len(went)
        before += sum(len(contents.pack(frame)) for frame in _frames(series))
        after += sum(len(contents.pack(frame)) for frame in _frames(went))
        off = np.abs(np.interp(series.t_ms, went.t_ms, went.value) - series.value) / deviation
        greatest, total = max(greatest, float(off.max())), total + float(off.sum())
    name = f"NAB, swinging door of {share:g} sd"
    return [
        at_most(f"{name}: readings sent", sent / rows, "of all", 0.4),
        at_most(f"{name}: bytes, packed", after / before, "of unfiltered", 0.5),
        at_most(f"{name}: greatest error", greatest, "sd", share),
        Measure(f"{name}: mean error", total / rows, "sd"),
    ]


def _whole(path: Path) -> Readings:
    """A NAB file, each time once, in order: where clocks went back it has some twice."""
    series = _series(path, None)
    return series.take(np.unique(series.t_ms, return_index=True)[1].astype(np.int64))


def _frames(readings: Readings) -> list[Readings]:
    cuts = range(0, len(readings), _ROWS)
    return [readings.take(np.arange(at, min(at + _ROWS, len(readings)))) for at in cuts]


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


def _series(path: Path, rows: int | None = _ROWS) -> Readings:
    """The first rows of a NAB file; all by default where *rows* is None."""
    table = csv.read_csv(path).slice(0, rows)
    n = len(table)
    times = table.column("timestamp").cast("timestamp[ms]").cast("int64").to_numpy()
    return Readings(
        Labels.constant("default", n),
        Labels.constant("bench", n),
        Labels.constant(path.stem, n),
        Labels.constant("value", n),
        times,
        times + 7,
        table.column("value").cast("float64").to_numpy(),
        np.zeros(n, np.uint8),
        np.ones(n, np.int64),
        np.arange(n),
        {},
        {},
    )
