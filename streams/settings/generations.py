"""Generations of a window: what its definition is called when it changes under the same name.

Results are known by the name of their window. A window whose definition changes goes on as the
next *generation*, and its results carry ``minute@2`` where they carried ``minute``: nobody mixes
the old and the new. Users write and read the name without a number; no name of the file has an @.
"""

from __future__ import annotations

_MARK = "@"


def base_name(window: str) -> str:
    """Return the name as the settings have it: ``minute`` for ``minute@2``."""
    return window.partition(_MARK)[0]


def generation_of(window: str) -> int:
    """Return which generation a name of results is; what is no number counts as the first."""
    number = window.partition(_MARK)[2]
    return int(number) if number.isdigit() else 1


def generation_name(base: str, generation: int) -> str:
    """Return the name in results: the first generation has no number."""
    return base if generation == 1 else f"{base}{_MARK}{generation}"
