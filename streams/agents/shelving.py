"""Closed windows leave memory for the table before their horizon is over, and come back.

A window that is *settled* (closed, and its device's event time ``after_ms`` past its close) is
written with others of its shard and definition as a *shelf*; once that is acknowledged, those that
still are as they were written are forgotten, and the next snapshot of the shard names the shelf.
All of a shelf come back when a late reading wants one of them, and those that live on when the
horizon of most is over. So a window is in its shard's snapshot, which counts then, or on a shelf
that the snapshot names; and no result tells which.

A device that leaves memory itself (:mod:`streams.agents.eviction`) takes all its windows along:
only windows of devices heard of late leave, so those of a quiet one come back, and then it may go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from prometheus_client import Counter

from streams.adapters import segment_codec
from streams.adapters.segment_codec import WINDOWS
from streams.core import snapshots
from streams.core.columns import Columns
from streams.core.engine import StreamEngine
from streams.core.readings import Bool, Int32, Int64
from streams.core.shelves import Shelf, Shelves, keys_of
from streams.core.tumbling import TumblingOperator
from streams.errors import StateError
from streams.ports import Segment

_LEAST = 512
"""Settled windows of a shard for which a shelf is worth its while."""
_ON_SHELF = 2048
_AT_ONCE = 32
"""Most shelves that are written together, and that are looked through together."""
_WORTH = 4
"""A definition's windows leave if its horizon is this many times what they stay here anyway."""
_DUE, _LATE = "due", "late"

_SHELVED = Counter(
    "headwater_worker_shelved_windows", "Closed windows that left memory for the table."
)
_BACK = Counter("headwater_worker_returned_windows", "Closed windows that came back.", ["why"])


@dataclass(frozen=True, slots=True)
class _Leaving:
    """Windows of a shelf that is on its way, and how many readings each had."""

    shard: int
    definition: int
    shelf: Shelf
    series: Int32
    start_ms: Int64
    count: Int64


class Shelving:
    """Which closed windows are elsewhere, and which are leaving; of one partition.

    :param after_ms: event time past a window's close after which it may leave; 0 for never.
    """

    def __init__(self, shards: int, after_ms: int) -> None:
        self._after_ms = after_ms
        self._leaving: dict[str, _Leaving] = {}
        self._fetch: Callable[[str], bytes] | None = None
        self.shelves = Shelves(shards)
        self._until = Columns({"due_ms": (np.int64, 0)})
        """Of each device: when the last shelf with a window of it is due."""

    def connect(self, fetch: Callable[[str], bytes]) -> None:
        """Say where shelves are read."""
        self._fetch = fetch

    def attach(self, engine: StreamEngine) -> None:
        """Serve an engine from now on; those that are leaving another one stay."""
        self._leaving.clear()
        self._until = Columns({"due_ms": (np.int64, 0)})
        for at, operator in _operators(engine):
            operator.recall = partial(self._recall, engine, at)

    def until_ms(self, engine: StreamEngine, series: Int64 | Int32) -> Int64:
        """Return what a snapshot keeps of each series: when the last shelf of its device is due."""
        self._until.grow_to(engine.registry.devices.n)
        found: Int64 = self._until["due_ms"][engine.registry.series["device"][series]]
        return found

    def learn(self, engine: StreamEngine, series: Int64 | Int32, until_ms: Int64) -> None:
        """Load what :meth:`until_ms` returned."""
        self._until.grow_to(engine.registry.devices.n)
        np.maximum.at(self._until["due_ms"], engine.registry.series["device"][series], until_ms)

    # -- out ----------------------------------------------------------------------------

    def leave(self, engine: StreamEngine, now_ms: int) -> list[Segment]:
        """Return the shelves of further windows that may leave."""
        if self._fetch is None or not self._after_ms or self._leaving:
            return []
        due = list(self.shelves.due(now_ms))[:_AT_ONCE]
        for shard, shelf in due:
            self._bring_back(engine, shard, shelf, _DUE)
        made: list[Segment] = []
        for at, operator in _operators(engine):
            horizon_ms = engine.definitions[at].horizon_ms
            if horizon_ms >= _WORTH * self._after_ms:
                slots = self._settled(engine, operator, now_ms - horizon_ms)
                parts = _parts(slots, _shard_of(engine, operator, slots), _AT_ONCE - len(made))
                made += [self._shelve(engine, at, part, now_ms) for part in parts]
        return made

    def _settled(
        self, engine: StreamEngine, operator: TumblingOperator, heard_since_ms: int
    ) -> Int64:
        slots = operator.settled(_watermarks(engine), self._after_ms)
        device = operator.held.columns["device"][slots]
        heard: Bool = engine.registry.devices["log_ms"][device] >= heard_since_ms
        return slots[heard]

    def _shelve(self, engine: StreamEngine, at: int, slots: Int64, now_ms: int) -> Segment:
        operator = _operator(engine, at)
        rows = operator.held.select(slots)
        shard = int(engine.registry.devices["shard"][rows["device"][0]])
        horizon_ms, start_ms = engine.definitions[at].horizon_ms, rows["start_ms"]
        state = snapshots.take_windows(engine, operator.take(slots))
        hashes = keys_of(state["series"], state["windows"]["series"], start_ms)
        data = segment_codec.encode(WINDOWS, hashes, state)
        shelf = Shelf(
            segment_codec.id_of(data),
            engine.definitions[at].written,
            due_ms=now_ms + horizon_ms - self._after_ms,
            first_ms=int(start_ms.min()),
            last_ms=int(start_ms.max()),
        )
        series = rows["series"]
        self.learn(engine, series, np.full(len(series), shelf.due_ms))
        self._leaving[shelf.id] = _Leaving(shard, at, shelf, series, start_ms, rows["count"])
        return Segment(str(shard), shelf.id, data)

    def left(self, engine: StreamEngine, segments: Iterable[str]) -> None:
        """Note that shelves are stored: forget the windows that are as they were written."""
        gone: dict[int, list[Int64]] = {}
        for leaving in [self._leaving.pop(name) for name in segments if name in self._leaving]:
            held = _operator(engine, leaving.definition).held
            slots = held.find(leaving.series, leaving.start_ms)
            same = slots >= 0
            same[same] = held.columns["count"][slots[same]] == leaving.count[same]
            without = tuple(np.flatnonzero(~same).tolist())
            self.shelves.add(leaving.shard, replace(leaving.shelf, without=without))
            gone.setdefault(leaving.definition, []).append(slots[same])
        for at, some in gone.items():
            slots = np.concatenate(some)
            _operator(engine, at).drop(slots)
            _SHELVED.inc(len(slots))

    def may_leave(self, engine: StreamEngine, devices: Int64) -> Bool:
        """Return which devices have all their windows here: no shelf that was theirs is left."""
        first_due_ms = self.shelves.first_due_ms()
        for one in self._leaving.values():
            first_due_ms[one.shard] = min(first_due_ms[one.shard], one.shelf.due_ms)
        shard = engine.registry.devices["shard"][devices]
        self._until.grow_to(engine.registry.devices.n)
        may: Bool = self._until["due_ms"][devices] < first_due_ms[shard]
        return may

    def forget(self, devices: Int64) -> None:
        """Forget devices: under their indices others may come."""
        self._until.reset(devices)

    # -- back ---------------------------------------------------------------------------

    def _recall(self, engine: StreamEngine, at: int, series: Int32, start_ms: Int64) -> None:
        """Bring back the shelves that hold some windows."""
        if not len(self.shelves):
            return
        reg, written = engine.registry, engine.definitions[at].written
        shards = reg.devices["shard"][reg.series["device"][series]]
        for shard in np.unique(shards).tolist():
            mine = np.flatnonzero(shards == shard)
            some, local = np.unique(series[mine].astype(np.int64), return_inverse=True)
            keys = keys_of(snapshots.series_names(engine, some), local, start_ms[mine])
            for shelf in self.shelves.of(shard):
                near = shelf.spans(start_ms[mine])
                if shelf.written == written and near.any():
                    hashes = segment_codec.hashes_in(WINDOWS, self._read(shelf.id))
                    if np.isin(keys[near], hashes).any():
                        self._bring_back(engine, shard, shelf, _LATE)

    def _bring_back(self, engine: StreamEngine, shard: int, shelf: Shelf, why: str) -> None:
        """Put the windows of a shelf back.

        Those beyond their horizon too, where rows are being judged: each of them has a watermark
        of its own, before that of its device now.
        """
        self.shelves.remove(shard, shelf)
        for at, operator in _operators(engine):
            if engine.definitions[at].written == shelf.written:
                state = segment_codec.decode(WINDOWS, self._read(shelf.id))
                series = snapshots.series_named(engine, state["series"])
                here = np.ones(len(state["windows"]["series"]), np.bool_)
                here[list(shelf.without)] = False
                if why == _DUE:
                    here &= ~_is_over(engine, operator, state["windows"], series)
                snapshots.put_windows(engine, operator, state, series, here)
                _BACK.labels(why).inc(int(here.sum()))

    def _read(self, name: str) -> bytes:
        if self._fetch is None:
            raise StateError(f"there is nowhere to read the stored segment {name} from")
        return self._fetch(name)


def _operators(engine: StreamEngine) -> Iterator[tuple[int, TumblingOperator]]:
    for at, operator in enumerate(engine.operators):
        if isinstance(operator, TumblingOperator):
            yield at, operator


def _operator(engine: StreamEngine, at: int) -> TumblingOperator:
    return dict(_operators(engine))[at]


def _watermarks(engine: StreamEngine) -> Int64:
    return engine.registry.devices["max_t_ms"] - engine.rules.disorder_ms


def _is_over(
    engine: StreamEngine, operator: TumblingOperator, windows: dict[str, Any], series: Int32
) -> Bool:
    device = engine.registry.series["device"][series[windows["series"]]]
    return operator.is_over(windows["closes_ms"], _watermarks(engine)[device])


def _shard_of(engine: StreamEngine, operator: TumblingOperator, slots: Int64) -> Any:
    return engine.registry.devices["shard"][operator.held.columns["device"][slots]]


def _parts(slots: Int64, shard: Any, most: int) -> list[Int64]:
    """Return windows in parts of one shard each, of the shards that have enough of them."""
    order = np.argsort(shard, kind="stable")
    slots, shard = slots[order], shard[order]
    parts = [
        part
        for mine in np.split(slots, np.flatnonzero(np.diff(shard)) + 1)
        if len(mine) >= _LEAST
        for part in np.array_split(mine, -(-len(mine) // _ON_SHELF))
    ]
    return sorted(parts, key=len, reverse=True)[: max(0, most)]
