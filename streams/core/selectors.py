"""Which rules look at which series: globs over tenant, site, device and metric."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from typing import NamedTuple

import numpy as np

from streams.core.readings import Bool, Int32

Globs = tuple[str, ...]
_ANY: Globs = ("*",)
_LIMIT = 100_000


class Names(NamedTuple):
    """What names a series."""

    tenant: str
    site: str
    device: str
    metric: str


@dataclass(frozen=True, slots=True)
class Selector:
    """Shell globs, any of a list; all four must match."""

    tenants: Globs = _ANY
    sites: Globs = _ANY
    devices: Globs = _ANY
    metrics: Globs = _ANY


class Selection:
    """Looks up which of many selectors match a series.

    Selectors share most of their globs, so that each distinct list of globs is tried once per name,
    and only once for all series of a tenant, site or metric.
    """

    def __init__(self, selectors: Sequence[Selector]) -> None:
        self._parts = (
            _Part([s.tenants for s in selectors]),
            _Part([s.sites for s in selectors]),
            _Part([s.devices for s in selectors], remembers=False),
            _Part([s.metrics for s in selectors]),
        )

    def of(self, names: Names) -> Int32:
        """Return int32: the selectors that match, in their order."""
        tenant, site, device, metric = (
            part.matching(name) for part, name in zip(self._parts, names, strict=True)
        )
        return np.flatnonzero(tenant & site & device & metric).astype(np.int32)


@dataclass(slots=True)
class _Part:
    """One of the four names."""

    globs: Sequence[Globs]
    remembers: bool = True
    _distinct: list[re.Pattern[str] | None] = field(init=False)
    _which: Int32 = field(init=False)
    _known: dict[str, Bool] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        order = list(dict.fromkeys(self.globs))
        self._distinct = [_pattern(globs) for globs in order]
        index = {globs: i for i, globs in enumerate(order)}
        self._which = np.asarray([index[globs] for globs in self.globs], np.int32)

    def matching(self, name: str) -> Bool:
        """Return bool[selectors]."""
        known = self._known.get(name)
        if known is None:
            flags = [p is None or p.match(name) is not None for p in self._distinct]
            known = np.asarray(flags, np.bool_)[self._which]
            if self.remembers:
                if len(self._known) >= _LIMIT:
                    self._known.clear()
                self._known[name] = known
        return known


def _pattern(globs: Globs) -> re.Pattern[str] | None:
    """Return one expression for all globs; ``None`` for those that match everything."""
    if "*" in globs:
        return None
    return re.compile("|".join(f"(?:{translate(glob)})" for glob in globs))
