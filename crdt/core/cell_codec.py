"""Cells from bytes: strict, so that equal cells have equal bytes and nothing else is a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from crdt.core import cbor
from crdt.core.cells import Cell
from crdt.core.errors import EditError, WireError
from crdt.core.hlc import Hlc
from crdt.core.kinds import COUNTER, KIND_NAMES, LATCH, SET, Dots, Sets, State, Tally
from crdt.core.values import check_element, check_path, check_value

_MAX_ACTOR_BYTES: Final = 200
_MAX_SEEN: Final = 1_024
"""Actors in the version vector of one cell."""
_MAX_INT = 2**63 - 1
_OVERHEAD_BYTES = 16


def decode(name: str, data: bytes, max_value_bytes: int) -> Cell:
    """Decode a cell.

    :raises WireError: if name or bytes are not those of a cell, or it is too big.
    """
    path, at, actor = name.rpartition("@")
    if not at or not _is_actor(actor):
        raise WireError("bad-cell", f"{name[:80]!r}: a cell is named path@actor")
    fields = cbor.loads(data, f"cell {name[:80]!r}")
    try:
        check_path(path)
        cell = _checked(path, actor, fields)
    except EditError as error:
        raise WireError(error.reason, error.detail) from error
    if len(data) > max_value_bytes:
        size = len(cell.payload())
        if size > max_value_bytes + _OVERHEAD_BYTES:
            raise WireError("too-big", f"{path}: {size} bytes; at most {max_value_bytes} are kept")
    return cell.with_encoding(data)


def _checked(path: str, actor: str, fields: Any) -> Cell:
    match fields:
        case [kind, list(content), counter, dict(seen), [ms, n]] if (
            _is_count(kind)
            and _is_count(counter)
            and _is_count(ms)
            and _is_count(n)
            and len(seen) <= _MAX_SEEN
            and all(_is_actor(a) and _is_count(c) for a, c in seen.items())
        ):
            if kind not in KIND_NAMES:
                raise WireError("unknown-kind", f"{path}: cells of kind {kind} are not known here")
            hlc = Hlc(ms, n)
            if kind in (COUNTER, SET):
                state, carried = _summed(path, kind, content, seen)
                return Cell(path, actor, counter, seen, hlc, None, False, kind, state, carried)
            if kind == LATCH:
                on, sets = _latched(path, content)
                return Cell(path, actor, counter, seen, hlc, on, False, kind, sets)
            if len(content) <= 1:
                for value in content:
                    check_value(value, path)
                value = content[0] if content else None
                return Cell(path, actor, counter, seen, hlc, value, not content)
    raise WireError(
        "bad-cell", f"{path}: expected kind, payload, counter, version vector and clock"
    )


def _latched(path: str, content: list[Any]) -> tuple[bool, Sets]:
    match content:
        case [bool(on), dict(known)] if all(
            _is_actor(a) and _is_count(c) for a, c in known.items()
        ):
            return on, Sets(known)
    raise WireError("bad-cell", f"{path}: a latch is set or released, and knows who set it")


def _summed(
    path: str, kind: int, content: list[Any], seen: Mapping[str, int]
) -> tuple[State, dict[str, State]]:
    match content:
        case [one, two]:
            return _state(path, kind, one, two), {}
        case [one, two, dict(others)] if others and others.keys() <= seen.keys():
            carried = {}
            for actor, parts in others.items():
                if not isinstance(parts, list) or len(parts) != 2:
                    break
                carried[actor] = _state(path, kind, *parts)
            else:
                return _state(path, kind, one, two), carried
    raise WireError(
        "bad-cell",
        f"{path}: a {KIND_NAMES[kind]} has what its actor did, and what ended lives did that it "
        "has seen",
    )


def _state(path: str, kind: int, one: Any, two: Any) -> State:
    if kind == COUNTER:
        if _is_count(one) and _is_count(two):
            return Tally(one, two)
        raise WireError("bad-cell", f"{path}: a counter has what was added and what was taken")
    added = _by_element(path, one)
    gone = _by_element(path, two)
    if not all(map(_is_count, added.values())):
        raise WireError("bad-cell", f"{path}: an element was added at a counter of its actor")
    removed = {}
    for key, actors in gone.items():
        if not isinstance(actors, dict) or not actors:
            raise WireError(
                "bad-cell", f"{path}: an element is removed from the actors that had it"
            )
        for actor, counter in actors.items():
            if not _is_actor(actor) or not _is_count(counter):
                raise WireError("bad-cell", f"{path}: {actor!r} at {counter!r} is no adding")
            removed[key, actor] = counter
    return Dots(added, removed)


def _by_element(path: str, pairs: Any) -> dict[bytes, Any]:
    found: dict[bytes, Any] = {}
    for pair in pairs if isinstance(pairs, list) else [None]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise WireError("bad-cell", f"{path}: a set has elements that were added and removed")
        check_element(pair[0], path)
        found[cbor.dumps(pair[0])] = pair[1]
    # Order and repetitions must be those of the encoder, or equal sets would differ in bytes.
    if list(found) != sorted(found) or len(found) != len(pairs):
        raise WireError("not-canonical", f"{path}: elements are sorted, each is given once")
    return found


def _is_actor(value: object) -> bool:
    if not isinstance(value, str):
        return False
    return 0 < len(value.encode("utf-8", "replace")) <= _MAX_ACTOR_BYTES


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_INT
