"""Closed windows that are not in memory: which *shelf* of stored state holds which of them.

A shelf holds windows of one definition and one shard. A window is in memory or on one shelf, never
on both: when one is wanted, all of its shelf come back. What is on a shelf can be told from its
own bytes; here is only where to look.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.core.placement import device_key
from streams.core.readings import Int32, Int64
from streams.core.registry import NEVER

Keys = NDArray[np.uint64]
"""Hashes of (series, start): of 64 bits, so one that is found may be another's."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)


def keys_of(named: Sequence[Sequence[str]], series: Int32 | Int64, start_ms: Int64) -> Keys:
    """Return the keys of windows.

    :param named: tenant, device and metric of some series; *series* are positions in it.
    """
    found = [
        blake2b(device_key(tenant, device) + b"\0" + metric.encode(), digest_size=8).digest()
        for tenant, device, metric in named
    ]
    of_series = np.frombuffer(b"".join(found), "<u8").astype(np.uint64)
    mixed = of_series[series] + start_ms.view(np.uint64) * _MULTIPLIER
    keys: Keys = (mixed ^ (mixed >> _SHIFT)) * _MULTIPLIER
    return keys


@dataclass(frozen=True, slots=True)
class Shelf:
    """One shelf: its name, and what it takes to know whether to look there."""

    id: str
    written: str
    """The definition, as stored state names it."""
    due_ms: int
    """Log time at which most of its windows are beyond their horizon: then it is looked through."""
    first_ms: int
    last_ms: int
    """The least and the greatest start."""
    without: tuple[int, ...] = ()
    """Positions of windows that changed while they were being stored: these are in memory."""

    def spans(self, start_ms: Int64) -> NDArray[np.bool_]:
        """Return which starts may be here."""
        inside: NDArray[np.bool_] = (start_ms >= self.first_ms) & (start_ms <= self.last_ms)
        return inside


class Shelves:
    """The shelves of one partition, by shard."""

    def __init__(self, shards: int) -> None:
        self._of: list[dict[str, Shelf]] = [{} for _ in range(shards)]

    def __len__(self) -> int:
        return sum(len(shelves) for shelves in self._of)

    def add(self, shard: int, shelf: Shelf) -> None:
        """Note a shelf that is stored now."""
        self._of[shard][shelf.id] = shelf

    def remove(self, shard: int, shelf: Shelf) -> None:
        """Note that what was on a shelf is in memory."""
        del self._of[shard][shelf.id]

    def of(self, shard: int) -> list[Shelf]:
        """Return the shelves of a shard, the oldest first."""
        return list(self._of[shard].values())

    def due(self, now_ms: int) -> Iterator[tuple[int, Shelf]]:
        """Yield the shelves that are to be looked through, and the shard of each."""
        for shard in range(len(self._of)):
            yield from ((shard, shelf) for shelf in self.of(shard) if shelf.due_ms <= now_ms)

    def first_due_ms(self) -> Int64:
        """Return int64[shards]: the log time at which each shard's next shelf is due."""
        return np.asarray([min((s.due_ms for s in of.values()), default=NEVER) for of in self._of])

    def state(self, shard: int) -> list[dict[str, Any]]:
        """Return the shelves of a shard for its snapshot."""
        return [asdict(shelf) for shelf in self.of(shard)]

    def restore(self, shard: int, state: Sequence[dict[str, Any]]) -> None:
        """Load what :meth:`state` returned, and forget all else of the shard."""
        shelves = [Shelf(**{**one, "without": tuple(one["without"])}) for one in state]
        self._of[shard] = {shelf.id: shelf for shelf in shelves}
