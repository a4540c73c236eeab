"""The systems beside Headwater: Kafka Streams, Quix Streams and plain Faust, each a child process.

Each child says when it took its first and its last record, then flushes, commits and ends.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.streams.broker import log_bytes, make_topic
from benchmarks.streams.data import WINDOW_MS
from benchmarks.streams.outcome import Outcome
from benchmarks.streams.watch import Watched
from streams.errors import ServiceError
from streams.services.cache import installed

QUIX_VERSION = "3.28.1"
_HERE = Path(__file__).parent
_JAVA = _HERE / "kafka_streams"
_PATIENCE_S = 900.0
_HOUR_MS = 3_600_000
_CLOSE_GRACE_MS = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run happens: a filled Kafka, its state folder, a folder for the run's files."""

    kafka: str
    servers: Path
    home: Path


Command = Callable[[Place, str, int], Sequence[str]]
"""From the place, the group and the number of records to the command line."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A system: ``share`` is how many records it takes at most."""

    name: str
    about: str
    share: int
    command: Command
    ends_itself: bool = True

    def run(self, place: Place, readings: int) -> Outcome:
        """Run it once, in a consumer group of its own.

        :raises ServiceError: if it fails or does not come to an end.
        """
        wanted = min(readings, self.share)
        group = f"peer-{uuid.uuid4().hex[:12]}"
        make_topic(place.kafka, f"{group}-results")
        command = self.command(place, group, wanted)
        child = Watched.start(command, place.home / f"{group}.log")
        try:
            child.until(lambda: child.said("done") is not None, _PATIENCE_S)
            if not self.ends_itself:
                child.process.terminate()
            child.until(lambda: child.process.poll() is not None, _PATIENCE_S)
        finally:
            child.stop()
        begin, end = child.said("first"), child.said("done")
        assert begin is not None and end is not None
        settled = child.samples[-1][0]
        return Outcome(
            self.name,
            wanted,
            end - begin,
            settled - begin,
            child.cpu_s(begin, settled),
            child.peak_bytes(),
            log_bytes(place.servers, group),
        )


def peers(faust_share: int, quix_share: int) -> list[Peer]:
    """Return all of them, the fastest first; what they need is installed where it is missing."""
    jars, python = _kafka_streams(), _quix_python()

    def kafka_streams(emit: str, grace_ms: int) -> Command:
        def command(place: Place, group: str, records: int) -> Sequence[str]:
            return (
                *("java", "-cp", f"{jars}/*:{jars}/libs/*", "headwater.bench.Windows"),
                *(place.kafka, group, str(place.home / group), "readings", f"{group}-results"),
                *(str(records), str(WINDOW_MS), str(grace_ms), emit),
            )

        return command

    def quix(emit: str) -> Command:
        def command(place: Place, group: str, records: int) -> Sequence[str]:
            script = str(_HERE / "quix_app.py")
            return (python, script, place.kafka, group, str(records), str(place.home / group), emit)

        return command

    def faust(place: Place, group: str, records: int) -> Sequence[str]:
        module = "benchmarks.streams.faust_app"
        home = str(place.home / group)
        return (sys.executable, "-m", module, place.kafka, group, str(records), home)

    return [
        Peer(
            "Kafka Streams on update",
            "grace 1 h, no dedup, emits on update through its cache, RocksDB + changelog",
            sys.maxsize,
            kafka_streams("update", _HOUR_MS),
        ),
        Peer(
            "Kafka Streams on close",
            "grace 10 s, later ones dropped, no dedup, RocksDB + changelog",
            sys.maxsize,
            kafka_streams("close", _CLOSE_GRACE_MS),
        ),
        Peer(
            "Quix Streams, current()",
            f"{QUIX_VERSION}, grace 1 h, no dedup, a result a record, RocksDB + changelog",
            quix_share,
            quix("current"),
        ),
        Peer(
            "Quix Streams, final()",
            f"{QUIX_VERSION}, grace 10 s, later ones dropped, no dedup, RocksDB + changelog",
            quix_share,
            quix("final"),
        ),
        Peer(
            "Faust",
            "windowed table, expires 1 h, no dedup, a result a record, memory + changelog",
            faust_share,
            faust,
            ends_itself=False,
        ),
    ]


def _kafka_streams() -> Path:
    """Build the Java app, once for each version of its sources."""
    sources = sorted(path for path in _JAVA.rglob("*") if path.suffix in (".xml", ".java"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    return installed("kafka-streams-benchmark", digest, _build)


def _build(folder: Path) -> None:
    work = folder / "work"
    shutil.copytree(_JAVA, work)
    command = ["mvn", "-q", "-B", "package", "dependency:copy-dependencies"]
    _call([*command, f"-DoutputDirectory={folder / 'libs'}"], work)
    shutil.copy(next((work / "target").glob("*.jar")), folder / "windows.jar")
    shutil.rmtree(work)


def _quix_python() -> str:
    """Make an environment for Quix Streams, whose dependencies are not Headwater's."""
    return str(installed("quixstreams", QUIX_VERSION, _make_environment) / "bin" / "python")


def _make_environment(folder: Path) -> None:
    _call([sys.executable, "-m", "venv", "--copies", str(folder)], folder)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
    _call([*pip, f"quixstreams=={QUIX_VERSION}"], folder)


def _call(command: list[str], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = (done.stdout + done.stderr)[-2000:]
        raise ServiceError(f"{' '.join(command[:4])} failed ({done.returncode}):\n{shown}")
