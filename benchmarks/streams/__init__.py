"""Windows by device at full speed, beside Kafka Streams, Quix Streams and Faust (see README.md).

The job: 60 s tumbling windows by device, count, sum, min and max, state that survives, results
to a topic; 4 partitions, one worker process, a real Kafka.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.report import Measure
from benchmarks.streams import compare, flatness, latency
from benchmarks.streams.data import Data, from_file, generated
from benchmarks.streams.history import History
from benchmarks.streams.session import Session

PARTS = ("compare", "flatness", "latency")
_READINGS = 1_000_000
_SHAPES = {"A": (1_000, 1_000), "B": (100_000, 10_000)}
"""Devices, and the interval in ms at which each measures: such that windows close in both."""
_LATENCY_PER_S = 1_000


def run(
    *,
    seconds: float,
    seed: int,
    runs: int = 3,
    only: Sequence[str] = (),
    input: Path | None = None,
    history: Path | None = None,
) -> list[Measure]:
    """Measure, and return the figures.

    :param seconds: length of the measure of latency.
    :param only: parts of ``PARTS``; default: all.
    :param input: readings to compare on, instead of generated ones.
    :param history: file that takes every run, a JSON object a line.
    """
    unknown = set(only) - set(PARTS)
    if unknown:
        raise SystemExit(f"--only {', '.join(sorted(unknown))}: expected of {', '.join(PARTS)}")
    wanted = only or PARTS
    measures: list[Measure] = []
    with tempfile.TemporaryDirectory() as folder:
        session = Session(runs, seed, Path(folder), History(history), Console(stderr=True))
        if "compare" in wanted:
            measures += compare.measure(session, [from_file(input)] if input else _sets(seed))
        if "flatness" in wanted:
            measures += flatness.measure(session)
        if "latency" in wanted:
            measures += latency.measure(session, _LATENCY_PER_S, seconds)
    return measures


def _sets(seed: int) -> list[Data]:
    return [
        generated(name, devices=devices, readings=_READINGS, interval_ms=interval_ms, seed=seed)
        for name, (devices, interval_ms) in _SHAPES.items()
    ]
