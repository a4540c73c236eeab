"""What a caller may ask of a twin, as JSON.

An object is fields and their new values, nested or dotted; null deletes (as RFC 7396 has it). An
array is operations, one object each (as RFC 6902 has it): ``set``, ``delete``, ``increment``,
``add``, ``remove``, ``release``, ``take-other``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from crdt.core.edits import Alter, Increment, Latch, Operation, Take
from crdt.core.errors import EditError
from crdt.core.kinds import LATCH
from crdt.core.policies import Policies
from crdt.core.values import Value, check_element, check_path, check_value, flatten

_EXAMPLE = '{"desired.interval_s": 5} or [{"op": "increment", "path": "reported.starts"}]'
_MAX_INT = 2**63 - 1
_FIELDS = {
    "set": ("path", "value"),
    "delete": ("path",),
    "increment": ("path", "by"),
    "add": ("path", "elements"),
    "remove": ("path", "elements"),
    "release": ("path",),
    "take-other": ("conflict",),
}


@dataclass(frozen=True, slots=True)
class EditRequest:
    """An edit as it was asked for."""

    sets: Mapping[str, Value]
    deletes: Sequence[str] = ()
    operations: Sequence[Operation] = ()


def parse_edit(data: bytes | None, policies: Policies) -> EditRequest:
    """Return what a JSON object or array asks for.

    :raises EditError: if it is neither, empty, or a path or value of it cannot be kept.
    """
    try:
        tree = orjson.loads(data or b"")
    except orjson.JSONDecodeError as error:
        raise EditError("malformed-json", f"an edit is JSON: {error}") from error
    return checked_edit(tree, policies)


def checked_edit(tree: object, policies: Policies) -> EditRequest:
    """As :func:`parse_edit`, of decoded JSON."""
    if not isinstance(tree, dict | list):
        raise EditError("malformed-json", f"an edit is an object or an array: {_EXAMPLE}")
    if not tree:
        raise EditError("empty-edit", f"nothing to change; give {_EXAMPLE}")
    found = _Asked(policies)
    if isinstance(tree, dict):
        for path, value in flatten(tree):
            if value is None:
                found.delete(path)
            else:
                found.set(path, value)
    else:
        for number, one in enumerate(tree):
            found.operation(number, one)
    if not (found.sets or found.deletes or found.operations):
        raise EditError("empty-edit", f"nothing to change; give {_EXAMPLE}")
    return EditRequest(found.sets, found.deletes, found.operations)


class _Asked:
    """What was read so far."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._alters: dict[str, Alter] = {}
        self.sets: dict[str, Value] = {}
        self.deletes: list[str] = []
        self._others: list[Operation] = []

    @property
    def operations(self) -> list[Operation]:
        return [*self._others, *self._alters.values()]

    def set(self, path: str, value: object) -> None:
        check_path(path)
        check_value(value, path)
        if self._policies.kind_of(path) == LATCH:
            if value is not True:
                raise EditError(
                    "wrong-kind",
                    f"{path} is a latch: it is set with true, and ended by the operation release",
                )
            self._others.append(Latch(path, on=True))
            return
        self._once(path)
        self.sets[path] = value  # type: ignore[assignment] # checked above

    def delete(self, path: str) -> None:
        check_path(path)
        self._once(path)
        self.deletes.append(path)

    def operation(self, number: int, one: object) -> None:
        name = one.get("op") if isinstance(one, dict) else None
        if not isinstance(one, dict) or not isinstance(name, str) or name not in _FIELDS:
            raise EditError(
                "bad-operation", f"[{number}]: expected an object with op: {', '.join(_FIELDS)}"
            )
        strange = sorted(set(one) - {"op", *_FIELDS[name]})
        if strange:
            raise EditError("bad-operation", f"[{number}]: {name} takes no {strange[0]!r}")
        if name == "take-other":
            self._others.append(Take(_text(one, "conflict", number)))
            return
        path = _text(one, "path", number)
        match name:
            case "set":
                self._set_operation(path, one, number)
            case "delete":
                self.delete(path)
            case "increment":
                self._others.append(Increment(path, _by(one, number)))
            case "release":
                self._others.append(Latch(path, on=False))
            case _:
                self._alter(path, _elements(one, number, path), adds=name == "add")
        check_path(path)

    def _set_operation(self, path: str, one: Mapping[str, Any], number: int) -> None:
        if "value" not in one and self._policies.kind_of(path) != LATCH:
            raise EditError("bad-operation", f"[{number}]: set needs a value")
        self.set(path, one.get("value", True))

    def _alter(self, path: str, elements: tuple[Value, ...], *, adds: bool) -> None:
        known = self._alters.get(path, Alter(path))
        self._alters[path] = Alter(
            path,
            known.adds + (elements if adds else ()),
            known.removes + (() if adds else elements),
        )

    def _once(self, path: str) -> None:
        if path in self.sets or path in self.deletes:
            raise EditError("contradiction", f"{path} is given twice")


def _text(one: Mapping[str, Any], name: str, number: int) -> str:
    value = one.get(name)
    if not isinstance(value, str) or not value:
        raise EditError("bad-operation", f"[{number}]: {one['op']} needs {name}, a text")
    return value


def _by(one: Mapping[str, Any], number: int) -> int:
    by = one.get("by", 1)
    if not isinstance(by, int) or isinstance(by, bool) or not -_MAX_INT <= by <= _MAX_INT:
        raise EditError("bad-operation", f"[{number}]: by is an integer of 64 bits, found {by!r}")
    return by


def _elements(one: Mapping[str, Any], number: int, path: str) -> tuple[Value, ...]:
    elements = one.get("elements")
    if not isinstance(elements, list) or not elements:
        raise EditError("bad-operation", f"[{number}]: {one['op']} needs elements, an array")
    for element in elements:
        check_element(element, path)
    return tuple(elements)
