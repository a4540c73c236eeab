"""Counters and sets: each actor's part is its own, a field is read from all parts.

A part is known by the counter that its actor had when it wrote it. It stands in the actor's own
cell, or in the cell of a later life that carries it; the part with the greatest counter counts.
So it never matters who carried what, how often, or whether a life that was thought to have ended
goes on: nothing is counted twice, nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from crdt.core import cbor
from crdt.core.cells import Cell, life_of, recent, replica_of
from crdt.core.errors import EditError
from crdt.core.kinds import COUNTER, Dots, State, Tally
from crdt.core.values import Value

_MAX_INT: Final = 2**63 - 1
_MAX_CARRIED: Final = 256
"""Ended lives of one replica that a cell of a later one carries one by one."""
_MAX_SEEN: Final = 512
"""Ended lives of one replica of which a cell still says that it counts in what they did."""

Parts = Mapping[str, tuple[int, State]]
"""Actor -> its counter and what it did."""


def parts_of(cells: Iterable[Cell]) -> dict[str, tuple[int, State]]:
    """Return the newest known part of every actor, from cells of one counter or set."""
    parts: dict[str, tuple[int, State]] = {}
    for cell in cells:
        assert isinstance(cell.state, Tally | Dots)
        own = (cell.actor, cell.counter, cell.state)
        carried = ((actor, cell.seen[actor], state) for actor, state in cell.carried.items())
        for actor, counter, state in (own, *carried):
            known = parts.get(actor)
            if known is None or counter > known[0]:
                parts[actor] = (counter, state)
            elif counter == known[0] and isinstance(state, Dots) and state != known[1]:
                parts[actor] = (counter, _either(state, known[1]))
    return parts


def total(cells: Sequence[Cell]) -> int:
    """Return the value of a counter."""
    tallies = [state for _, state in parts_of(cells).values() if isinstance(state, Tally)]
    return sum(tally.added - tally.taken for tally in tallies)


def members(cells: Sequence[Cell]) -> list[Value]:
    """Return the elements of a set, in the order of their encodings."""
    return [cbor.loads(key, "element") for key in sorted(_live(parts_of(cells)))]


def counted(cells: Sequence[Cell], actor: str, by: int, path: str) -> State:
    """Return the actor's part of a counter once it was changed.

    :raises EditError: if the counter would leave 64 bits.
    """
    own = parts_of(cells).get(actor, (0, Tally()))[1]
    assert isinstance(own, Tally)
    after = replace(own, added=own.added + max(by, 0), taken=own.taken + max(-by, 0))
    if max(after.added, after.taken, abs(total(cells) + by)) > _MAX_INT:
        raise EditError("integer-too-big", f"{path}: the counter would not fit in 64 bits")
    return after


def changed(
    cells: Sequence[Cell], actor: str, counter: int, adds: Sequence[Any], removes: Sequence[Any]
) -> State:
    """Return the actor's part of a set once elements were added and removed."""
    parts = parts_of(cells)
    live = _live(parts)
    own = parts.get(actor, (0, Dots()))[1]
    assert isinstance(own, Dots)
    gone = {cbor.dumps(element) for element in removes}
    added = {
        key: n for key, n in own.added.items() if actor in live.get(key, {}) and key not in gone
    }
    added |= {cbor.dumps(element): counter for element in adds}
    removed = dict(own.removed)
    for key in gone:
        removed |= {(key, who): n for who, n in live.get(key, {}).items() if who != actor}
    return Dots(added, {at: n for at, n in removed.items() if _still_needed(at, n, parts)})


def _still_needed(at: tuple[bytes, str], counter: int, parts: Parts) -> bool:
    """Whether a removal must be remembered: not once its actor is known to list it no more."""
    key, actor = at
    known, state = parts.get(actor, (0, Dots()))
    assert isinstance(state, Dots)
    return known < counter or state.added.get(key, counter + 1) <= counter


def carrying(cell: Cell, cells: Sequence[Cell]) -> Cell:
    """Return a cell that also carries the parts of the ended lives of its writer's replica.

    Only for who knows all that they wrote: parts that turn up later still count, but in their own
    cells.
    """
    replica = replica_of(cell.actor)
    mine = {
        actor: part
        for actor, part in parts_of(cells).items()
        if actor != cell.actor and replica_of(actor) == replica
    }
    seen, carried, state = dict(cell.seen), dict(cell.carried), cell.state
    for actor, (counter, part) in mine.items():
        seen[actor] = max(counter, seen.get(actor, 0))
        carried[actor] = part
    if cell.kind == COUNTER and len(carried) > _MAX_CARRIED:
        for actor in sorted(carried, key=lambda a: (life_of(a), a))[:-_MAX_CARRIED]:
            old = carried.pop(actor)
            assert isinstance(old, Tally)
            assert isinstance(state, Tally)
            state = Tally(state.added + old.added, state.taken + old.taken)
    if cell.kind != COUNTER:
        live = _live(parts_of([*cells, cell]))
        recently = set(recent(seen, (), _MAX_CARRIED))
        trimmed = {a: _trimmed(a, part, live) for a, part in carried.items()}
        # An empty part still says that older ones of its actor are over.
        carried = {a: p for a, p in trimmed.items() if p.added or p.removed or a in recently}
    seen = recent(seen, carried, _MAX_SEEN)
    return replace(cell, seen=seen, carried=carried, state=state)


def _trimmed(actor: str, part: State, live: Mapping[bytes, Mapping[str, int]]) -> Dots:
    assert isinstance(part, Dots)
    added = {key: n for key, n in part.added.items() if actor in live.get(key, {})}
    return replace(part, added=added)


def _live(parts: Parts) -> dict[bytes, dict[str, int]]:
    """Return the elements of a set, each with the actors that hold it and since when."""
    states = {a: state for a, (_, state) in parts.items() if isinstance(state, Dots)}
    removed: dict[tuple[bytes, str], int] = {}
    for state in states.values():
        for at, counter in state.removed.items():
            removed[at] = max(counter, removed.get(at, 0))
    live: dict[bytes, dict[str, int]] = {}
    for actor, state in states.items():
        for key, counter in state.added.items():
            if counter > removed.get((key, actor), 0):
                live.setdefault(key, {})[actor] = counter
    return live


def _either(one: State, other: State) -> State:
    """Return the part of a set that two cells carry, each without what it knew to be over.

    What one of them left out was removed, and whoever removed it may have forgotten that since.
    """
    assert isinstance(one, Dots)
    assert isinstance(other, Dots)
    added = {key: n for key, n in one.added.items() if other.added.get(key) == n}
    return Dots(added, {**other.removed, **one.removed})
