"""Cells: what one actor wrote to one field, and what it had seen of that field.

A cell is named ``path@actor`` and only that actor writes it. *a* dominates *b* if its writer
had seen *b*: then *b* is history, whatever the clocks say. Cells of which neither dominates
are concurrent: a policy chooses between them (see :mod:`crdt.core.policies`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from crdt.core import cbor
from crdt.core.errors import EditError, WireError
from crdt.core.hlc import Hlc
from crdt.core.values import Value, check_path, check_value

REGISTER: Final = 0
"""The kind of a cell; counters, sets and latches will have numbers of their own."""
_MAX_ACTOR_BYTES = 200
_MAX_INT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell. ``value`` means nothing where ``deleted``."""

    path: str
    actor: str
    counter: int
    seen: Mapping[str, int]
    """Version vector of the field: actor -> greatest counter that the writer had seen."""
    hlc: Hlc
    value: Value = None
    deleted: bool = False

    @property
    def name(self) -> str:
        """``path@actor``."""
        return f"{self.path}@{self.actor}"

    @property
    def dot(self) -> str:
        """``actor:counter``, which with the path names this write for ever."""
        return f"{self.actor}:{self.counter}"

    def dominates(self, other: Cell) -> bool:
        """Whether the writer of this cell had seen the other one (of the same path)."""
        if self.actor == other.actor:
            return self.counter > other.counter
        return self.seen.get(other.actor, 0) >= other.counter

    def payload(self) -> bytes:
        """Return kind and value alone, encoded: two cells say the same if these are equal."""
        return cbor.dumps([REGISTER, [] if self.deleted else [self.value]])

    def encode(self) -> bytes:
        """Return the deterministic encoding of everything but the name."""
        content = [] if self.deleted else [self.value]
        return cbor.dumps([REGISTER, content, self.counter, dict(self.seen), list(self.hlc)])


def vector_of(cells: Iterable[Cell]) -> dict[str, int]:
    """Return the version vector of a field: all that its cells are and have seen."""
    vector: dict[str, int] = {}
    for cell in cells:
        for actor, counter in (*cell.seen.items(), (cell.actor, cell.counter)):
            if counter > vector.get(actor, 0):
                vector[actor] = counter
    return vector


def decode(name: str, data: bytes, max_value_bytes: int) -> Cell:
    """Decode a cell.

    :raises WireError: if name or bytes are not those of a cell, or it is too big.
    """
    path, at, actor = name.rpartition("@")
    if not at or not actor or len(actor.encode("utf-8", "replace")) > _MAX_ACTOR_BYTES:
        raise WireError("bad-cell", f"{name[:80]!r}: a cell is named path@actor")
    fields = cbor.loads(data, f"cell {name[:80]!r}")
    try:
        check_path(path)
        cell = _checked(path, actor, fields)
        if not cell.deleted:
            check_value(cell.value, path)
    except EditError as error:
        raise WireError(error.reason, error.detail) from error
    size = len(cell.payload())
    if size > max_value_bytes + 16:
        raise WireError("too-big", f"{path}: {size} bytes; at most {max_value_bytes} are kept")
    return cell


def _checked(path: str, actor: str, fields: Any) -> Cell:
    match fields:
        case [kind, list(content), counter, dict(seen), [ms, n]] if (
            _is_count(kind)
            and len(content) <= 1
            and _is_count(counter)
            and _is_count(ms)
            and _is_count(n)
            and all(isinstance(a, str) and _is_count(c) for a, c in seen.items())
        ):
            if kind != REGISTER:
                raise WireError("unknown-kind", f"{path}: cells of kind {kind} are not known here")
            value = content[0] if content else None
            return Cell(path, actor, counter, seen, Hlc(ms, n), value, not content)
    raise WireError(
        "bad-cell", f"{path}: expected kind, payload, counter, version vector and clock"
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_INT
