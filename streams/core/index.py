"""A hash index over columns: many integer keys looked up at once, without a Python loop over rows.

Open addressing with linear probing. Each round of a lookup decides most of the keys that are
left, so a batch takes a few numpy passes. An entry costs 24 to 48 bytes, where a dict of tuples
takes over 200.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.core.readings import Int32, Int64

ABSENT = -1
_EMPTY = np.iinfo(np.int64).min
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_LEAST_BITS = 6


class Index:
    """int64 keys (any but the least int64) to int32 slots."""

    def __init__(self) -> None:
        self._clear(_LEAST_BITS)

    def __len__(self) -> int:
        return self._n

    def find(self, keys: Int64) -> Int32:
        """Return the slot of each key, ``ABSENT`` where there is none."""
        place = self._home(keys)
        held = self._keys[place]
        found = np.where(held == keys, self._slots[place], np.int32(ABSENT))
        rest = np.flatnonzero((held != keys) & (held != _EMPTY))
        while len(rest):
            place[rest] = (place[rest] + 1) & self._mask
            held, wanted = self._keys[place[rest]], keys[rest]
            hit = held == wanted
            found[rest[hit]] = self._slots[place[rest[hit]]]
            rest = rest[~hit & (held != _EMPTY)]
        return found

    def add(self, keys: Int64, slots: Int32) -> None:
        """Add keys that are distinct and not there yet."""
        if 2 * (self._n + len(keys)) > len(self._keys):
            self._grow(self._n + len(keys))
        self._n += len(keys)
        place = self._home(keys)
        rest = np.arange(len(keys))
        while len(rest):
            free = rest[self._keys[place[rest]] == _EMPTY]
            # Of several keys for one place the last stays; the others see it and go on.
            self._keys[place[free]] = keys[free]
            mine = self._keys[place[rest]] == keys[rest]
            self._slots[place[rest[mine]]] = slots[rest[mine]]
            rest = rest[~mine]
            place[rest] = (place[rest] + 1) & self._mask

    def replace(self, keys: Int64, slots: Int32) -> None:
        """Hold these keys, and no others."""
        self._clear(_bits_for(len(keys)))
        self.add(keys, slots)

    def _clear(self, bits: int) -> None:
        self._n = 0
        self._shift = np.uint64(64 - bits)
        self._mask = (1 << bits) - 1
        self._keys: Int64 = np.full(1 << bits, _EMPTY, np.int64)
        self._slots: Int32 = np.empty(1 << bits, np.int32)

    def _grow(self, n: int) -> None:
        used = self._keys != _EMPTY
        keys, slots = self._keys[used], self._slots[used]
        self._clear(_bits_for(n))
        self.add(keys, slots)

    def _home(self, keys: Int64) -> NDArray[np.int64]:
        scattered = (keys.view(np.uint64) * _MULTIPLIER) >> self._shift
        home: NDArray[np.int64] = scattered.view(np.int64)
        return home


def _bits_for(n: int) -> int:
    """Bits of a table that is at most half full with *n* keys, and at least a quarter."""
    return max(_LEAST_BITS, int(2 * n).bit_length())
