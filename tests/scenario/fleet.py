"""Several workers of one group, what is done to them, and who owned which partition when."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import orjson
from aiokafka.admin import AIOKafkaAdminClient

from streams.adapters.log_reader import ends_of
from streams.topics import READINGS
from tests.scenario import next_version
from tests.scenario.load import PARTITIONS
from tests.waiting import PATIENCE_S, eventually

GROUP = "headwater-worker"
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Opening:
    """A process has opened a partition of ``readings``."""

    at: str
    partition: int
    instance: str
    process: int
    """Running number of the process; an instance has a new one after each restart."""
    pieces: int
    """Pieces of stored state that it found."""


@dataclass(frozen=True, slots=True)
class Member:
    """A running worker."""

    process: int
    child: subprocess.Popen[bytes]
    port: str


class Fleet:
    """Workers with instance ids ``w0``, ``w1`` and so on, on shared servers.

    :param newer: those of the next version.
    """

    def __init__(
        self,
        start: Callable[..., Any],
        servers: Any,
        home: Path,
        *,
        newer: Sequence[str] = (),
        **overrides: str,
    ) -> None:
        self._newer = newer
        self._start, self._servers, self._home = start, servers, home
        self._overrides = overrides
        self._kafka: str = servers.addresses["kafka"]
        self._numbers = count()
        self._instances: list[str] = []
        self.members: dict[str, Member] = {}

    def start(self, instance: str) -> None:
        """Start a worker under an instance id, for the first time or again."""
        home = self._home / instance
        home.mkdir(exist_ok=True)
        env = self._servers.env(home, HEADWATER_WORKER__INSTANCE_ID=instance, **self._overrides)
        if instance in self._newer:
            env["PYTHONPATH"] = str(REPOSITORY)
            child = self._start("worker", env=env, module=next_version.__name__)
        else:
            child = self._start("worker", env=env)
        self._instances.append(instance)
        port = env["HEADWATER_OPS__WORKER_PORT"]
        self.members[instance] = Member(next(self._numbers), child, port)

    def kill(self, instance: str) -> None:
        """Kill -9, and start it again at once."""
        self._end(instance, signal.SIGKILL)
        self.start(instance)

    def suspend(self, instance: str) -> None:
        """SIGSTOP until others own all that it had, then SIGCONT."""
        child = self.members[instance].child
        child.send_signal(signal.SIGSTOP)
        try:
            eventually(
                lambda: all(o.instance != instance for o in self._latest().values()),
                every_s=0.2,
                what=f"the partitions of the stopped {instance} are with others",
            )
        finally:
            child.send_signal(signal.SIGCONT)

    def remove(self, instance: str) -> None:
        """SIGTERM, and wait for its end."""
        self._end(instance, signal.SIGTERM)

    def settled(self) -> None:
        """Wait until running workers own all partitions, and have stored all there is by now."""
        running = {member.process for member in self.members.values()}
        eventually(
            lambda: {o.process for o in self._latest().values()} <= running,
            every_s=0.2,
            what="all partitions are with running workers",
        )
        eventually(self._all_ready, every_s=0.2, what="all ready")
        ends = self._ends()
        eventually(
            lambda: all(self._committed().get(p, 0) >= end for p, end in ends.items()),
            every_s=0.3,
            what=f"committed up to {ends}",
        )

    def drained(self) -> None:
        """Wait until all is folded and stored, and nobody waits for time to pass."""
        eventually(
            lambda: self._committed() == self._ends(),
            every_s=0.5,
            what="all committed",
        )

    def openings(self) -> list[Opening]:
        """Return all openings of partitions so far, in order of time."""
        found: list[Opening] = []
        for process, instance in enumerate(self._instances):
            for line in self._lines(process):
                if line.get("event") == "partition opened" and line["topic"] == READINGS:
                    place = line["timestamp"], line["partition"]
                    found.append(Opening(*place, instance, process, line["pieces"]))
        return sorted(found, key=lambda opening: opening.at)

    def generations(self) -> int:
        """Return the greatest generation of the group that a member has seen."""
        words = [
            word.strip("(),.")
            for process in range(len(self._instances))
            for line in self._lines(process)
            if "(generation " in str(line.get("event"))
            for word in str(line["event"]).partition("(generation ")[2].split()[:1]
        ]
        return max((int(word) for word in words if word.isdigit()), default=0)

    def _end(self, instance: str, how: signal.Signals) -> None:
        member = self.members.pop(instance)
        member.child.send_signal(how)
        member.child.wait(PATIENCE_S)

    def _lines(self, process: int) -> list[dict[str, Any]]:
        lines = (self._home / f"worker-{process}.log").read_bytes().splitlines(keepends=True)
        whole = (line for line in lines if line.startswith(b"{") and line.endswith(b"}\n"))
        return [orjson.loads(line) for line in whole]

    def _latest(self) -> dict[int, Opening]:
        return {opening.partition: opening for opening in self.openings()}

    def _all_ready(self) -> bool:
        try:
            return all(
                httpx.get(f"http://127.0.0.1:{member.port}/readyz").is_success
                for member in self.members.values()
            )
        except httpx.TransportError:
            return False

    def _ends(self) -> dict[int, int]:
        places = [(READINGS, partition) for partition in range(PARTITIONS)]
        return {p: end for (_, p), end in asyncio.run(ends_of(self._kafka, places)).items()}

    def _committed(self) -> dict[int, int]:
        return asyncio.run(_committed(self._kafka))


async def _committed(kafka: str) -> dict[int, int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(GROUP)
    finally:
        await admin.close()
    return {tp.partition: meta.offset for tp, meta in found.items() if tp.topic == READINGS}


def came_back(openings: list[Opening]) -> int:
    """Return how often a partition went from one instance to another and back to the first."""
    returns = 0
    for partition in range(PARTITIONS):
        owners = [o.instance for o in openings if o.partition == partition]
        changes = [b for a, b in zip([None, *owners], owners, strict=False) if a != b]
        returns += sum(a == c for a, c in zip(changes, changes[2:], strict=False))
    return returns
