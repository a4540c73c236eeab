"""The spool's segments beside SQLite (WAL, synchronous=FULL): the same records, one flush each."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

from benchmarks.edge.data import steady
from benchmarks.report import Measure
from edge import contents
from edge.commit import READINGS_LANE
from edge.readings import open_spool
from edge.spool.records import Record
from streams.settings import Edge, EdgeSpool

_ROWS = 400
_SAMPLE = 500


def compared(backlog: int) -> list[Measure]:
    """Append, with an empty store and with *backlog* readings; then read all and confirm it."""
    payload = contents.pack(steady(_ROWS, 50, 0, 1))
    found: list[Measure] = []
    with tempfile.TemporaryDirectory() as folder:
        stores = {
            "segments": _segments(Path(folder), payload),
            "SQLite": _sqlite(Path(folder) / "spool.db", payload),
        }
        for name, (append, fill, drain) in stores.items():
            empty = _times(append)
            fill(backlog // _ROWS)
            full = _times(append)
            began_s = time.perf_counter()
            drain()
            drain_s = time.perf_counter() - began_s
            for what, times in (("empty", empty), (f"{backlog / 1e6:g} M readings", full)):
                found += [
                    Measure(f"{name}, {what}: a write, median", median(times) * 1e3, "ms"),
                    Measure(f"{name}, {what}: p99", quantiles(times, n=100)[98] * 1e3, "ms"),
                ]
            found.append(Measure(f"{name}: read and confirm", backlog / drain_s, "readings/s"))
    return found


Store = tuple[Callable[[], object], Callable[[int], None], Callable[[], None]]


def _segments(folder: Path, payload: bytes) -> Store:
    spool = open_spool(Edge(data=folder, spool=EdgeSpool(max_bytes=1 << 33)), 0)
    record = Record(payload, _ROWS, 0, 0)

    def fill(count: int) -> None:
        for _ in range(count // 1_000):
            spool.append(READINGS_LANE, [record] * 1_000, 0)

    def drain() -> None:
        while entries := spool.claim(READINGS_LANE, 5_000, 1 << 20):
            spool.confirm(entries)

    return lambda: spool.append(READINGS_LANE, [record], 0), fill, drain


def _sqlite(path: Path, payload: bytes) -> Store:
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "locking_mode=EXCLUSIVE"):
        db.execute(f"PRAGMA {pragma}")
    db.execute("CREATE TABLE records (number INTEGER PRIMARY KEY, rows INTEGER, data BLOB)")
    insert = "INSERT INTO records (rows, data) VALUES (?, ?)"

    def fill(count: int) -> None:
        for _ in range(count // 1_000):
            with db:
                db.execute("BEGIN")
                db.executemany(insert, [(_ROWS, payload)] * 1_000)

    def drain() -> None:
        step = 5_000 // _ROWS
        select = "SELECT number, data FROM records ORDER BY number LIMIT ?"
        while rows := db.execute(select, (step,)).fetchall():
            db.execute("DELETE FROM records WHERE number <= ?", (rows[-1][0],))

    return lambda: db.execute(insert, (_ROWS, payload)), fill, drain


def _times(append: Callable[[], object]) -> list[float]:
    times = []
    for _ in range(_SAMPLE):
        began_s = time.perf_counter()
        append()
        times.append(time.perf_counter() - began_s)
    return times
