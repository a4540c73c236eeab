"""``loop_app.py OUT``: ``headwater worker``, and how long its loop and its stream stand still.

Writes to OUT, when told to end, one JSON object of lists in ms: ``slices`` (the loop was busy with
the snapshots of a checkpoint's slice), ``folds`` (with folding a batch), ``gaps`` (between two
turns of the loop, where it stood for 2 ms or more), each with when it ended (``time.monotonic``).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import orjson

from streams.agents.host import PartitionHost
from streams.agents.readings import ReadingsLogic
from streams.settings import load
from streams.worker import main

_TICK_S = 0.001
_GAP_MS = 2.0
Noted = list[tuple[float, float]]


def timed(function: Callable[..., Any], into: Noted) -> Callable[..., Any]:
    """Return the function, which notes how long each call takes."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        started = time.monotonic()
        try:
            return function(*args, **kwargs)
        finally:
            now = time.monotonic()
            into.append((now, (now - started) * 1000))

    return call


async def beat(gaps: Noted) -> None:
    """Note each time that the loop came back late."""
    last = time.monotonic()
    while True:
        await asyncio.sleep(_TICK_S)
        now = time.monotonic()
        late_ms = (now - last - _TICK_S) * 1000
        if late_ms >= _GAP_MS:
            gaps.append((now, late_ms))
        last = now


def run(out: Path) -> None:
    """Run a worker until SIGTERM."""
    noted: dict[str, Noted] = {"slices": [], "folds": [], "gaps": []}
    host: Any = PartitionHost
    logic: Any = ReadingsLogic
    tick = host.tick
    beats: set[asyncio.Task[None]] = set()

    async def first_tick(self: Any) -> None:
        if not beats:
            beats.add(asyncio.create_task(beat(noted["gaps"])))
        await tick(self)

    host.tick = first_tick
    host._snapshots = timed(host._snapshots, noted["slices"])
    logic.fold = timed(logic.fold, noted["folds"])
    try:
        main(load())
    finally:
        out.write_bytes(orjson.dumps(noted))


if __name__ == "__main__":
    run(Path(sys.argv[1]))
