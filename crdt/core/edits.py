"""Edits: what a caller wants of a twin, checked whole, and the cells that say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from crdt.core import cbor
from crdt.core.cells import Cell, recent, replica_of, vector_of
from crdt.core.errors import EditError
from crdt.core.hlc import Hlc
from crdt.core.kinds import COUNTER, KIND_NAMES, LATCH, REGISTER, SET, Dots, Tally
from crdt.core.latches import sets_known
from crdt.core.ledger import Conflict
from crdt.core.limits import Limits
from crdt.core.policies import Policies
from crdt.core.sums import carrying, changed, counted, parts_of
from crdt.core.values import Value, check_element, check_path, check_value, parents

_MAX_INT = 2**63 - 1
Fields: TypeAlias = Mapping[str, Mapping[str, Cell]]
"""path -> actor -> cell."""


@dataclass(frozen=True, slots=True)
class Increment:
    """Change a counter; negative takes from it."""

    path: str
    by: int = 1


@dataclass(frozen=True, slots=True)
class Alter:
    """Add elements to a set and remove others from it."""

    path: str
    adds: tuple[Value, ...] = ()
    removes: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Latch:
    """Set a latch, or release it."""

    path: str
    on: bool


@dataclass(frozen=True, slots=True)
class Take:
    """Write what a conflict did not choose, having seen both."""

    conflict: str
    """Key of the ledger entry."""


Operation: TypeAlias = Increment | Alter | Latch | Take


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who makes an edit, and when."""

    actor: str
    counter: int
    hlc: Hlc
    carries: bool = False
    """Whether ended lives of the same replica may be carried: all that they wrote is known."""


@dataclass(slots=True)
class Draft:
    """An edit on its way to cells. Changes nothing of the twin."""

    fields: Fields
    ledger: Mapping[str, Conflict]
    limits: Limits
    policies: Policies
    stamp: Stamp
    _wanted: dict[str, Cell] = field(default_factory=dict)

    def cells(
        self, sets: Mapping[str, Value], deletes: Iterable[str], operations: Iterable[Operation]
    ) -> list[Cell]:
        """Return the cells of an edit.

        :raises EditError: if a path or value is bad, is of another kind, contradicts another, or a
            limit is met.
        """
        for path in deletes:
            self._delete(path)
        for path, value in sets.items():
            self._put(path, value)
        for operation in operations:
            self._operate(operation)
        self._make_room()
        fields = len(self.fields.keys() | self._wanted.keys())
        if fields > self.limits.max_fields:
            raise EditError(
                "too-many-fields", f"{fields} fields; twins.max_fields = {self.limits.max_fields}"
            )
        cells = [c for c in self._wanted.values() if not c.deleted or c.path in self.fields]
        if any(not cell.deleted for cell in cells):
            self._check_size(cells)
        return cells

    def carrying_cells(self) -> list[Cell]:
        """Return cells that change nothing but carry what ended lives of the same replica did."""
        actor = self.stamp.actor
        made = []
        for path, by_actor in self.fields.items():
            kind = max(cell.kind for cell in by_actor.values())
            others = by_actor.keys() - {actor}
            if kind in (COUNTER, SET) and any(replica_of(a) == replica_of(actor) for a in others):
                nothing = Tally() if kind == COUNTER else Dots()
                own = parts_of(self._of_kind(path, kind)).get(actor, (0, nothing))[1]
                made.append(self._summing(path, kind, own))
        return made

    # -- one field ----------------------------------------------------------------------------

    def _put(self, path: str, value: Value) -> None:
        check_path(path)
        self._check_kind(path, REGISTER, "set to a value")
        check_value(value, path)
        self._want(self._replacing(path, value))

    def _delete(self, path: str) -> None:
        check_path(path)
        if self.policies.kind_of(path) == LATCH or self._is_latch(path):
            raise EditError("wrong-kind", f"{path} is a latch: it is released, never deleted")
        self._want(self._replacing(path, None, deleted=True))

    def _operate(self, operation: Operation) -> None:
        match operation:
            case Increment(path, by):
                self._begin(path, COUNTER, "incremented")
                if not -_MAX_INT <= by <= _MAX_INT:
                    raise EditError("integer-too-big", f"{path}: {by} does not fit in 64 bits")
                state = counted(self._of_kind(path, COUNTER), self.stamp.actor, by, path)
                self._want(self._summing(path, COUNTER, state))
            case Alter(path, adds, removes):
                self._begin(path, SET, "added to")
                for element in (*adds, *removes):
                    check_element(element, path)
                if {cbor.dumps(e) for e in adds} & {cbor.dumps(e) for e in removes}:
                    raise EditError("contradiction", f"{path}: an element is added and removed")
                present = self._of_kind(path, SET)
                stamp = self.stamp
                state = changed(present, stamp.actor, stamp.counter, adds, removes)
                self._want(self._summing(path, SET, state))
            case Latch(path, on):
                self._begin(path, LATCH, "released or set as a latch")
                stamp = self.stamp
                sets = sets_known(self._of_kind(path, LATCH), stamp.actor, stamp.counter, on=on)
                self._want(replace(self._replacing(path, on, kind=LATCH), state=sets))
            case Take(key):
                self._take(key)

    def _take(self, key: str) -> None:
        entry = self.ledger.get(key)
        if entry is None:
            raise EditError("no-such-conflict", f"{key[:120]!r}: the ledger has no such entry")
        other = entry.loser
        if other.sums:
            raise EditError("wrong-kind", f"{other.path}: a counter or set has no other side")
        if other.kind == LATCH:
            self._operate(Latch(other.path, other.value is True))
        elif other.deleted:
            self._delete(other.path)
        else:
            self._put(other.path, other.value)

    def _begin(self, path: str, kind: int, how: str) -> None:
        check_path(path)
        self._check_kind(path, kind, how)

    def _check_kind(self, path: str, kind: int, how: str) -> None:
        wanted = self.policies.kind_of(path)
        if kind != wanted:
            raise EditError(
                "wrong-kind",
                f"{path} is a {KIND_NAMES[wanted]} (twins.paths): it cannot be {how}",
            )

    def _want(self, cell: Cell) -> None:
        if cell.path in self._wanted:
            raise EditError("contradiction", f"{cell.path} is given twice")
        self._wanted[cell.path] = cell

    # -- cells --------------------------------------------------------------------------------

    def _replacing(
        self, path: str, value: Value, *, deleted: bool = False, kind: int = REGISTER
    ) -> Cell:
        present = self.fields.get(path, {})
        seen = recent(vector_of(present.values()), present)
        stamp = self.stamp
        return Cell(path, stamp.actor, stamp.counter, seen, stamp.hlc, value, deleted, kind)

    def _summing(self, path: str, kind: int, state: object) -> Cell:
        stamp, present = self.stamp, self.fields.get(path, {})
        own = present.get(stamp.actor)
        # Of its own kind it has seen what it carries; what was of another kind before is over.
        seen = vector_of(cell for cell in present.values() if cell.kind != kind)
        carried = {}
        if own is not None and own.kind == kind:
            seen = {**seen, **own.seen}
            carried = dict(own.carried)
        seen.pop(stamp.actor, None)
        cell = Cell(
            *(path, stamp.actor, stamp.counter, seen, stamp.hlc, None, False, kind),
            state,  # type: ignore[arg-type] # of that kind
            carried,
        )
        return carrying(cell, self._of_kind(path, kind)) if stamp.carries else cell

    def _of_kind(self, path: str, kind: int) -> Sequence[Cell]:
        return [cell for cell in self.fields.get(path, {}).values() if cell.kind == kind]

    # -- the whole ----------------------------------------------------------------------------

    def _make_room(self) -> None:
        """Delete what cannot stand beside a new value: fields above or below its path."""
        values = {path for path, cell in self._wanted.items() if not cell.deleted}
        for path in values:
            for parent in parents(path):
                if parent in values:
                    raise EditError(
                        "contradiction", f"{parent} and {path} cannot both have a value"
                    )
                self._displace(parent, path)
        for path in self.fields:
            for parent in parents(path):
                if parent in values:
                    self._displace(path, parent)

    def _displace(self, path: str, by: str) -> None:
        if path in self._wanted or all(c.deleted for c in self.fields.get(path, {}).values()):
            return
        if self._is_latch(path):
            raise EditError("contradiction", f"{by} cannot stand beside {path}, which is a latch")
        self._wanted[path] = self._replacing(path, None, deleted=True)

    def _is_latch(self, path: str) -> bool:
        return any(cell.kind == LATCH for cell in self.fields.get(path, {}).values())

    def _check_size(self, cells: Sequence[Cell]) -> None:
        """Check the size of all values, were these cells here; deleting is always allowed."""
        limits = self.limits
        for cell in cells:
            size = len(cell.payload())
            if size > limits.max_value_bytes + _OVERHEAD_BYTES:
                raise EditError(
                    "too-big",
                    f"{cell.path}: {size} bytes; twins.max_value_bytes = {limits.max_value_bytes}",
                )
        edited = {cell.path: [cell] for cell in cells}
        after = {path: list(by_actor.values()) for path, by_actor in self.fields.items()} | edited
        held = [cell for cells in after.values() for cell in cells]
        # What a cell is encoded as is kept, and never less than its payload.
        if sum(len(cell.encode()) for cell in held) <= limits.max_bytes:
            return
        size = sum(len(cell.payload()) for cell in held)
        if size > limits.max_bytes:
            raise EditError(
                "too-big", f"the twin would have {size} bytes; twins.max_bytes = {limits.max_bytes}"
            )


_OVERHEAD_BYTES = 3
"""Of a value in its payload."""
