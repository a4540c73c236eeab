"""Windows by device at full speed, beside Kafka Streams, Quix Streams and Faust (see README.md).

The job: 60 s tumbling windows by device, count, sum, min and max, state that survives, results
to a topic; 4 partitions, one worker process, a real Kafka.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.report import Measure
from benchmarks.streams import (
    checkpoints,
    compare,
    flatness,
    latency,
    quiet,
    restart,
    scale,
    soak,
    windows,
)
from benchmarks.streams.data import Data, from_file, generated
from benchmarks.streams.history import History
from benchmarks.streams.session import Session

PARTS = (
    *("compare", "flatness", "latency"),
    *("checkpoints", "windows", "quiet", "restart", "scale", "soak"),
)
_LONG = ("soak",)
"""Run only where they are asked for by name."""
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
    readings: int = 50_000_000,
) -> list[Measure]:
    """Measure, and return the figures.

    :param seconds: length of the measures of latency and of checkpoints.
    :param only: parts of ``PARTS``; default: all but ``soak``.
    :param input: readings to compare on, instead of generated ones.
    :param readings: of the soak.
    :param history: file that takes every run, a JSON object a line.
    """
    unknown = set(only) - set(PARTS)
    if unknown:
        raise SystemExit(f"--only {', '.join(sorted(unknown))}: expected of {', '.join(PARTS)}")
    wanted = only or [name for name in PARTS if name not in _LONG]
    measures: list[Measure] = []
    with tempfile.TemporaryDirectory() as folder:
        session = Session(runs, seed, Path(folder), History(history), Console(stderr=True))
        parts: dict[str, Callable[[], list[Measure]]] = {
            "compare": lambda: compare.measure(
                session, [from_file(input)] if input else _sets(seed)
            ),
            "flatness": lambda: flatness.measure(session),
            "latency": lambda: latency.measure(session, _LATENCY_PER_S, seconds),
            "checkpoints": lambda: checkpoints.measure(session, seconds),
            "windows": lambda: windows.measure(session),
            "quiet": lambda: quiet.measure(session),
            "restart": lambda: restart.measure(session),
            "scale": lambda: scale.measure(session),
            "soak": lambda: soak.measure(session, readings),
        }
        for name in PARTS:
            if name in wanted:
                measures += parts[name]()
    return measures


def _sets(seed: int) -> list[Data]:
    return [
        generated(name, devices=devices, readings=_READINGS, interval_ms=interval_ms, seed=seed)
        for name, (devices, interval_ms) in _SHAPES.items()
    ]
