"""The state of one device: its undominated cells and its conflict ledger.

Merging is a union of cells by name (the greater counter of an actor wins) from which dominated
cells are left out. A dominator has seen all that its victim had seen, so nothing comes back:
the merge is commutative, associative and idempotent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from hashlib import sha256

from crdt.core import cbor
from crdt.core.cells import Cell
from crdt.core.edits import Draft, Operation, Stamp
from crdt.core.kinds import LATCH
from crdt.core.ledger import LONGER_PATH, Conflict, conflict_between, merge_ledgers
from crdt.core.limits import Limits
from crdt.core.policies import TRUST_ALL, Policies, Resolved, read_field
from crdt.core.values import Value, parents


@dataclass(frozen=True, slots=True)
class Change:
    """What a merge did. Names of cells, keys of ledger entries."""

    cells: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    ahead: tuple[str, ...] = ()
    """Cells that came with a clock further ahead than is believed."""

    def __bool__(self) -> bool:
        return bool(self.cells or self.conflicts)


@dataclass(slots=True)
class Twin:
    """One device's state. ``fields``: path -> actor -> cell, undominated ones only."""

    limits: Limits = field(default_factory=Limits)
    fields: dict[str, dict[str, Cell]] = field(default_factory=dict)
    ledger: dict[str, Conflict] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def cells(self) -> dict[str, Cell]:
        """Return all cells by name, sorted."""
        found = (cell for by_actor in self.fields.values() for cell in by_actor.values())
        return dict(sorted((cell.name, cell) for cell in found))

    def cell(self, name: str) -> Cell:
        """Return the cell of that name.

        :raises KeyError: if there is none.
        """
        path, _, actor = name.rpartition("@")
        return self.fields[path][actor]

    def merge(
        self,
        cells: Iterable[Cell],
        ledger: Mapping[str, Conflict],
        policies: Policies,
        trusted_until_ms: int = TRUST_ALL,
    ) -> Change:
        """Take cells and ledger entries in; record conflicts that show for the first time.

        :param trusted_until_ms: clocks later than this lose against others, and are reported.
        """
        self._digests.clear()
        added: dict[str, Cell] = {}
        dropped: list[str] = []
        seen: dict[str, Conflict] = dict(ledger)
        for cell in cells:
            losers = self._put(cell, policies, trusted_until_ms, seen)
            if losers is not None:
                added[cell.name] = cell
                dropped += losers
        seen.update(self._shadowed({cell.path for cell in added.values()}))
        conflicts = merge_ledgers(
            self.ledger, seen, self.limits.max_conflicts, self.limits.max_ledger_bytes
        )
        kept = tuple(name for name, cell in added.items() if self._holds(cell))
        gone = tuple(name for name in dict.fromkeys(dropped) if name not in kept)
        ahead = tuple(name for name in kept if added[name].hlc.ms > trusted_until_ms)
        return Change(kept, gone, tuple(conflicts), ahead)

    def edit(
        self,
        sets: Mapping[str, Value],
        deletes: Iterable[str],
        operations: Iterable[Operation] = (),
        *,
        stamp: Stamp,
        policies: Policies,
    ) -> list[Cell]:
        """Return the cells of a local edit, which has seen all that is here. Changes nothing yet.

        What cannot stand beside a new value (a field above or below its path) is deleted.

        :raises EditError: if a path or value is bad, is of another kind, contradicts another, or a
            limit is met.
        """
        draft = Draft(self.fields, self.ledger, self.limits, policies, stamp)
        return draft.cells(sets, deletes, operations)

    def carry(self, stamp: Stamp, policies: Policies) -> list[Cell]:
        """Return the cells in which a replica carries the parts of its ended lives, if any."""
        return Draft(self.fields, self.ledger, self.limits, policies, stamp).carrying_cells()

    def read(self, policies: Policies, trusted_until_ms: int = TRUST_ALL) -> dict[str, Resolved]:
        """Return every field that has a value, sorted by path.

        Where a field and one below it both have a value, the longer path counts; a latch always
        shows.

        :param trusted_until_ms: clocks later than this lose against others.
        """
        found = {
            path: read_field(tuple(by_actor.values()), policies.of(path), trusted_until_ms)
            for path, by_actor in sorted(self.fields.items())
        }
        live = {path: r for path, r in found.items() if not r.winner.deleted}
        above = {parent for path in live for parent in parents(path)}
        return {path: r for path, r in live.items() if path not in above or r.winner.kind == LATCH}

    def is_news(self, cell: Cell) -> bool:
        """Whether merging a cell would change anything."""
        return not any(
            other.dominates(cell) or (other.actor, other.counter) == (cell.actor, cell.counter)
            for other in self.fields.get(cell.path, {}).values()
        )

    def digest(self) -> str:
        """Return the hash of all undominated cells, hex: equal where two replicas agree."""
        if "cells" not in self._digests:
            cells = [[name, cell.encode()] for name, cell in self.cells().items()]
            self._digests["cells"] = sha256(cbor.dumps(cells)).hexdigest()
        return self._digests["cells"]

    def ledger_digest(self) -> str:
        """Return the hash of the conflict ledger, hex."""
        if "ledger" not in self._digests:
            entries = [[key, self.ledger[key].encode()] for key in sorted(self.ledger)]
            self._digests["ledger"] = sha256(cbor.dumps(entries)).hexdigest()
        return self._digests["ledger"]

    def _put(
        self, cell: Cell, policies: Policies, trusted_until_ms: int, seen: dict[str, Conflict]
    ) -> list[str] | None:
        """Add a cell; return the names it dominates, or None if it is no news."""
        if not self.is_news(cell):
            return None
        present = self.fields.get(cell.path, {})
        losers = [other for other in present.values() if cell.dominates(other)]
        kept = {actor: other for actor, other in present.items() if other not in losers}
        policy = policies.of(cell.path)
        for other in kept.values():
            entry = conflict_between(cell, other, policy, trusted_until_ms)
            if entry is not None:
                seen.setdefault(entry.key, entry)
        self.fields[cell.path] = {**kept, cell.actor: cell}
        return [other.name for other in losers]

    def _holds(self, cell: Cell) -> bool:
        return self.fields[cell.path].get(cell.actor) is cell

    def _shadowed(self, written: Set[str]) -> dict[str, Conflict]:
        """Return the entries for fields that have a value above or below one just written."""
        found: dict[str, Conflict] = {}
        for long in self.fields if written else ():
            for short in parents(long):
                if short in self.fields and (short in written or long in written):
                    for one in self._valued(long):
                        for other in self._valued(short):
                            entry = Conflict(one, other, LONGER_PATH)
                            found[entry.key] = entry
        return found

    def _valued(self, path: str) -> list[Cell]:
        return [cell for cell in self.fields[path].values() if not cell.deleted]
