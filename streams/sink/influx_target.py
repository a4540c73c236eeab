"""The InfluxDB target: the current result of every window, idempotent by series and window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer, TopicPartition

from streams.adapters.influx import (
    GROUPS,
    WINDOWS,
    Influx,
    Kind,
    Point,
    any_of,
    lines,
    write_or_split,
)
from streams.adapters.rejected import rejected_record
from streams.adapters.results import decode_rollups, decode_windows
from streams.core.readings import Labels
from streams.core.results import EDGE, EDGE_FIRST, RollupResults, WindowResults, standing
from streams.errors import DecodeError
from streams.log import get_logger
from streams.ports import TIME_MARKER_HEADER, Produce
from streams.settings import Settings
from streams.sink.ranks import RETRACTED, Held, Key, Place, Ranks
from streams.topics import AGGREGATES, ROLLUPS

_log = get_logger(__name__)


_READERS: dict[str, tuple[Kind, Callable[[bytes], WindowResults | RollupResults]]] = {
    AGGREGATES: (WINDOWS, decode_windows),
    ROLLUPS: (GROUPS, decode_rollups),
}
_KINDS = {kind.measurement: kind for kind, _ in _READERS.values()}
_NAMES_OF_A_QUERY = 200


@dataclass(frozen=True, slots=True)
class Waiting:
    """The greatest rank of a window that is not written yet."""

    held: Held
    line: str


class InfluxTarget:
    """Writes ``aggregates`` and ``rollups`` to InfluxDB; keeps the greatest rank of every window.

    A window has one point. Where a correction comes under another site or source, or takes the
    window back, the point that lost is deleted, after the rank of what won has been written.
    """

    name = "influx"
    topics: Sequence[str] = tuple(_READERS)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.flush_ms = settings.sink.flush_ms
        self._influx = Influx(settings)
        self._ranks = Ranks(settings.sink.max_buffered_rows)
        self._waiting: dict[Key, Waiting] = {}
        self._lost: set[tuple[Key, Place]] = set()
        self._refused: list[Produce] = []

    async def open(self) -> None:
        """Connect the producer of refused points."""
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka, acks="all", enable_idempotence=True
        )
        await self._producer.start()

    async def assigned(self, partition: TopicPartition) -> int | None:
        """Go on at the committed offset."""
        return None

    def add(self, partition: TopicPartition, records: Sequence[Any]) -> None:
        """Buffer the greatest rank of each window."""
        kind, decode = _READERS[partition.topic]
        for record in records:
            if any(name == TIME_MARKER_HEADER for name, _ in record.headers):
                continue
            source = f"kafka:{record.topic}/{record.partition}/{record.offset}"
            try:
                results = decode(record.value or b"")
            except DecodeError as error:
                self._refuse(record.value or b"", error, source, record.timestamp)
                continue
            held = _held(kind, results)
            for key, new, line in zip(
                _keys(kind, results), held, lines(kind, results), strict=True
            ):
                if key not in self._waiting or new.rank >= self._waiting[key].held.rank:
                    self._waiting[key] = Waiting(new, line)

    def rows(self) -> int:
        """Return how many windows wait."""
        return len(self._waiting) + len(self._refused)

    async def flush(self) -> None:
        """Write what waits, but nothing over a higher rank."""
        await self._learn_unknown()
        batch = {k: w for k, w in self._waiting.items() if self._ranks.may_write(k, w.held.rank)}
        size = self._settings.sink.batch_rows
        points = [waiting.line for waiting in batch.values()]
        for first in range(0, len(points), size):
            for line, why in await write_or_split(self._influx, points[first : first + size]):
                self._refuse(line.encode(), DecodeError("influx-refused", why), "influx", 0)
        for key, waiting in batch.items():
            self._learn(key, waiting.held)
        await self._delete_lost()
        for produce in self._refused:
            await self._producer.send_and_wait(
                produce.topic, produce.value, headers=list(produce.headers.items())
            )
        self._clear()

    def forget(self) -> None:
        """Drop the buffer, and what is known of partitions that others may write to now."""
        self._clear()
        self._ranks.clear()

    async def close(self) -> None:
        """Disconnect."""
        await self._producer.stop()
        self._influx.close()

    def _clear(self) -> None:
        self._waiting.clear()
        self._refused.clear()
        self._lost.clear()

    def _learn(self, key: Key, held: Held) -> None:
        place = self._ranks.learn(key, held)
        if place is not None:
            self._lost.add((key, place))

    async def _learn_unknown(self) -> None:
        """Ask InfluxDB about windows that this process has not written itself."""
        for kind in _KINDS.values():
            unknown = [
                (key, waiting.held)
                for key, waiting in self._waiting.items()
                if key not in self._ranks and key[0] == kind.measurement
            ]
            if not unknown:
                continue
            starts = [int(key[-1]) for key, _ in unknown]
            for condition in _conditions(kind, unknown):
                found = await self._influx.ranks(kind, min(starts), max(starts), condition)
                for point, rank, retracted in found:
                    key, source, place = _key_of(kind, point)
                    stands = int(standing(np.asarray([rank], np.int32), source)[0])
                    self._learn(key, Held(stands, RETRACTED if retracted else place))

    async def _delete_lost(self) -> None:
        for kind in _KINDS.values():
            points = [
                _point_of(kind, key, place)
                for key, place in sorted(self._lost)
                if key[0] == kind.measurement
            ]
            await self._influx.delete(kind, points)

    def _refuse(self, value: bytes, error: DecodeError, source: str, at_ms: int) -> None:
        _log.warning("cannot be stored", source=source, reason=error.reason, detail=error.detail)
        limit = self._settings.gateway.max_rejected_bytes
        self._refused.append(
            rejected_record(value, error, source=source, received_ms=at_ms, max_bytes=limit)
        )


def _conditions(kind: Kind, unknown: Sequence[tuple[Key, Held]]) -> Iterator[str]:
    """Which points can be in the way of unknown windows.

    Higher ranks always, and what an edge told of windows that the cloud tells, too. Lower ones only
    where the new result replaces a point of another place, or takes one back: corrections and what
    edges tell, asked for by name, and what follows on a provisional result.
    """
    lowest = min(held.rank % EDGE_FIRST if held.rank >= 0 else held.rank for _, held in unknown)
    of_edge = ""
    if kind.places and any(0 <= held.rank < EDGE_FIRST for _, held in unknown):
        of_edge = f' or r.source == "{EDGE}"'
    yield f"r._value > {lowest} or r._value < 0{of_edge}"
    names = "device" if kind.places else "group"
    at = 1 + _window_tags(kind).index(names)
    moved = {
        key[at]
        for key, held in unknown
        if held.place == RETRACTED or (kind.places and held.rank > 0)
    }
    ordered = sorted(moved)
    for first in range(0, len(ordered), _NAMES_OF_A_QUERY):
        yield any_of(names, ordered[first : first + _NAMES_OF_A_QUERY])


def _window_tags(kind: Kind) -> list[str]:
    return [tag for tag in kind.tags if tag not in kind.places]


def _keys(kind: Kind, results: WindowResults | RollupResults) -> Iterator[Key]:
    columns = [getattr(results, tag).to_list() for tag in _window_tags(kind)]
    starts = map(str, results.start_ms.tolist())
    return ((kind.measurement, *row) for row in zip(*columns, starts, strict=True))


def _held(kind: Kind, results: WindowResults | RollupResults) -> list[Held]:
    n = len(results)
    columns = [getattr(results, tag).to_list() for tag in kind.places]
    places: list[Place] = list(zip(*columns, strict=True)) if columns else [()] * n
    ranks, counts = standing(results.rank, results.source).tolist(), results.count.tolist()
    return [Held(ranks[i], places[i] if counts[i] else RETRACTED) for i in range(n)]


def _key_of(kind: Kind, point: Point) -> tuple[Key, Labels, Place]:
    """Return the window of a point, its source, and its place."""
    named = dict(zip(kind.tags, point.tags, strict=True))
    source = Labels.constant(named["source"], 1)
    place = tuple(named.pop(tag) for tag in kind.places)
    return (kind.measurement, *named.values(), str(point.start_ms)), source, place


def _point_of(kind: Kind, key: Key, place: Place) -> Point:
    named = dict(zip(_window_tags(kind), key[1:-1], strict=True))
    named |= dict(zip(kind.places, place, strict=True))
    return Point(tuple(named[tag] for tag in kind.tags), int(key[-1]))
