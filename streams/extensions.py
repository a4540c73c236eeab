"""What other packages add to Headwater: entry points, found by group and name.

Headwater's own parts are registered in the same way, and no package may take their names.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from streams.errors import SettingsError

SINKS = "headwater.sinks"
"""Targets of the sink process: a callable that takes the settings and returns a
:class:`streams.sink.target.Target`."""
CODECS = "headwater.codecs"
"""Formats of readings: a :class:`streams.adapters.codecs.Codec`, which may be a module."""
DETECTORS = "headwater.detectors"
"""Causal detectors: a callable that takes ``[detection]`` and returns a
:class:`streams.agents.detectors.Detector`."""
AGGREGATES = "headwater.aggregates"
"""Aggregates that follow from others: a :class:`streams.agents.derived.Derived`."""
CHANNELS = "headwater.channels"
"""Ways to deliver alerts: a callable that takes an entry of ``[[channels]]`` and returns a
:class:`streams.alerts.channel.Channel`."""
GROUPS = (SINKS, CODECS, DETECTORS, AGGREGATES, CHANNELS)


@dataclass(frozen=True, slots=True)
class Installed:
    """One extension: its group and name, the package that brings it, and where it lies."""

    group: str
    name: str
    package: str
    version: str
    target: str

    @property
    def is_ours(self) -> bool:
        """Whether Headwater itself brings it."""
        return self.package == "headwater"


def installed(group: str) -> list[Installed]:
    """Return what is installed under a group, by name."""
    return list(_installed(group, tuple(sys.path)))


@cache
def _installed(group: str, _path: tuple[str, ...]) -> tuple[Installed, ...]:
    """Look once per path: it takes milliseconds, as every package is looked at."""
    found = {_about(point) for point in entry_points(group=group)}
    return tuple(sorted(found, key=lambda one: (one.name, one.package)))


def names(group: str) -> list[str]:
    """Return the names that are installed under a group, sorted."""
    return sorted({one.name for one in installed(group)})


def require(group: str, name: str) -> Installed:
    """Return what is installed under a name, without loading it.

    :raises SettingsError: if nothing is, naming what there is; or if two packages bring it.
    """
    found = [one for one in installed(group) if one.name == name]
    if not found:
        kind, there = group.partition(".")[2].removesuffix("s"), names(group)
        hint = (
            f"there are {', '.join(there)} (a package adds one under {group})"
            if there
            else "there are none, so Headwater is not installed as it is now: make setup"
        )
        raise SettingsError(f"no {kind} named {name} is installed; {hint}")
    if len(found) > 1:
        raise SettingsError(
            f"{name} is brought under {group} by several packages: "
            f"{', '.join(one.package for one in found)}; uninstall all but one"
        )
    return found[0]


def load(group: str, name: str) -> Any:
    """Return the object behind a name.

    :raises SettingsError: as :func:`require`; or if it cannot be imported.
    """
    about = require(group, name)
    point = next(iter(entry_points(group=group, name=name)))
    try:
        return point.load()
    except Exception as error:
        raise SettingsError(
            f"{name} of {about.package} {about.version} ({about.target}) cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error


def _about(point: EntryPoint) -> Installed:
    package, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
    return Installed(point.group, point.name, package, version, point.value)
