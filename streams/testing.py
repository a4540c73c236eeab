"""An in-memory driver: the logic of a partition without Kafka, with a log time written by hand.

The same :class:`PartitionLogic` that a worker runs, records in and results out::

    from streams.agents.readings import make_readings
    from streams.settings import Settings
    from streams.testing import Driver, frame

    driver = Driver(make_readings(Settings()))
    driver.send(frame({"device": "d", "metric": "m", "t_ms": 500, "value": 2.5}), at_ms=1_000)
    driver.tick(at_ms=700_000)          # log time passes: idle rules fire
    (window,) = driver.rows("aggregates")

It also plays what production does to the logic: :meth:`Driver.checkpoint` and
:meth:`Driver.crash` lose everything since the last checkpoint and read the log again. See
``docs/testing.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from streams.adapters import frames
from streams.agents.detectors import Detector
from streams.core.readings import ABSENT, Float64, Int32, Int64, Labels, Readings
from streams.errors import DecodeError
from streams.ports import TIME_MARKER_HEADER, Evicting, LogicFactory, PartitionLogic, Produce


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
        self.stored: dict[str, tuple[int, bytes]] = {}
        """Key of a piece of state -> its stamp and bytes, as the last checkpoints left them."""
        self.committed = 0
        """Where the log is read from after a crash."""
        self.segments: dict[str, bytes] = {}
        """State that left memory, by the name of its segment."""
        self.named: dict[str, Sequence[str]] = {}
        """Key of a piece of state -> the segments that belong with it."""
        self.logic = self._made()

    def _made(self) -> PartitionLogic:
        logic = self._factory(*self._placement)
        if isinstance(logic, Evicting):
            logic.connect(self.segments.__getitem__)
        return logic

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
            self.stored[key] = (self._read - 1, self.logic.snapshot(key))
            if isinstance(self.logic, Evicting):
                self.named[key] = self.logic.segments(key)
        rest = self.logic.dirty()
        self.committed = min(rest.values(), default=self._read)

    def evict(self) -> int:
        """Let what is quiet for long leave memory; return how many segments were stored."""
        stored: list[str] = []
        while isinstance(self.logic, Evicting) and (leaving := self.logic.leave()):
            self.segments |= {part.id: part.state for part in leaving}
            stored += [part.id for part in leaving]
        if isinstance(self.logic, Evicting):
            self.logic.left(stored)
        return len(stored)

    def crash(self) -> None:
        """Lose all memory; load what was stored, and read again from the commit position."""
        self.logic = self._made()
        for key, (stamp, state) in self.stored.items():
            self.logic.restore(key, stamp, state)
            if isinstance(self.logic, Evicting) and self.named.get(key):
                self.logic.shelved(key, self.named[key])
        self._read = self.committed

    def values(self, topic: str) -> list[bytes]:
        """Return the values written to a topic so far, in order."""
        return [p.value for p in self.output if p.topic == topic and p.value is not None]

    def records(self, topic: str) -> list[Produce]:
        """Return the records written to a topic so far, in order."""
        return [p for p in self.output if p.topic == topic]

    def rows(self, topic: str) -> list[dict[str, Any]]:
        """Return what was written to a topic as plain rows, in order.

        A frame gives a row per reading or result, a JSON object is one row; both with their
        columns or fields. Anything else is one row with ``value``. Headers that begin with
        ``hw-`` are in every row of their record: ``reason``, ``detail``, ``source`` and so on,
        unless a column has that name.
        """
        return [row for produce in self.records(topic) for row in _rows(produce)]


def frame(
    *rows: Mapping[str, Any],
    tenant: str = "default",
    site: str = "default",
    received_ms: int | None = None,
) -> bytes:
    """Return a frame of readings, as a gateway or an edge sends it.

    :param rows: each with ``device``, ``metric``, ``t_ms`` and ``value`` (a number or text), and
        where wanted ``tenant``, ``site``, ``received_ms``, ``boot``, ``seq``, ``quality``. Rows
        with the same device, boot and seq are one message: put them side by side.
    :param tenant, site: of rows that do not say.
    :param received_ms: of rows that do not say; default the row's ``t_ms``.
    :raises KeyError: if a row lacks one of the four.
    :raises TypeError: if a row has a name that is none of these.
    """
    known = {"device", "metric", "t_ms", "value", "tenant", "site", "received_ms", "boot", "seq"}
    strange = {name for row in rows for name in row} - known - {"quality"}
    if strange:
        raise TypeError(f"a reading has no {min(strange)!r}; see the docstring of frame()")
    text = {i: row["value"] for i, row in enumerate(rows) if isinstance(row["value"], str)}

    def numbers(name: str, default: int) -> Any:
        return np.asarray([row.get(name, default) for row in rows], np.int64)

    t_ms = np.asarray([row["t_ms"] for row in rows], np.int64)
    received = [row.get("received_ms", received_ms) for row in rows]
    return frames.encode(
        Readings(
            tenant=Labels.of(row.get("tenant", tenant) for row in rows),
            site=Labels.of(row.get("site", site) for row in rows),
            device=Labels.of(row["device"] for row in rows),
            metric=Labels.of(row["metric"] for row in rows),
            t_ms=t_ms,
            received_ms=np.asarray(
                [t if r is None else r for t, r in zip(t_ms.tolist(), received, strict=True)],
                np.int64,
            ),
            value=np.asarray(
                [np.nan if i in text else float(row["value"]) for i, row in enumerate(rows)]
            ),
            quality=numbers("quality", 0).astype(np.uint8),
            boot=numbers("boot", ABSENT),
            seq=numbers("seq", ABSENT),
            exact_int={
                i: row["value"]
                for i, row in enumerate(rows)
                if isinstance(row["value"], int) and int(float(row["value"])) != row["value"]
            },
            text=text,
        )
    )


def _rows(produce: Produce) -> list[dict[str, Any]]:
    told = {
        name.removeprefix("hw-"): text.decode(errors="replace")
        for name, text in produce.headers.items()
        if name.startswith("hw-")
    }
    value = produce.value or b""
    try:
        return [{**told, **row} for row in frames.read_stream(value).to_pylist()]
    except DecodeError:
        pass
    try:
        content = orjson.loads(value)
    except orjson.JSONDecodeError:
        content = None
    return [{**told, **content} if isinstance(content, dict) else {**told, "value": produce.value}]


def check_detector(make: Callable[[], Detector], *, series: int = 3, readings: int = 400) -> None:
    """Try whether a detector keeps its promises; see :class:`streams.agents.detectors.Detector`.

    :param make: makes a new one, each time the same.
    :raises AssertionError: if what it says of a reading depends on how readings are batched, on
        readings that come later, or is lost with its stored state.
    """
    random = np.random.default_rng(7)
    of = random.integers(0, series, readings).astype(np.int32)
    t_ms = np.cumsum(random.integers(1, 5_000, readings))
    value = np.where(random.random(readings) < 0.02, 1e3, random.normal(20.0, 2.0, readings))
    whole = _scored(make(), of, t_ms, value, [readings])
    cuts = np.sort(random.choice(np.arange(1, readings), 40, replace=False))
    for name, ends in (("batches", [*cuts.tolist(), readings]), ("the future", [readings // 2])):
        part = _scored(make(), of, t_ms, value, ends)
        assert all(
            np.array_equal(a, b[: len(a)], equal_nan=True) for a, b in zip(part, whole, strict=True)
        ), f"what it says of a reading depends on {name}"
    first, second = make(), make()
    half = readings // 2
    before = _scored(first, of[:half], t_ms[:half], value[:half], [half])
    second.grow(series)
    for name, kept in first.state().items():
        second.state()[name][:series] = kept[:series]
    after = _scored(second, of[half:], t_ms[half:], value[half:], [readings - half])
    assert all(
        np.array_equal(np.append(a, b), w, equal_nan=True)
        for a, b, w in zip(before, after, whole, strict=True)
    ), "it knows something that is not in its state"


def _scored(
    detector: Detector, of: Int32, t_ms: Int64, value: Float64, ends: Sequence[int]
) -> Sequence[Float64]:
    detector.grow(int(of.max()) + 1)
    found, begin = [], 0
    for end in ends:
        rows = slice(begin, end)
        found.append(detector.score(of[rows], t_ms[rows], value[rows]))
        begin = end
    return [np.concatenate(column) for column in zip(*found, strict=True)]
