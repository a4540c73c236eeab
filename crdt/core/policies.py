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
from crdt.core.kinds import COUNTER, KIND_NAMES, KINDS, LATCH, REGISTER, SET
from crdt.core.latches import releasing
from crdt.core.sums import members, total
from crdt.core.values import Value

EDGE, CLOUD = "edge", "cloud"
LATEST, LATCHED = "latest", "latch"
TRUST_ALL = 2**63 - 1
"""Every clock is believed."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A field as it reads: one value, who wrote it, and what it was chosen over."""

    value: Value
    winner: Cell
    others: tuple[Cell, ...]
    """Concurrent cells that say something else, best first."""
    policy: str
    """The policy of a register, the kind of anything else."""


@dataclass(frozen=True, slots=True)
class Policies:
    """(glob, policy) pairs, the first match counts; what none matches is a register, ``latest``.

    The name of a kind in place of a policy makes a field one of that kind. It says what edits may
    do; a field is read as what its cells are.
    """

    rules: tuple[tuple[str, str], ...] = ()

    def of(self, path: str) -> str:
        """Return the policy of a path; ``latest`` where it is no register."""
        rule = self._rule(path)
        return LATEST if rule in KINDS else rule

    def kind_of(self, path: str) -> int:
        """Return the kind that a path is to have."""
        return KINDS.get(self._rule(path), REGISTER)

    def fingerprint(self) -> str:
        """Return 12 hex digits; replicas read alike where these are equal."""
        return sha256(cbor.dumps([list(rule) for rule in self.rules])).hexdigest()[:12]

    def _rule(self, path: str) -> str:
        return next((p for glob, p in self.rules if fnmatchcase(path, glob)), LATEST)


def side_of(actor: str) -> str:
    """Return ``edge`` or ``cloud``: the side that an actor writes from."""
    return actor.partition(":")[0]


def read_field(cells: Sequence[Cell], policy: str, trusted_until_ms: int = TRUST_ALL) -> Resolved:
    """Read a field of any kind from its undominated cells (at least one).

    Where a concurrent change of kind left cells of several kinds, the greatest kind counts.
    """
    kind = max(cell.kind for cell in cells)
    counting = [cell for cell in cells if cell.kind == kind]
    others = tuple(cell for cell in cells if cell.kind != kind)
    if kind in (COUNTER, SET):
        value: Value = total(counting) if kind == COUNTER else members(counting)
        newest = max(counting, key=_latest(trusted_until_ms))
        return Resolved(value, newest, others, KIND_NAMES[kind])
    latched = kind == LATCH
    found = _read_latch(counting) if latched else resolve(counting, policy, trusted_until_ms)
    return Resolved(found.value, found.winner, (*found.others, *others), found.policy)


def _read_latch(cells: Sequence[Cell]) -> Resolved:
    release = releasing(cells)
    # A set before a release that did not know of it, then the latest.
    ranked = sorted(cells, key=lambda c: (c is release, c.value, c.hlc, c.actor), reverse=True)
    others = tuple(cell for cell in ranked[1:] if cell.payload() != ranked[0].payload())
    return Resolved(release is None, ranked[0], others, LATCHED)


def resolve(cells: Sequence[Cell], policy: str, trusted_until_ms: int = TRUST_ALL) -> Resolved:
    """Read a register from its undominated cells (at least one).

    :param trusted_until_ms: a clock later than this is not believed: it comes after all others.
    :raises KeyError: if there is no such policy.
    """
    ranked = sorted(cells, key=_RANKS[policy](trusted_until_ms), reverse=True)
    best = ranked[0]
    others = tuple(cell for cell in ranked[1:] if cell.payload() != best.payload())
    if policy == "keep-all" and others:
        kept = [cell.value for cell in (best, *others) if not cell.deleted]
        return Resolved(kept, best, others, policy)
    return Resolved(best.value, best, others, policy)


_Rank = Callable[[Cell], tuple[object, ...]]


def _latest(trusted_until_ms: int) -> _Rank:
    return lambda cell: (cell.hlc.ms <= trusted_until_ms, cell.hlc, cell.actor, cell.counter)


def _from(side: str) -> Callable[[int], _Rank]:
    def ranks(trusted_until_ms: int) -> _Rank:
        latest = _latest(trusted_until_ms)
        return lambda cell: (side_of(cell.actor) == side, *latest(cell))

    return ranks


def _extreme(sign: int) -> Callable[[int], _Rank]:
    """Numbers before anything else, then by size; a value before a deletion."""

    def ranks(trusted_until_ms: int) -> _Rank:
        latest = _latest(trusted_until_ms)

        def rank(cell: Cell) -> tuple[object, ...]:
            number = isinstance(cell.value, int | float) and not isinstance(cell.value, bool)
            size = cell.value if number else 0
            return (not cell.deleted, number, sign * size, *latest(cell))  # type: ignore[operator] # a number, see above

        return rank

    return ranks


_RANKS: dict[str, Callable[[int], _Rank]] = {
    "latest": _latest,
    "edge-wins": _from(EDGE),
    "cloud-wins": _from(CLOUD),
    "min": _extreme(-1),
    "max": _extreme(1),
    "keep-all": _latest,
}
NAMES = tuple(_RANKS)
"""All policies that a register may have."""
