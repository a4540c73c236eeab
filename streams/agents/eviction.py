"""Devices that have been quiet for long leave memory for the table, and come back.

A device may leave once nothing of it is open and no rule of time waits: then only a reading of its
own can change it. Its state is written first, with that of others, as a *segment*; once that is
acknowledged, the devices that still are as they were written are forgotten. From then on the
snapshots of their shard do not hold them, but name the segment. At any moment a device's state is
in the shard's snapshot, which counts then, or in the last segment that the snapshot names: so no
crash in between loses any, and it cannot be told from the results who was away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streams.adapters import segment_codec
from streams.adapters.segment_codec import DEVICES
from streams.core import snapshots
from streams.core.cold import Cold, hashes_of
from streams.core.engine import StreamEngine
from streams.core.placement import shard_of
from streams.core.readings import Bool, Int64
from streams.errors import StateError
from streams.ports import Segment

State = dict[str, Any]
_LEAST = 64
"""Quiet devices of a shard for which a segment is worth its while."""
_IN_SEGMENT = 256
_AT_ONCE = 1024
"""Devices whose state is taken together: one look over all devices serves for several segments."""

_PER_SERIES = ("over", "shelved_until_ms")


@dataclass(frozen=True, slots=True)
class _Leaving:
    """Devices in a segment that is on its way, and when each had been heard last."""

    shard: int
    devices: Int64
    log_ms: Int64


class Eviction:
    """Who is away, and who is leaving; of one partition.

    :param after_ms: log time without a reading after which a device may leave; 0 for never.
    """

    def __init__(self, shards: int, after_ms: int) -> None:
        self._after_ms = after_ms
        self._leaving: dict[str, _Leaving] = {}
        self._fetch: Callable[[str], bytes] | None = None
        self.cold = Cold(shards)

    def connect(self, fetch: Callable[[str], bytes]) -> None:
        """Say where segments are read."""
        self._fetch = fetch

    def leave(
        self,
        engine: StreamEngine,
        now_ms: int,
        may_leave: Callable[[Int64], Bool],
        take: Callable[[Int64], State],
    ) -> list[Segment]:
        """Return the segments of further devices that may leave: those of one shard.

        :param may_leave: says which of some devices have all of their state in memory.
        :param take: returns the state of some devices.
        """
        if self._fetch is None or not self._after_ms:
            return []
        quiet = engine.quiet(now_ms - self._after_ms)
        quiet = quiet[may_leave(quiet)]
        quiet = np.setdiff1d(quiet, [d for one in self._leaving.values() for d in one.devices])
        shards, counts = np.unique(engine.registry.devices["shard"][quiet], return_counts=True)
        if not len(counts) or counts.max() < _LEAST:
            return []
        shard = int(shards[counts.argmax()])
        mine = quiet[engine.registry.devices["shard"][quiet] == shard][:_AT_ONCE]
        state = take(mine)
        made = []
        for at in np.array_split(np.arange(len(mine)), -(-len(mine) // _IN_SEGMENT)):
            part = part_of(engine, state, at)
            data = segment_codec.encode(DEVICES, hashes_of(part["names"]), part)
            segment = Segment(str(shard), segment_codec.id_of(data), data)
            log_ms = engine.registry.devices["log_ms"][mine[at]]
            self._leaving[segment.id] = _Leaving(shard, mine[at], log_ms)
            made.append(segment)
        return made

    def left(self, engine: StreamEngine, segments: Iterable[str]) -> Int64:
        """Note that segments are stored; return the devices that are to be forgotten now."""
        gone = [np.empty(0, np.int64)]
        for name in segments:
            leaving = self._leaving.pop(name, None)
            if leaving is None:
                continue
            reg = engine.registry
            still = leaving.devices[reg.devices["log_ms"][leaving.devices] == leaving.log_ms]
            if len(still):
                self.cold.add(name, leaving.shard, hashes_of(reg.keys_of(still)))
                gone.append(still)
        return np.concatenate(gone)

    def stay(self) -> None:
        """Let those that are leaving stay: their indices are no more."""
        self._leaving.clear()

    def shelved(self, shard: int, segments: Sequence[str], here: Sequence[Sequence[str]]) -> None:
        """Learn the segments that a shard's snapshot names, which holds the devices *here*."""
        for name in segments:
            self.cold.add(name, shard, segment_codec.hashes_in(DEVICES, self._read(name)))
        if len(self.cold):
            self.cold.remove(hashes_of(here))

    def back(
        self,
        named: Sequence[tuple[str, str]],
        engine: StreamEngine,
        adapt: Callable[[State], State],
    ) -> Iterator[tuple[int, State]]:
        """Yield shard and state of those of some devices that are away; they are not any more.

        :param adapt: makes a state fit the engine's definitions.
        :raises StateError: if a segment is not what it was.
        """
        where = self.cold.remove(hashes_of(named))
        wanted: dict[str, list[tuple[str, str]]] = {}
        for key, name in zip(named, where, strict=True):
            if name:
                wanted.setdefault(name, []).append(key)
        for name, keys in wanted.items():
            state = adapt(segment_codec.decode(DEVICES, self._read(name)))
            at = {(tenant, device): i for i, (tenant, device) in enumerate(state["names"])}
            if not at.keys() >= set(keys):
                raise StateError(f"the stored segment {name} does not hold {keys[0]}")
            mine = np.sort([at[key] for key in keys])
            yield shard_of(*keys[0], engine.shards), part_of(engine, state, mine)

    def _read(self, name: str) -> bytes:
        if self._fetch is None:
            raise StateError(f"there is nowhere to read the stored segment {name} from")
        return self._fetch(name)


def part_of(engine: StreamEngine, state: State, keep: Int64) -> State:
    """Return the state of some of the devices in a state.

    :param engine: whose definitions it fits; :param keep: positions in its names, ascending.
    """
    if len(keep) == len(state["names"]):
        return state
    scratch = StreamEngine(engine.definitions, engine.rules, shards=1)
    series = snapshots.put(scratch, 0, state)
    part = snapshots.take(scratch, keep)
    place = np.empty(len(series), np.int64)
    place[series] = np.arange(len(series))
    at = place[snapshots.series_of(scratch, keep)]
    names = {tuple(name) for name in part["names"]}
    return {
        **state,
        **part,
        "detector": {name: values[at] for name, values in state["detector"].items()},
        **{name: state[name][at] for name in _PER_SERIES if name in state},
        "since": {
            window: [row for row in rows if tuple(row[:2]) in names]
            for window, rows in state["since"].items()
        },
    }
