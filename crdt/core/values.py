"""What a field may hold, how nested objects become fields, and what a path may look like."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TypeAlias

from crdt.core.errors import EditError

Value: TypeAlias = "bool | int | float | str | bytes | list[Value] | None"

PREFIXES = ("desired", "reported", "tags")
"""The parts of a twin: what was asked of it, what it says it is, and its tags."""
MAX_PATH_BYTES = 256
MAX_DEPTH = 16
_REMEMBERED = 16_384
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


def check_value(value: object, where: str, depth: int = 0) -> None:
    """Check that a value is one that a field may hold.

    :raises EditError: if it is of another type, an integer beyond 64 bits, NaN or infinite,
        text that is not Unicode, or a list nested deeper than ``MAX_DEPTH``.
    """
    if value is None or isinstance(value, bool | bytes):
        return
    if isinstance(value, int):
        if not _INT_MIN <= value <= _INT_MAX:
            raise EditError("integer-too-big", f"{where}: {value} does not fit in 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise EditError("not-finite", f"{where}: {value} is no number that can be compared")
    elif isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, list):
        if depth >= MAX_DEPTH:
            raise EditError("too-deep", f"{where}: lists may nest {MAX_DEPTH} deep")
        for index, item in enumerate(value):
            check_value(item, f"{where}[{index}]", depth + 1)
    else:
        raise EditError(
            "bad-type",
            f"{where}: {type(value).__name__} cannot be kept in a field; use null, a boolean, an "
            "integer, a number, text, bytes, or a list of these",
        )


def check_element(element: object, where: str) -> None:
    """Check that a value can be an element of a set: what a field may hold, but null and lists.

    :raises EditError: if it is not.
    """
    if element is None or isinstance(element, list):
        raise EditError("bad-type", f"{where}: an element is a boolean, a number, text or bytes")
    check_value(element, where)


def check_path(path: str) -> None:
    """Check a path such as ``desired.interval_s``.

    :raises EditError: if it is too long, has an empty or unprintable segment, or does not begin
        with one of ``PREFIXES``.
    """
    if len(path.encode("utf-8", "replace")) > MAX_PATH_BYTES:
        raise EditError("bad-path", f"{path[:40]!r}...: a path has at most {MAX_PATH_BYTES} bytes")
    segments = path.split(".")
    if segments[0] not in PREFIXES or len(segments) < 2 or len(segments) > MAX_DEPTH:
        raise EditError(
            "bad-path",
            f"{path!r}: a path is one of {', '.join(PREFIXES)}, a dot and a name, such as "
            f"desired.interval_s, at most {MAX_DEPTH} levels deep",
        )
    if not all(segment and segment.isprintable() for segment in segments):
        raise EditError("bad-path", f"{path!r}: every level needs a printable name")


def flatten(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the leaves of nested objects as (path, value); a dotted key is a path already.

    :raises EditError: if a key is not text, or objects nest deeper than ``MAX_DEPTH``.
    """
    if prefix.count(".") > MAX_DEPTH:
        raise EditError("too-deep", f"{prefix[:40]!r}: objects may nest {MAX_DEPTH} deep")
    for key, value in tree.items():
        if not isinstance(key, str):
            raise EditError("bad-path", f"{key!r} under {prefix!r}: names of fields are text")
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@lru_cache(maxsize=_REMEMBERED)
def parents(path: str) -> tuple[str, ...]:
    """Return the paths above a path, the longest first: none can hold a value beside it."""
    found = []
    while "." in path:
        path = path.rpartition(".")[0]
        found.append(path)
    return tuple(found)


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise EditError("not-unicode", f"{where}: {error.reason}") from error
