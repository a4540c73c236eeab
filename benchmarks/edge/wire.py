"""Bytes a reading: frames packed for the uplink, plain frames, and JSON as one message each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from pyarrow import csv

from benchmarks.edge.data import steady
from benchmarks.nab.files import load
from benchmarks.nab.scoring import Labelled
from benchmarks.report import Measure, at_most
from edge import contents
from edge.filters import Filters
from streams.adapters import frames
from streams.core.readings import Float64, Int64, Labels, Readings, concat_readings
from streams.core.thinning import SwingingDoor
from streams.settings import Filter

_NAB = Path(__file__).parents[2] / "data" / "nab"
_ROWS = 500
_SHARES = (0.1, 0.2)
"""Bounds that are given, of a series' standard deviation."""
_TINY = 1e-300
"""For bounds of 0, which no reading is off at all."""
_MAX_GAP_MS = 6 * 3_600_000
"""NAB has a reading in five minutes or in thirty: 72 or 12 of them."""


def on_the_wire(seed: int, data: Path | None) -> list[Measure]:
    """Return bytes a reading of 1 Hz series in frames of 500, and of the NAB series.

    :param data: folder of NAB's layout for what filters leave; default: the files in ``data/nab``.
    """
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
    whole = [_whole(file) for file in load(data)]
    found += _filtered(whole, None)
    return found + [measure for share in _SHARES for measure in _filtered(whole, share)]


def _filtered(whole: Sequence[Readings], share: float | None) -> list[Measure]:
    """Return what a swinging door leaves of whole series, and how far the line is off.

    :param share: the bound, of each series' standard deviation; None: the filter finds its own.
    """
    thinned = [_thinned(series, share) for series in whole]
    rows, sent = sum(map(len, whole)), sum(len(one.went) for one in thinned)
    before, after = (sum(map(_packed, some)) for some in (whole, (one.went for one in thinned)))
    of_bound = max(float(np.max(one.off / np.maximum(one.bound, _TINY))) for one in thinned)
    of_sd = np.concatenate([one.off / one.deviation for one in thinned])
    name = "NAB, swinging door, " + ("default bound" if share is None else f"{share:g} sd")
    worst = max(len(one.went) / len(series) for one, series in zip(thinned, whole, strict=True))
    return [
        at_most(f"{name}: readings sent", sent / rows, "of all", 0.4),
        at_most(f"{name}: bytes, packed", after / before, "of unfiltered", 0.5),
        at_most(f"{name}: greatest error", of_bound, "bounds in force", 1.0),
        Measure(f"{name}: greatest error", float(of_sd.max()), "sd"),
        Measure(f"{name}: mean error", float(of_sd.mean()), "sd"),
        Measure(f"{name}: readings sent, of the series that is thinned least", worst, "of all"),
    ]


@dataclass(frozen=True, slots=True)
class _Thinned:
    """What a filter left of a series."""

    went: Readings
    off: Float64
    """Of each reading, how far it is off the line that is drawn from what went."""
    bound: Float64
    """The bound that was in force for it."""
    deviation: float
    """Of the values of the series."""


def _thinned(series: Readings, share: float | None) -> _Thinned:
    deviation = float(series.value.std()) or 1.0  # of one that never moves nothing is off
    bound = None if share is None else share * deviation
    filters = Filters([Filter(mode="swinging-door", bound=bound, max_gap_ms=_MAX_GAP_MS)], 10)
    up = [filters.offer(frame).up for frame in _frames(series)]
    if (last := filters.flush(lambda _: 1 << 62)) is not None:
        up.append(last.up)
    went = concat_readings(up)
    off = np.abs(np.interp(series.t_ms, went.t_ms, went.value) - series.value)
    return _Thinned(went, off, _in_force(series, SwingingDoor(bound, _MAX_GAP_MS)), deviation)


def _in_force(series: Readings, door: SwingingDoor[int]) -> Float64:
    """Return the bound that a filter kept for each reading, known once its stretch has begun."""
    bounds = np.zeros(len(series))
    since = 0
    for at, (t_ms, value) in enumerate(
        zip(series.t_ms.tolist(), series.value.tolist(), strict=True)
    ):
        for corner in door.offer(t_ms, value, at):
            since = corner
        bounds[since + 1 : at + 1] = door.bound
    return bounds


def _packed(readings: Readings) -> int:
    return sum(len(contents.pack(frame)) for frame in _frames(readings))


def _whole(file: Labelled) -> Readings:
    """A NAB file, each time once, in order: where clocks went back it has some twice."""
    at = np.unique(file.t_ms, return_index=True)[1].astype(np.int64)
    return _of(file.name.removesuffix(".csv"), file.t_ms[at], file.value[at])


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


def _series(path: Path) -> Readings:
    """The first rows of a NAB file."""
    table = csv.read_csv(path).slice(0, _ROWS)
    times = table.column("timestamp").cast("timestamp[ms]").cast("int64").to_numpy()
    return _of(path.stem, times, table.column("value").cast("float64").to_numpy())


def _of(name: str, times: Int64, values: Float64) -> Readings:
    n = len(times)
    return Readings(
        Labels.constant("default", n),
        Labels.constant("bench", n),
        Labels.constant(name, n),
        Labels.constant("value", n),
        times,
        times + 7,
        values,
        np.zeros(n, np.uint8),
        np.ones(n, np.int64),
        np.arange(n),
        {},
        {},
    )
