"""What the pure parts and the agents need from outside, as Protocols and plain records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from streams.core.readings import Readings


class LogRecord(Protocol):
    """One record of a Kafka partition, as the log holds it.

    The names are those of Kafka's own clients, so that a fetched record goes to the logic as it
    is: making another object of each costs as much as decoding it.
    """

    @property
    def offset(self) -> int:
        """Place in the partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Log append time for data topics, in ms: the only clock that the logic sees."""
        ...

    @property
    def key(self) -> bytes | None:
        """The key's bytes."""
        ...

    @property
    def value(self) -> bytes | None:
        """The value's bytes."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Names and values, in order."""
        ...


def header(record: LogRecord, name: str) -> bytes | None:
    """Return the last header of this name."""
    found = None
    for other, value in record.headers:
        if other == name:
            found = value
    return found


def is_time_marker(record: LogRecord) -> bool:
    """Whether a record carries no data, only its log time."""
    return bool(record.headers) and any(name == TIME_MARKER_HEADER for name, _ in record.headers)


@dataclass(frozen=True, slots=True)
class Produce:
    """One record to be written. ``partition`` is explicit; ``None`` leaves it to the key."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    headers: Mapping[str, bytes] = field(default_factory=dict)


class Take(Protocol):
    """Takes the readings of one request of HTTP or CoAP.

    Durable is what its process can promise: a gateway has them in Kafka, an edge in its spool.
    """

    async def __call__(self, readings: Readings) -> None:
        """Return once *readings* are durable.

        :raises BusyError: if there is no room; nothing was taken.
        """
        ...


class PartitionLogic(Protocol):
    """All that the owner of one partition does: records in, records out, state by key.

    It is deterministic: the same records give the same output and the same state, in whatever
    batches they come. It never reads a clock; time is ``LogRecord.timestamp``. The host
    (``streams/agents/host.py``) runs it against Kafka, the test driver in memory.

    State is kept under keys (a shard number, a device). The host stores a key's snapshot with
    the offset of the last record folded, its *stamp*, and after a restart reads from the
    commit position again: ``fold`` must leave a key as it is for records at or below the
    stamp that ``restore`` gave it, and must not repeat the output that belongs to them.
    """

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Take the next records of the partition, in order; return what to write."""
        ...

    def dirty(self) -> Mapping[str, int]:
        """Return the keys changed since their last snapshot, with the first offset that did it."""
        ...

    def snapshot(self, key: str) -> bytes:
        """Return a key's state and mark it clean."""
        ...

    def restore(self, key: str, stamp: int, state: bytes) -> None:
        """Load a key's state as of offset *stamp* (inclusive). Called before any ``fold``."""
        ...

    def wants_time(self) -> bool:
        """Whether something waits for time to pass: then a silent partition gets time markers."""
        ...


@runtime_checkable
class Showing(Protocol):
    """What a logic offers beside :class:`PartitionLogic` if it shows metrics of its partition."""

    def forget_shown(self) -> None:
        """Take them back: the partition goes to another process, which shows them from now on."""
        ...


@dataclass(frozen=True, slots=True)
class Segment:
    """State that leaves memory: a part of the state under *key*, stored under a name of its own."""

    key: str
    id: str
    state: bytes = field(repr=False)


@runtime_checkable
class Evicting(Protocol):
    """What a logic offers beside :class:`PartitionLogic` if parts of its state may leave memory.

    The host stores segments; once they are, it says so, and the logic forgets those parts. The
    next snapshot of the key is without them, and names the segments instead; what no snapshot
    names is removed.
    """

    def connect(self, fetch: Callable[[str], bytes]) -> None:
        """Say where segments are read. Called before any ``restore``."""
        ...

    def leave(self) -> Sequence[Segment]:
        """Return further segments of what may leave; none if nothing may."""
        ...

    def left(self, segments: Iterable[str]) -> None:
        """Forget what lies in these segments, which are stored now."""
        ...

    def segments(self, key: str) -> Sequence[str]:
        """Return the segments that the snapshot of a key, taken now, belongs with."""
        ...

    def shelved(self, key: str, segments: Sequence[str]) -> None:
        """Learn the segments of a key that was restored. Called after its ``restore``."""
        ...


class LogicFactory(Protocol):
    """Makes the logic of one partition at each assignment."""

    def __call__(self, partition: int, partitions: int) -> PartitionLogic:
        """Return empty logic for *partition* of *partitions*."""
        ...


TIME_MARKER_HEADER = "hw-time"
"""A record with this header is a time marker: it carries no data, only its log time."""
