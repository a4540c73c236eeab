"""How concurrent cells of a field are read: pure functions of the cells.

A policy is a way of reading, not of storing: it may change at any time, and the next read
follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256

from crdt.core import cbor
from crdt.core.cells import Cell
from crdt.core.values import Value

EDGE, CLOUD = "edge", "cloud"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A field as it reads: one value, who wrote it, and what it was chosen over."""

    value: Value
    winner: Cell
    others: tuple[Cell, ...]
    """Concurrent cells that say something else, best first."""
    policy: str


@dataclass(frozen=True, slots=True)
class Policies:
    """(glob, policy) pairs, the first match counts; what none matches is ``latest``."""

    rules: tuple[tuple[str, str], ...] = ()

    def of(self, path: str) -> str:
        """Return the policy of a path."""
        return next((p for glob, p in self.rules if fnmatchcase(path, glob)), "latest")

    def fingerprint(self) -> str:
        """Return 12 hex digits; replicas read alike where these are equal."""
        return sha256(cbor.dumps([list(rule) for rule in self.rules])).hexdigest()[:12]


def side_of(actor: str) -> str:
    """Return ``edge`` or ``cloud``: the side that an actor writes from."""
    return actor.partition(":")[0]


def resolve(cells: Sequence[Cell], policy: str) -> Resolved:
    """Read a field from its undominated cells (at least one).

    :raises KeyError: if there is no such policy.
    """
    ranked = sorted(cells, key=_RANKS[policy], reverse=True)
    best = ranked[0]
    others = tuple(cell for cell in ranked[1:] if cell.payload() != best.payload())
    if policy == "keep-all" and others:
        kept = [cell.value for cell in (best, *others) if not cell.deleted]
        return Resolved(kept, best, others, policy)
    return Resolved(best.value, best, others, policy)


def _latest(cell: Cell) -> tuple[object, ...]:
    return (cell.hlc, cell.actor, cell.counter)


def _from(side: str) -> Callable[[Cell], tuple[object, ...]]:
    return lambda cell: (side_of(cell.actor) == side, *_latest(cell))


def _extreme(sign: int) -> Callable[[Cell], tuple[object, ...]]:
    """Numbers before anything else, then by size; a value before a deletion."""

    def rank(cell: Cell) -> tuple[object, ...]:
        number = isinstance(cell.value, int | float) and not isinstance(cell.value, bool)
        size = cell.value if number else 0
        return (not cell.deleted, number, sign * size, *_latest(cell))  # type: ignore[operator] # a number, see above

    return rank


_RANKS: dict[str, Callable[[Cell], tuple[object, ...]]] = {
    "latest": _latest,
    "edge-wins": _from(EDGE),
    "cloud-wins": _from(CLOUD),
    "min": _extreme(-1),
    "max": _extreme(1),
    "keep-all": _latest,
}
NAMES = tuple(_RANKS)
"""All policies."""
