"""Headwater itself: the real ``headwater worker`` on the benchmark's job."""

from __future__ import annotations

import http.client
import sys
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import orjson

from benchmarks.streams import broker
from benchmarks.streams.data import WINDOW_MS
from benchmarks.streams.outcome import Outcome
from benchmarks.streams.peers import Place
from benchmarks.streams.watch import Watched
from streams.errors import ServiceError
from streams.services.ports import HOST, free_port
from streams.topics import READINGS

NAME = "Headwater"
HORIZON_MS = 3_600_000
ABOUT = (
    "horizon 1 h, dedup by boot and seq, count/sum/min/max/mean/sd, closed + corrections, "
    "checkpoint 1 s"
)
_APP = ("-m", "streams.cli.main", "worker")
_PATIENCE_S = 900.0
_SETTINGS = """[worker]
id = "{group}"
instance_id = "{instance}"
checkpoint_ms = 1000
silent_ms = 3600000

[detection]
metrics = []

[[windows]]
name = "window"
size_ms = {size_ms}
horizon_ms = {horizon_ms}

[ops]
worker_port = {port}
"""


class Worker:
    """One ``headwater worker``, in a group and so with state of its own unless one is given.

    :param instance: its stable name in the group, by which a restarted one has its partitions back.
    :param app: what is run: the arguments after ``python``.
    """

    def __init__(
        self,
        place: Place,
        *,
        size_ms: int = WINDOW_MS,
        group: str | None = None,
        instance: str = "w0",
        app: Sequence[str] = _APP,
    ) -> None:
        self._kafka, self._servers = place.kafka, place.servers
        self.group = group or f"worker-{uuid.uuid4().hex[:12]}"
        self._port = free_port()
        home = place.home / f"{self.group}-{instance}"
        home.mkdir(parents=True, exist_ok=True)
        settings = home / "headwater.toml"
        settings.write_text(
            _SETTINGS.format(
                group=self.group,
                instance=instance,
                size_ms=size_ms,
                horizon_ms=HORIZON_MS,
                port=self._port,
            )
        )
        env = {
            "HEADWATER_CONFIG": str(settings),
            "HEADWATER_STATE": str(home),
            "HEADWATER_KAFKA": place.kafka,
        }
        log = home / f"worker-{len(list(home.glob('*.log')))}.log"
        self.child = Watched.start([sys.executable, *app], log, env)

    def metric(self, start: str) -> float:
        """Return the sum of all samples of ``/metrics`` whose line begins so; 0 if none."""
        connection = http.client.HTTPConnection(HOST, self._port, timeout=10.0)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        except OSError:
            return 0.0
        finally:
            connection.close()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))

    def is_ready(self) -> bool:
        """Whether it has its partitions."""
        connection = http.client.HTTPConnection(HOST, self._port, timeout=10.0)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()

    def verdicts(self) -> dict[str, int]:
        """Return how many readings there were of each class."""
        name = 'headwater_worker_readings_total{verdict="%s"}'
        classes = ("accepted", "duplicate", "late", "quarantined", "rejected", "unverifiable")
        return {kind: int(self.metric(name % kind)) for kind in classes}

    def state_bytes(self) -> int:
        """Return the bytes of its changelog so far."""
        return broker.log_bytes(self._servers, self.group)

    def committed(self) -> int:
        """Return how many records lie below its commit positions."""
        return broker.committed(self._kafka, self.group)

    def opened_s(self) -> float:
        """Return when it opened its first partition of ``readings``."""
        return min(at_s for at_s, _ in self.openings())

    def openings(self) -> list[tuple[float, int]]:
        """Return when it opened which partition of ``readings``."""
        return [
            (datetime.fromisoformat(line["timestamp"]).timestamp(), int(line["partition"]))
            for line in _lines(self.child.log)
            if line.get("event") == "partition opened" and line.get("topic") == READINGS
        ]


def run(place: Place, readings: int, records: int) -> Outcome:
    """Run a worker over everything in ``readings``.

    The clock starts when the worker opens its first partition, which is before its first fold.

    :param readings: how many there are in the records.
    :raises ServiceError: if a reading was neither accepted nor a duplicate nor late, or the
        worker does not come to an end.
    """
    worker = Worker(place)
    child = worker.child
    try:
        folded = 'headwater_host_records_total{topic="readings"}'
        end = child.until(lambda: worker.metric(folded) >= records, _PATIENCE_S)
        settled = child.until(lambda: worker.committed() >= records, _PATIENCE_S)
        verdicts = worker.verdicts()
        state = worker.state_bytes()
    finally:
        child.stop()
    if verdicts["accepted"] + verdicts["duplicate"] + verdicts["late"] != readings:
        raise ServiceError(f"expected {readings} accepted, duplicate or late, found {verdicts}")
    begin = worker.opened_s()
    cpu = child.cpu_s(begin, settled)
    return Outcome(NAME, readings, end - begin, settled - begin, cpu, child.peak_bytes(), state)


def _lines(log: Path) -> list[dict[str, str]]:
    lines = log.read_bytes().splitlines(keepends=True)
    return [orjson.loads(line) for line in lines if line[:1] == b"{" and line[-2:] == b"}\n"]
