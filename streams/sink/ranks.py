"""Which rank of each result has been written: a lower one never replaces a higher one.

The log can say a window's revision 0 again after revision 1: a worker that crashed repeats
what it produced since its last checkpoint, and a sink that crashed reads again. Both repeat
the higher revision too, but in between a reader would see the clock go back.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

Key = tuple[str, ...]
Place = tuple[str, ...]
RETRACTED: Place = ("\x00retracted",)
"""The place of a result that has been taken back: no point holds it."""


class Held(NamedTuple):
    """Where a result of a window stands, and the place of the point that holds it (a site and a
    source, or RETRACTED)."""

    rank: int
    """Of :func:`streams.core.results.standing`."""
    place: Place


class Ranks:
    """Remembered ranks by (kind, series..., window, start), the least recently used forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[Key, Held] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    def learn(self, key: Key, new: Held) -> Place | None:
        """Remember that a result is written; one of lower rank than known changes nothing.

        :returns: the place whose point has lost and is to be deleted, if there is one.
        """
        known = self._held.get(key, new)
        wins, loses = (new, known) if new.rank >= known.rank else (known, new)
        self._held[key] = wins
        self._held.move_to_end(key)
        while len(self._held) > self._limit:
            self._held.popitem(last=False)
        return None if loses.place in (wins.place, RETRACTED) else loses.place

    def may_write(self, key: Key, rank: int) -> bool:
        """Whether *rank* is at least what is known."""
        return key not in self._held or rank >= self._held[key].rank

    def clear(self) -> None:
        """Forget everything: somebody else may have written since."""
        self._held.clear()
