"""A hash index over columns: many integer keys looked up at once, without a Python loop over rows.

Open addressing with linear probing. Each round of a lookup decides most of the keys that are
left, so a batch takes a few numpy passes. An entry costs 8 to 16 bytes, where a dict of tuples
takes over 200.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from streams.core.readings import Int32, Int64

ABSENT = -1
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_LEAST_BITS = 6


class Index:
    """int64 keys to the int32 slots of rows that hold them.

    Only slots are kept here: the key of a slot is read from its row.

    :param keys_of: returns int64[n], the keys of the rows in some slots.
    """

    def __init__(self, keys_of: Callable[[Int32], Int64]) -> None:
        self._keys_of = keys_of
        self._clear(_LEAST_BITS)

    def find(self, keys: Int64) -> Int32:
        """Return the slot of each key, ``ABSENT`` where there is none."""
        place = self._home(keys)
        found = self._slots[place]
        rest = np.flatnonzero(found != ABSENT)
        if len(rest) == len(keys):
            rest = rest[self._keys_of(found) != keys]
        else:
            rest = rest[self._keys_of(found[rest]) != keys[rest]]
        while len(rest):
            place[rest] = (place[rest] + 1) & self._mask
            slot = self._slots[place[rest]]
            found[rest] = slot
            rest, slot = rest[slot != ABSENT], slot[slot != ABSENT]
            rest = rest[self._keys_of(slot) != keys[rest]]
        return found

    def add(self, slots: Int32) -> None:
        """Add rows, whose keys are distinct and not there yet."""
        if 2 * (self._n + len(slots)) > len(self._slots):
            slots = np.concatenate([self._slots[self._slots != ABSENT], slots])
            self._clear(_bits_for(len(slots)))
        self._n += len(slots)
        place = self._home(self._keys_of(slots))
        rest = np.arange(len(slots))
        while len(rest):
            free = rest[self._slots[place[rest]] == ABSENT]
            # Of several rows for one place the last stays; the others see it and go on.
            self._slots[place[free]] = slots[free]
            rest = rest[self._slots[place[rest]] != slots[rest]]
            place[rest] = (place[rest] + 1) & self._mask

    def replace(self, slots: Int32) -> None:
        """Hold these rows, and no others."""
        self._clear(_bits_for(len(slots)))
        self.add(slots)

    def _clear(self, bits: int) -> None:
        self._n = 0
        self._shift = np.uint64(64 - bits)
        self._mask = (1 << bits) - 1
        self._slots: Int32 = np.full(1 << bits, ABSENT, np.int32)

    def _home(self, keys: Int64) -> NDArray[np.int64]:
        scattered = (keys.view(np.uint64) * _MULTIPLIER) >> self._shift
        home: NDArray[np.int64] = scattered.view(np.int64)
        return home


def _bits_for(n: int) -> int:
    """Bits of a table that is at most half full with *n* keys, and at least a quarter."""
    return max(_LEAST_BITS, int(2 * n).bit_length())
