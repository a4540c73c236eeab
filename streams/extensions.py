"""What other packages add to Headwater: entry points, found by group and name."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

SINKS = "headwater.sinks"
"""Targets of the sink process: a callable that takes the settings and returns a
:class:`streams.sink.target.Target`."""


def names(group: str) -> list[str]:
    """Return what is installed under a group, sorted."""
    return sorted(entry_points(group=group).names)


def load(group: str, name: str) -> Any:
    """Return the object behind a name.

    :raises LookupError: if nothing of that name is installed.
    """
    for found in entry_points(group=group, name=name):
        return found.load()
    raise LookupError(f"{name!r} is not installed under {group}; found {', '.join(names(group))}")
