"""What must be true in the end, from the history alone: no part of the engine decides it.

The model knows each write by its actor and number, and what its writer had seen of the field. It
never merges anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from crdt.core.cells import Cell, vector_of
from crdt.core.kinds import COUNTER, LATCH, SET, Dots, Sets, Tally
from crdt.core.sums import parts_of
from crdt.core.twin import Twin
from crdt.core.values import Value

Fields: TypeAlias = Mapping[str, Mapping[str, Cell]]
"""Path -> actor -> cell."""


@dataclass(frozen=True, slots=True)
class Write:
    """One acknowledged cell."""

    cell: Cell
    saw: Mapping[str, int]
    """Actor -> its newest write to the field that the writer knew, its own earlier ones too."""
    adds: frozenset[bytes] = frozenset()
    removes: frozenset[bytes] = frozenset()
    by: int = 0

    @property
    def at(self) -> tuple[str, int]:
        """Actor and number."""
        return self.cell.actor, self.cell.counter

    def knew(self, other: Write) -> bool:
        """Whether the writer had seen that write."""
        actor, counter = other.at
        return self.saw.get(actor, 0) >= counter


@dataclass(slots=True)
class Model:
    """All acknowledged writes."""

    writes: dict[str, list[Write]] = field(default_factory=dict)
    """By path."""
    torn: dict[str, int] = field(default_factory=dict)
    """Lives of which a restored backup lost writes -> the number of the last that was safe."""

    def acknowledge(self, before: Fields, cell: Cell) -> None:
        """Note a write that was made where *before* was known; see :func:`known_in`."""
        present = list(before.get(cell.path, {}).values())
        saw = known_of(present)
        adds: frozenset[bytes] = frozenset()
        removes: frozenset[bytes] = frozenset()
        by = 0
        if isinstance(cell.state, Tally):
            own = _part(present, cell.actor)
            was = own if isinstance(own, Tally) else Tally()
            by = cell.state.added - cell.state.taken - was.added + was.taken
        elif isinstance(cell.state, Dots):
            own = _part(present, cell.actor)
            adds = frozenset(k for k, n in cell.state.added.items() if n == cell.counter)
            before_keys = set(own.added) if isinstance(own, Dots) else set()
            had = own.removed if isinstance(own, Dots) else {}
            gone = {key for (key, who), n in cell.state.removed.items() if had.get((key, who)) != n}
            dropped = before_keys - cell.state.added.keys() - _over(present, cell.actor)
            removes = frozenset(gone | dropped)
        write = Write(cell, saw, adds, removes, by)
        self.writes.setdefault(cell.path, []).append(write)

    def violations(self, twin: Twin) -> Iterable[str]:
        """Yield what is wrong with the twin that all replicas came to."""
        for path, writes in self.writes.items():
            cells = list(twin.fields.get(path, {}).values())
            known = known_of(cells)
            safe = [w for w in writes if self._survives(w, known)]
            for write in safe:
                actor, counter = write.at
                if known.get(actor, 0) < counter:
                    yield f"{path}: the acknowledged write {actor}:{counter} is lost"
            kind = max((w.cell.kind for w in safe), default=None)
            if kind is None:
                continue
            if kind == COUNTER:
                expected: Value = sum(w.by for w in safe)
            elif kind == SET:
                expected = sorted(_held(safe))  # type: ignore[assignment] # encoded
            elif kind == LATCH:
                expected = _is_set(safe)
            else:
                yield from _concurrent(path, safe, cells)
                continue
            found = _shown(kind, cells)
            if found != expected:
                yield f"{path}: shows {found!r}, the history says {expected!r}"

    def _survives(self, write: Write, known: Mapping[str, int]) -> bool:
        actor, counter = write.at
        if actor not in self.torn or counter <= self.torn[actor]:
            return True
        # Lost with the disk, unless somebody had heard of it.
        return counter <= known.get(actor, 0)


def known_in(twin: Twin) -> Fields:
    """Return what a twin holds now, whatever becomes of it; cells themselves never change."""
    return {path: dict(by_actor) for path, by_actor in twin.fields.items()}


def known_of(cells: Iterable[Cell]) -> dict[str, int]:
    """Return actor -> its newest write to a field that these cells know of."""
    cells = list(cells)
    known = vector_of(cells)
    summing = [cell for cell in cells if cell.sums]
    for actor, (counter, _) in parts_of(summing).items():
        known[actor] = max(counter, known.get(actor, 0))
    return known


def _part(cells: Iterable[Cell], actor: str) -> Tally | Dots | None:
    part = parts_of([cell for cell in cells if cell.sums]).get(actor)
    return None if part is None else part[1]


def _over(cells: Iterable[Cell], actor: str) -> set[bytes]:
    """Return the elements of an actor that others removed: to list them no more is no removal."""
    parts = parts_of([cell for cell in cells if cell.sums])
    own = parts.get(actor, (0, None))[1]
    states = [state for _, state in parts.values() if isinstance(state, Dots)]
    if not isinstance(own, Dots):
        return set()
    return {
        key
        for key, counter in own.added.items()
        if any(state.removed.get((key, actor), 0) >= counter for state in states)
    }


def _held(writes: list[Write]) -> set[bytes]:
    return {
        key
        for write in writes
        for key in write.adds
        if not any(key in other.removes and other.knew(write) for other in writes)
    }


def _is_set(writes: list[Write]) -> bool:
    sets = [w for w in writes if w.cell.value is True]
    releases = [w for w in writes if w.cell.value is False]
    return bool(sets) and not any(all(r.knew(s) for s in sets) for r in releases)


def _concurrent(path: str, writes: list[Write], cells: list[Cell]) -> Iterable[str]:
    """Check that a register holds just the writes that nobody who wrote later had seen."""
    expected = {w.at for w in writes if not any(other.knew(w) for other in writes)}
    found = {(cell.actor, cell.counter) for cell in cells}
    if found != expected:
        yield f"{path}: holds {sorted(found)}, the history says {sorted(expected)}"


def _shown(kind: int, cells: list[Cell]) -> object:
    summing = [cell for cell in cells if cell.kind == kind]
    if kind == COUNTER:
        states = [state for _, state in parts_of(summing).values()]
        return sum(s.added - s.taken for s in states if isinstance(s, Tally))
    if kind == SET:
        from crdt.core import cbor
        from crdt.core.sums import members

        return sorted(cbor.dumps(element) for element in members(summing))
    from crdt.core.latches import is_set

    return is_set([cell for cell in summing if isinstance(cell.state, Sets)])
