"""The state of one device: its undominated cells and its conflict ledger.

Merging is a union of cells by name (the greater counter of an actor wins) from which dominated
cells are left out. A dominator has seen all that its victim had seen, so nothing comes back:
the merge is commutative, associative and idempotent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from crdt.core import cbor
from crdt.core.cells import Cell, vector_of
from crdt.core.errors import EditError
from crdt.core.hlc import Hlc
from crdt.core.ledger import LONGER_PATH, Conflict, conflict_between, merge_ledgers
from crdt.core.policies import Policies, Resolved, resolve
from crdt.core.values import Value, check_path, check_value, covers


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one twin."""

    max_fields: int = 512
    """Fields, deleted ones included, that edits may create."""
    max_value_bytes: int = 65_536
    max_bytes: int = 262_144
    """All values together that edits may create; concurrent ones of two sides may double it."""
    max_conflicts: int = 1_000
    """Ledger entries kept, the newest."""
    max_ledger_bytes: int = 131_072
    """Their encoded size: the oldest give way."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a merge did. Names of cells, keys of ledger entries."""

    cells: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.cells or self.conflicts)


@dataclass(slots=True)
class Twin:
    """One device's state. ``fields``: path -> actor -> cell, undominated ones only."""

    limits: Limits = field(default_factory=Limits)
    fields: dict[str, dict[str, Cell]] = field(default_factory=dict)
    ledger: dict[str, Conflict] = field(default_factory=dict)

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
        self, cells: Iterable[Cell], ledger: Mapping[str, Conflict], policies: Policies
    ) -> Change:
        """Take cells and ledger entries in; record conflicts that show for the first time."""
        added: dict[str, Cell] = {}
        dropped: list[str] = []
        seen: dict[str, Conflict] = dict(ledger)
        for cell in cells:
            losers = self._put(cell, policies, seen)
            if losers is not None:
                added[cell.name] = cell
                dropped += losers
        for path in dict.fromkeys(cell.path for cell in added.values()):
            seen.update(self._shadowed(path))
        conflicts = merge_ledgers(
            self.ledger, seen, self.limits.max_conflicts, self.limits.max_ledger_bytes
        )
        kept = tuple(name for name, cell in added.items() if self._holds(cell))
        gone = tuple(name for name in dict.fromkeys(dropped) if name not in kept)
        return Change(kept, gone, tuple(conflicts))

    def edit(
        self,
        sets: Mapping[str, Value],
        deletes: Iterable[str],
        *,
        actor: str,
        counter: int,
        hlc: Hlc,
    ) -> list[Cell]:
        """Return the cells of a local edit, which has seen all that is here. Changes nothing yet.

        What cannot stand beside a new value (a field above or below its path) is deleted.

        :raises EditError: if a path or value is bad, contradicts another, or a limit is met.
        """
        wanted: dict[str, tuple[Value, bool]] = dict.fromkeys(deletes, (None, True))
        wanted.update((path, (value, False)) for path, value in sets.items())
        for path, (value, deleted) in wanted.items():
            self._check(path, value, deleted)
        for path in sets:
            for other in sets:
                if covers(path, other):
                    raise EditError("contradiction", f"{path} and {other} cannot both have a value")
            for other, by_actor in self.fields.items():
                beside = covers(other, path) or covers(path, other)
                live = any(not cell.deleted for cell in by_actor.values())
                if beside and live and other not in wanted:
                    wanted[other] = (None, True)
        fields = len(self.fields.keys() | wanted.keys())
        if fields > self.limits.max_fields:
            raise EditError(
                "too-many-fields", f"{fields} fields; twins.max_fields = {self.limits.max_fields}"
            )
        cells = [
            Cell(path, actor, counter, self.vector(path), hlc, value, deleted)
            for path, (value, deleted) in wanted.items()
            if not deleted or path in self.fields
        ]
        if sets:
            self._check_size(cells)
        return cells

    def vector(self, path: str) -> dict[str, int]:
        """Return the version vector of a field."""
        return vector_of(self.fields.get(path, {}).values())

    def read(self, policies: Policies) -> dict[str, Resolved]:
        """Return every field that has a value, sorted by path.

        Where a field and one below it both have a value, the longer path counts.
        """
        found = {
            path: resolve(tuple(by_actor.values()), policies.of(path))
            for path, by_actor in sorted(self.fields.items())
        }
        live = {path: r for path, r in found.items() if not r.winner.deleted}
        parents = {parent for path in live for parent in _parents(path)}
        return {path: r for path, r in live.items() if path not in parents}

    def digest(self) -> str:
        """Return the hash of all undominated cells, hex: equal where two replicas agree."""
        cells = [[name, cell.encode()] for name, cell in self.cells().items()]
        return sha256(cbor.dumps(cells)).hexdigest()

    def ledger_digest(self) -> str:
        """Return the hash of the conflict ledger, hex."""
        entries = [[key, self.ledger[key].encode()] for key in sorted(self.ledger)]
        return sha256(cbor.dumps(entries)).hexdigest()

    def _put(self, cell: Cell, policies: Policies, seen: dict[str, Conflict]) -> list[str] | None:
        """Add a cell; return the names it dominates, or None if it is no news."""
        present = self.fields.get(cell.path, {})
        for other in present.values():
            if other.dominates(cell) or (
                other.actor == cell.actor and other.counter == cell.counter
            ):
                return None
        losers = [other for other in present.values() if cell.dominates(other)]
        kept = {actor: other for actor, other in present.items() if other not in losers}
        policy = policies.of(cell.path)
        for other in kept.values():
            entry = conflict_between(cell, other, policy)
            if entry is not None:
                seen.setdefault(entry.key, entry)
        self.fields[cell.path] = {**kept, cell.actor: cell}
        return [other.name for other in losers]

    def _holds(self, cell: Cell) -> bool:
        return self.fields[cell.path].get(cell.actor) is cell

    def _shadowed(self, path: str) -> dict[str, Conflict]:
        """Return the entries for fields above or below *path* that have a value as it has."""
        found: dict[str, Conflict] = {}
        mine = [cell for cell in self.fields[path].values() if not cell.deleted]
        for other in self.fields if mine else ():
            if not (covers(other, path) or covers(path, other)):
                continue
            for theirs in self.fields[other].values():
                for cell in mine if not theirs.deleted else ():
                    long, short = (cell, theirs) if covers(other, path) else (theirs, cell)
                    entry = Conflict(long, short, LONGER_PATH)
                    found[entry.key] = entry
        return found

    def _check_size(self, cells: Iterable[Cell]) -> None:
        """Check the size of all values, were these cells here; deleting is always allowed."""
        edited = {cell.path: [cell] for cell in cells}
        after = {path: list(by_actor.values()) for path, by_actor in self.fields.items()} | edited
        size = sum(len(cell.payload()) for cells in after.values() for cell in cells)
        if size > self.limits.max_bytes:
            raise EditError(
                "too-big",
                f"the twin would have {size} bytes; twins.max_bytes = {self.limits.max_bytes}",
            )

    def _check(self, path: str, value: Value, deleted: bool) -> None:
        check_path(path)
        if deleted:
            return
        check_value(value, path)
        size = len(cbor.dumps(value))
        if size > self.limits.max_value_bytes:
            raise EditError(
                "too-big",
                f"{path}: {size} bytes; twins.max_value_bytes = {self.limits.max_value_bytes}",
            )


def _parents(path: str) -> Iterable[str]:
    while "." in path:
        path = path.rpartition(".")[0]
        yield path
