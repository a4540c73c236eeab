"""From decoded messages to their acknowledgement: group commit, with a backlog and without."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

import psutil

from benchmarks.edge.data import steady
from benchmarks.report import Measure, at_least, at_most
from edge import contents
from edge.commit import READINGS_LANE, GroupCommit, SpoolThread
from edge.keeping import Keeping
from edge.readings import open_spool
from edge.spool.lane import Entry
from edge.spool.records import Record
from streams.core.readings import Readings
from streams.settings import Edge, EdgeSpool

_MIB = 1 << 20


def taken_in(seconds: float, backlog: int) -> list[Measure]:
    """Return latencies of 400 batches of 50 readings, and of 3,000 single ones, a second."""
    return asyncio.run(_taken_in(min(seconds, 20.0), backlog))


async def _taken_in(seconds: float, backlog: int) -> list[Measure]:
    found: list[Measure] = []
    with tempfile.TemporaryDirectory() as folder:
        edge = Edge(data=Path(folder), spool=EdgeSpool(max_bytes=1 << 33))
        thread = SpoolThread(open_spool(edge, 0))
        take = GroupCommit(
            thread,
            Keeping(
                lambda: time.time_ns() // 1_000_000, lambda: time.monotonic_ns() // 1_000_000
            ).keep,
            lambda entries: _let_go(thread, entries),
            max_rows=edge.spool.max_rows,
            max_waiting_rows=edge.spool.max_waiting_rows,
        )
        for what in ("empty", f"{backlog / 1e6:g} M readings"):
            for per_s, rows in ((400, 50), (3_000, 1)):
                parts = [steady(rows, rows, n, 1) for n in range(1_000)]
                found += _figures(what, per_s, rows, await _offer(take, parts, per_s, seconds))
            await thread.run(lambda spool: _fill(spool, backlog))
        memory = psutil.Process().memory_info().rss / _MIB
        found.append(at_most("memory of this process, backlog on disk", memory, "MiB", 250))
        thread.close()
    return found


def _let_go(thread: SpoolThread, entries: Sequence[Entry]) -> None:
    """Nothing goes up here: what was stored waits on disk."""
    thread.spool.release(entries)


def _fill(spool, readings: int) -> None:  # type: ignore[no-untyped-def]  # a bench's helper
    record = Record(contents.pack(steady(2_000, 100, 0, 1)), 2_000, 0, 0)
    for _ in range(readings // 2_000 // 50):
        spool.append(READINGS_LANE, [record] * 50, 0)


async def _offer(
    take: GroupCommit, parts: Sequence[Readings], per_s: int, seconds: float
) -> tuple[list[float], float]:
    """Offer at a steady rate; return latencies and the rate that came of it."""
    times: list[float] = []

    async def one(readings: Readings, due_s: float) -> None:
        await take(readings)
        times.append(time.perf_counter() - due_s)

    began_s = time.perf_counter()
    total = round(per_s * seconds)
    async with asyncio.TaskGroup() as group:
        for number in range(total):
            due_s = began_s + number / per_s
            if (ahead_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(ahead_s)
            # From when it was due: a stall counts for all that wait behind it.
            group.create_task(one(parts[number % len(parts)], due_s))
    return times, total / (time.perf_counter() - began_s)


def _figures(what: str, per_s: int, rows: int, found: tuple[list[float], float]) -> list[Measure]:
    times, rate = found
    name = f"{what}: {'batches of 50' if rows > 1 else 'single readings'}"
    cuts = quantiles(times, n=100)
    return [
        at_least(f"{name}, durable", rate * rows, "readings/s", 0.98 * per_s * rows),
        Measure(f"{name}, median", round(cuts[49] * 1e3, 2), "ms"),
        Measure(f"{name}, p99", round(cuts[98] * 1e3, 2), "ms"),
    ]
