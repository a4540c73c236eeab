"""What is valid in settings, and yet hardly meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from streams.settings.loader import Settings

_GLOB = frozenset("*?[")


def doubts(settings: Settings) -> list[str]:
    """Return a sentence for each metric that a rule names and ``[metrics]`` does not.

    Metrics need no entry there, so it is no error; where there are none at all, nothing is said.
    """
    known = list(settings.metrics)
    if not known:
        return []
    return [
        f"rule {rule.name!r} looks at {name!r}, which is not in [metrics]{_guess(name, known)}"
        for rule in settings.rules
        for name in (*rule.metrics, *([rule.with_metric] if rule.with_metric else []))
        if name not in known and not _GLOB & set(name)
    ]


def _guess(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
