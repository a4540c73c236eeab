"""Which rank of each window result has been written: a lower one never replaces a higher one.

The log can say a window's revision 0 again after revision 1: a worker that crashed repeats
what it produced since its last checkpoint, and a sink that crashed reads again. Both repeat
the higher revision too, but in between a reader would see the clock go back.
"""

from __future__ import annotations

from collections import OrderedDict

Key = tuple[str, ...]


class Ranks:
    """Remembered ranks by (series..., window, start), the least recently used forgotten first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ranks: OrderedDict[Key, int] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._ranks

    def learn(self, key: Key, rank: int) -> None:
        """Remember that *rank* is written; a lower one than known changes nothing."""
        self._ranks[key] = max(rank, self._ranks.get(key, rank))
        self._ranks.move_to_end(key)
        while len(self._ranks) > self._limit:
            self._ranks.popitem(last=False)

    def may_write(self, key: Key, rank: int) -> bool:
        """Whether *rank* is at least what is known."""
        return rank >= self._ranks.get(key, rank)
