"""Two workers of one group beside one, on the same records; Kafka has its share of the cores.

The workers have their partitions before there is anything to read. They are held (SIGSTOP, for
less than their session) while the records are written, and all let go at once.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from statistics import median

import psutil

from benchmarks.report import Measure, at_least
from benchmarks.streams import headwater
from benchmarks.streams.broker import Record, broker, load
from benchmarks.streams.compare import JSON, records, title
from benchmarks.streams.data import PARTITIONS, generated
from benchmarks.streams.peers import Place
from benchmarks.streams.session import Session
from benchmarks.streams.tables import rows_of
from streams.errors import ServiceError
from streams.services import supervisor

_DEVICES = 10_000
_INTERVAL_MS = 10_000
_FORMS = {JSON: 500_000, 500: 4_000_000}
"""Rows per frame, and readings: what can be written within a session."""
_HELD_S = 8.0
_TARGET = 1.6
_PATIENCE_S = 300.0
_FOLDED = 'headwater_host_records_total{topic="readings"}'


@dataclass(frozen=True, slots=True)
class Run:
    """One run: readings a second, and how many cores worked for workers and broker."""

    per_s: float
    workers: float
    broker: float


def measure(session: Session) -> list[Measure]:
    """Return the rates of one worker and of two, and their ratio."""
    measures: list[Measure] = []
    for rows, readings in _FORMS.items():
        data = generated(
            "scale",
            devices=_DEVICES,
            readings=readings,
            interval_ms=_INTERVAL_MS,
            seed=session.seed,
        )
        every = list(records(data, rows))
        name = title(data, rows)
        found: dict[int, list[Run]] = {1: [], 2: []}
        for number in range(session.runs):
            for workers, runs in found.items():
                runs.append(_run(session, f"{rows}-{workers}-{number}", workers, every, readings))
        shown = {workers: _middle(runs) for workers, runs in found.items()}
        columns = ("workers", "readings/s", "cores, workers", "cores, broker")
        lines = [
            (n, round(r.per_s), round(r.workers, 2), round(r.broker, 2)) for n, r in shown.items()
        ]
        session.console.print(rows_of(f"{name}, {os.cpu_count()} cores", columns, lines))
        for workers, run in shown.items():
            about = f"{name}, {workers} worker{'s' * (workers > 1)}"
            measures += [
                Measure(f"{about}: rate", round(run.per_s), "readings/s"),
                Measure(f"{about}: used by workers", round(run.workers, 2), "cores"),
                Measure(f"{about}: used by the broker", round(run.broker, 2), "cores"),
            ]
        ratio = shown[2].per_s / shown[1].per_s
        measures.append(at_least(f"{name}: two workers, of one", ratio, "times", _TARGET))
    return measures


def _run(session: Session, name: str, n: int, every: list[Record], readings: int) -> Run:
    servers, work = session.folders(f"scale-{name}")
    with broker(servers) as kafka:
        place = Place(kafka, servers, work)
        first = headwater.Worker(place, instance="w0")
        workers = [first]
        try:
            rest = [
                headwater.Worker(place, group=first.group, instance=f"w{i}") for i in range(1, n)
            ]
            workers += rest
            first.child.until(lambda: _have_all(workers), _PATIENCE_S)
            total = _load_held(workers, kafka, every)
            kafka_process = psutil.Process(supervisor.running(servers)["kafka"].pid)
            begin_s, before_s = time.time(), _cpu_s(kafka_process)
            _signal(workers, signal.SIGCONT)

            def all_folded() -> bool:
                for other in rest:
                    other.child.sample()
                return sum(worker.metric(_FOLDED) for worker in workers) >= total

            end_s = first.child.until(all_folded, _PATIENCE_S)
            used_s = _cpu_s(kafka_process) - before_s
            spent_s = sum(worker.child.cpu_s(begin_s, end_s) for worker in workers)
        finally:
            _signal(workers, signal.SIGCONT)
            for worker in workers:
                worker.child.stop()
    length_s = end_s - begin_s
    return Run(readings / length_s, spent_s / length_s, used_s / length_s)


def _have_all(workers: list[headwater.Worker]) -> bool:
    """Whether each worker has its share of the partitions, and none more than one opened last."""
    last: dict[int, tuple[float, int]] = {}
    for number, worker in enumerate(workers):
        if not worker.is_ready():
            return False
        for at_s, partition in worker.openings():
            last[partition] = max(last.get(partition, (0.0, 0)), (at_s, number))
    owners = [number for _, number in last.values()]
    share = PARTITIONS // len(workers)
    return all(owners.count(number) == share for number in range(len(workers)))


def _load_held(workers: list[headwater.Worker], kafka: str, every: list[Record]) -> int:
    _signal(workers, signal.SIGSTOP)
    began = time.monotonic()
    total = load(kafka, every)
    if time.monotonic() - began > _HELD_S:
        raise ServiceError(f"writing took over {_HELD_S:.0f} s: the workers' session is over")
    return total


def _signal(workers: list[headwater.Worker], which: signal.Signals) -> None:
    for worker in workers:
        if worker.child.process.poll() is None:
            worker.child.process.send_signal(which)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _middle(runs: list[Run]) -> Run:
    return Run(
        median(run.per_s for run in runs),
        median(run.workers for run in runs),
        median(run.broker for run in runs),
    )
