"""Expressions of rules in CEL (Common Expression Language), bounded in what they cost.

There are no macros (``all``, ``exists``, ``map``, ``filter``), the one kind of loop that CEL has,
so an expression takes time in proportion to its length, and its length is capped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

import cel
from prometheus_client import Counter

from streams.core.window_rules import Condition

MAX_SIGNS = 100
"""Names, numbers, texts and operators of one expression: a bound on the tree that it makes."""
MAX_DEPTH = 16
"""Brackets inside brackets."""
FUNCTIONS = ("size", "contains", "startsWith", "endsWith", "int", "double", "string")
_FAILED = Counter(
    "headwater_rules_expression_errors", "Expressions that gave no answer.", ["error"]
)
_SIGN = re.compile(
    r"""\s+|(?P<text>"[^"\\\n]*"|'[^'\\\n]*')"""
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)"
    r"|(?P<other>&&|\|\||[<>=!]=|[-+*/%<>!?:.,()\[\]])"
)


def check(text: str, *, max_characters: int) -> None:
    """See whether an expression may be used.

    :raises ValueError: if it is too long, costs too much, or cannot be compiled; with the reason.
    """
    if len(text) > max_characters:
        raise ValueError(f"the expression has {len(text)} characters, at most {max_characters}")
    _check_signs(_signs(text))
    _compiled(text)


def variables(text: str) -> list[str]:
    """Return the names that a checked expression uses."""
    return list(_compiled(text).variables())


def condition(text: str) -> Condition:
    """Return a checked expression as a condition.

    It says nothing where it gives no truth value, or fails: types that CEL does not mix
    (``mean + 1`` instead of ``mean + 1.0``), a text that is no number. Failures are counted.
    """
    program = _compiled(text)

    def holds(given: Mapping[str, float | str]) -> bool | None:
        try:
            said = program.execute(dict(given))
        except (ValueError, TypeError, ArithmeticError, RuntimeError, LookupError) as error:
            _FAILED.labels(type(error).__name__).inc()
            return None
        if not isinstance(said, bool):
            _FAILED.labels("no truth value").inc()
            return None
        return said

    return Condition(text, tuple(program.variables()), holds)


@cache
def _compiled(text: str) -> cel.Program:
    try:
        return cel.compile(text)
    except ValueError as error:
        said = str(error).splitlines()[0].removeprefix(f"Failed to parse expression '{text}': ")
        raise ValueError(f"not an expression: {said}") from error


def _signs(text: str) -> list[tuple[str, str]]:
    """Cut a text into kinds and signs; what is not known is refused, whatever CEL makes of it."""
    signs: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        found = _SIGN.match(text, at)
        if found is None:
            raise ValueError(f"{text[at]!r} at character {at + 1} is not allowed in an expression")
        if found.lastgroup is not None:
            signs.append((found.lastgroup, found.group()))
        at = found.end()
    return signs


def _check_signs(signs: list[tuple[str, str]]) -> None:
    if len(signs) > MAX_SIGNS:
        raise ValueError(
            f"the expression has {len(signs)} names, numbers and operators, at most {MAX_SIGNS}"
        )
    depth = 0
    for (kind, sign), (_, following) in zip(signs, [*signs[1:], ("", "")], strict=True):
        depth += (sign in ("(", "[")) - (sign in (")", "]"))
        if depth > MAX_DEPTH:
            raise ValueError(f"the expression has brackets {depth} deep, at most {MAX_DEPTH}")
        if kind == "name" and following == "(" and sign not in FUNCTIONS:
            raise ValueError(
                f"{sign}(...) is not allowed in an expression; there are {', '.join(FUNCTIONS)}"
            )
        if kind == "name" and following[:1] in ("'", '"') and sign != "in":
            raise ValueError(f"a text may not begin with {sign}: write plain quotes")
