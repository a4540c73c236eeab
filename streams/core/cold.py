"""Which devices are away, and in which segment of stored state each lies.

A device that has been quiet for long leaves memory: what is known of it lies in a *segment*,
together with others of its shard, and here 20 bytes tell where. They are a hash of its name, long
enough (128 bits) that two devices never share one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.core.placement import device_key
from streams.core.readings import Bool, Int32, Int64

HASH_BYTES = 16
Hashes = NDArray[Any]
"""``S16[n]``: hashes of devices."""


def hashes_of(named: Iterable[Sequence[str]]) -> Hashes:
    """Return the hashes of devices, given as tenant and name."""
    found = [
        blake2b(device_key(tenant, device), digest_size=HASH_BYTES).digest()
        for tenant, device in named
    ]
    return np.asarray(found, f"S{HASH_BYTES}")


class Cold:
    """The devices of one partition that are away.

    :param shards: of the partition.
    """

    def __init__(self, shards: int) -> None:
        self.count = np.zeros(shards, np.int64)
        """Of each shard: how many of its devices are away."""
        self._ids: list[str] = []
        self._shard: list[int] = []
        self._live = np.zeros(0, np.int64)
        self._hash: Hashes = np.empty(0, f"S{HASH_BYTES}")
        self._segment = np.empty(0, np.int32)

    def __len__(self) -> int:
        return len(self._hash)

    def add(self, segment: str, shard: int, hashes: Hashes) -> None:
        """Note that devices lie in a segment from now on, wherever they lay before."""
        self.remove(hashes)
        number = len(self._ids)
        self._ids.append(segment)
        self._shard.append(shard)
        self._live = np.append(self._live, len(hashes))
        hashes = np.sort(hashes)
        at = np.searchsorted(self._hash, hashes)
        self._hash = np.insert(self._hash, at, hashes)
        self._segment = np.insert(self._segment, at, np.int32(number))
        self.count[shard] += len(hashes)

    def remove(self, hashes: Hashes) -> list[str]:
        """Note that devices are here; return the segment in which each lay, empty for none."""
        at, there = self._find(hashes)
        found = [""] * len(hashes)
        for i in np.flatnonzero(there).tolist():
            number = int(self._segment[at[i]])
            found[i] = self._ids[number]
            self._live[number] -= 1
            self.count[self._shard[number]] -= 1
        gone = np.unique(at[there])
        if len(gone):
            self._hash = np.delete(self._hash, gone)
            self._segment = np.delete(self._segment, gone)
            self._forget_empty()
        return found

    def segments(self, shard: int) -> list[str]:
        """Return the segments of a shard in which any device lies, the oldest first."""
        every = zip(self._ids, self._shard, self._live.tolist(), strict=True)
        return [segment for segment, of, live in every if of == shard and live]

    def _find(self, hashes: Hashes) -> tuple[Int64, Bool]:
        """Return where each hash is, and whether it is there."""
        at = np.searchsorted(self._hash, hashes)
        there = np.zeros(len(hashes), np.bool_)
        inside = at < len(self._hash)
        there[inside] = self._hash[at[inside]] == hashes[inside]
        return at, there

    def _forget_empty(self) -> None:
        """Give up the numbers of segments that nobody lies in, when they are many."""
        kept = np.flatnonzero(self._live > 0)
        if len(kept) > len(self._ids) // 2 or len(self._ids) < _LEAST:
            return
        new: Int32 = np.full(len(self._ids), -1, np.int32)
        new[kept] = np.arange(len(kept), dtype=np.int32)
        self._ids = [self._ids[i] for i in kept.tolist()]
        self._shard = [self._shard[i] for i in kept.tolist()]
        self._live = self._live[kept]
        self._segment = new[self._segment]


_LEAST = 64
