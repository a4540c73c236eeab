"""Latches: a safety stop stays set until a release by someone who knew of every time it was set.

Two releases of which each knew only of another set do not release it together: neither writer
knew of both reasons to stop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from crdt.core.cells import Cell, recent
from crdt.core.kinds import Sets


def is_set(cells: Sequence[Cell]) -> bool:
    """Whether a latch is set, from its undominated cells."""
    return releasing(cells) is None


def releasing(cells: Sequence[Cell]) -> Cell | None:
    """Return the latest release that had seen every set, None while there is none."""
    known = _sets(cells)
    found = [cell for cell in cells if cell.value is False and _knows(cell, known)]
    return max(found, key=lambda cell: (cell.hlc, cell.actor)) if found else None


def sets_known(cells: Sequence[Cell], actor: str, counter: int, *, on: bool) -> Sets:
    """Return the sets that a new cell tells of: those since the last release, and itself."""
    known = _sets(cells)
    if not on:
        return Sets(recent(known, [cell.actor for cell in cells]))
    return Sets({**(known if cells and is_set(cells) else {}), actor: counter})


def _sets(cells: Iterable[Cell]) -> dict[str, int]:
    known: dict[str, int] = {}
    for cell in cells:
        assert isinstance(cell.state, Sets)
        for actor, counter in cell.state.known.items():
            known[actor] = max(counter, known.get(actor, 0))
    return known


def _knows(cell: Cell, known: dict[str, int]) -> bool:
    seen = {**cell.seen, cell.actor: cell.counter}
    return all(seen.get(actor, 0) >= counter for actor, counter in known.items())
