"""Cells: what one actor wrote to one field, and what it had seen of that field.

A cell is named ``path@actor`` and only that actor writes it. *a* dominates *b* if its writer
had seen *b*: then *b* is history, whatever the clocks say. Cells of which neither dominates
are concurrent: a policy chooses between them (see :mod:`crdt.core.policies`). A cell of a counter
or set has seen only what it carries (see :mod:`crdt.core.sums`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from crdt.core import cbor
from crdt.core.hlc import Hlc
from crdt.core.kinds import COUNTER, REGISTER, SET, Sets, State, Tally
from crdt.core.values import Value

LIVES: Final = 16
"""Ended lives of a replica that a new cell of a register or latch still says it has seen."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell. ``value`` means nothing where ``deleted``, and is nothing of counters and sets."""

    path: str
    actor: str
    counter: int
    seen: Mapping[str, int]
    """Version vector of the field: actor -> greatest counter that the writer had seen."""
    hlc: Hlc
    value: Value = None
    deleted: bool = False
    kind: int = REGISTER
    state: State | Sets | None = None
    """Of a counter or set: what the actor did. Of a latch: who is known to have set it."""
    carried: Mapping[str, State] = field(default_factory=dict)
    """Of a counter or set: what ended lives did, as of their counter in ``seen``."""
    _encoded: list[bytes] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """``path@actor``."""
        return f"{self.path}@{self.actor}"

    @property
    def dot(self) -> str:
        """``actor:counter``, which with the path names this write for ever."""
        return f"{self.actor}:{self.counter}"

    @property
    def sums(self) -> bool:
        """Whether cells of its kind sum up instead of replacing each other."""
        return self.kind in (COUNTER, SET)

    def dominates(self, other: Cell) -> bool:
        """Whether the writer of this cell had seen the other one (of the same path)."""
        if self.actor == other.actor:
            return self.counter > other.counter
        return self.seen.get(other.actor, 0) >= other.counter

    def payload(self) -> bytes:
        """Return kind and content alone, encoded: two cells say the same if these are equal."""
        return cbor.dumps([self.kind, self._content()])

    def encode(self) -> bytes:
        """Return the deterministic encoding of everything but the name; made once."""
        if not self._encoded:
            fields = [self.kind, self._content(), self.counter, dict(self.seen), list(self.hlc)]
            self._encoded.append(cbor.dumps(fields))
        return self._encoded[0]

    def with_encoding(self, data: bytes) -> Cell:
        """Return this cell, which knows now that these bytes are its encoding."""
        self._encoded[:] = [data]
        return self

    def _content(self) -> list[object]:
        if self.state is None:
            return [] if self.deleted else [self.value]
        if isinstance(self.state, Sets):
            return [self.value, dict(self.state.known)]
        own = _plain(self.state)
        if not self.carried:
            return own
        return [*own, {actor: _plain(state) for actor, state in self.carried.items()}]


def vector_of(cells: Iterable[Cell]) -> dict[str, int]:
    """Return the version vector of a field: all that its cells are and have seen."""
    vector: dict[str, int] = {}
    for cell in cells:
        for actor, counter in (*cell.seen.items(), (cell.actor, cell.counter)):
            if counter > vector.get(actor, 0):
                vector[actor] = counter
    return vector


def recent(vector: Mapping[str, int], present: Iterable[str], lives: int = LIVES) -> dict[str, int]:
    """Return a version vector without the lives that ended long ago, so that it stays short.

    Kept are the actors of *present* cells and, of each replica, the latest lives. A replica that
    comes back with the cell of a forgotten life finds it concurrent instead of history: it shows
    as a conflict, and nothing is lost.
    """
    kept = set(present)
    by_replica: dict[str, list[tuple[int, str]]] = {}
    for actor in vector:
        if actor not in kept:
            by_replica.setdefault(replica_of(actor), []).append((life_of(actor), actor))
    for ended in by_replica.values():
        kept.update(actor for _, actor in sorted(ended)[-lives:])
    return {actor: counter for actor, counter in vector.items() if actor in kept}


def replica_of(actor: str) -> str:
    """Return the replica of which an actor is one life: ``edge:north`` of ``edge:north:7-3fa9``."""
    return actor.rpartition(":")[0]


def life_of(actor: str) -> int:
    """Return the number of a life, 7 of ``edge:north:7-3fa9``; 0 if its name has none."""
    digits = actor.rpartition(":")[2].partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else 0


def _plain(state: State) -> list[object]:
    if isinstance(state, Tally):
        return [state.added, state.taken]
    removed: dict[bytes, dict[str, int]] = {}
    for (key, actor), counter in sorted(state.removed.items()):
        removed.setdefault(key, {})[actor] = counter
    return [
        [[cbor.loads(key, "element"), what] for key, what in part]
        for part in (sorted(state.added.items()), removed.items())
    ]
