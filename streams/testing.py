"""An in-memory driver: the logic of a partition without Kafka, with a log time written by hand.

The same :class:`PartitionLogic` that a worker runs, records in and results out::

    from streams.agents.readings import make_readings
    from streams.settings import Settings
    from streams.testing import Driver

    driver = Driver(make_readings(Settings()))
    driver.send(frame, at_ms=1_000)
    driver.tick(at_ms=700_000)          # log time passes: idle rules fire
    windows = driver.values("aggregates")

It also plays what production does to the logic: :meth:`Driver.checkpoint` and
:meth:`Driver.crash` lose everything since the last checkpoint and read the log again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streams.ports import TIME_MARKER_HEADER, LogicFactory, PartitionLogic, Produce


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the driver's log; see :class:`streams.ports.LogRecord`."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class Driver:
    """One partition of one logic, with its log, its stored state and its output.

    :param factory: makes the logic, at first and after every crash.
    """

    def __init__(self, factory: LogicFactory, *, partition: int = 0, partitions: int = 1) -> None:
        self._factory = factory
        self._placement = (partition, partitions)
        self.log: list[Record] = []
        self.output: list[Produce] = []
        self._read = 0
        self._stored: dict[str, tuple[int, bytes]] = {}
        self._committed = 0
        self.logic: PartitionLogic = factory(partition, partitions)

    def append(
        self,
        value: bytes | None,
        *,
        at_ms: int,
        key: bytes | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> None:
        """Append a record to the log without processing it."""
        given = tuple((headers or {}).items())
        self.log.append(Record(len(self.log), at_ms, key, value, given))

    def send(
        self,
        value: bytes | None,
        *,
        at_ms: int,
        key: bytes | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> list[Produce]:
        """Append one record and process all that waits; return what it made."""
        self.append(value, at_ms=at_ms, key=key, headers=headers)
        return self.run()

    def tick(self, at_ms: int) -> list[Produce]:
        """Let log time pass, as a time marker does on a silent partition."""
        return self.send(None, at_ms=at_ms, headers={TIME_MARKER_HEADER: b"1"})

    def run(self) -> list[Produce]:
        """Process all records that wait."""
        return self.step(len(self.log))

    def step(self, records: int) -> list[Produce]:
        """Process the next records as one batch, at most as many as wait."""
        batch = self.log[self._read : self._read + records]
        made = self.logic.fold(batch) if batch else []
        self._read += len(batch)
        self.output += made
        return made

    def checkpoint(self, keys: int | None = None) -> None:
        """Store dirty state (at most *keys* of them, oldest first) and move the commit position."""
        dirty = dict(sorted(self.logic.dirty().items(), key=lambda item: item[1]))
        for key in list(dirty)[:keys]:
            self._stored[key] = (self._read - 1, self.logic.snapshot(key))
        rest = self.logic.dirty()
        self._committed = min(rest.values(), default=self._read)

    def crash(self) -> None:
        """Lose all memory; load what was stored, and read again from the commit position."""
        self.logic = self._factory(*self._placement)
        for key, (stamp, state) in self._stored.items():
            self.logic.restore(key, stamp, state)
        self._read = self._committed

    def values(self, topic: str) -> list[bytes]:
        """Return the values written to a topic so far, in order."""
        return [p.value for p in self.output if p.topic == topic and p.value is not None]
