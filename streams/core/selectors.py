"""Which rules look at which series: globs over its names, and over its device's type and tags."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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


class Traits(NamedTuple):
    """What devices have in common."""

    type: str = ""
    """Empty: none."""
    tags: tuple[str, ...] = ()


def without_traits(tenant: str, site: str, device: str) -> Traits:
    """Return the traits of a device where there are neither types nor tags."""
    return Traits()


TraitsOf = Callable[[str, str, str], Traits]
"""Of a device by its tenant, site and name."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Shell globs, any of a list; all six must match. Of tags one has to."""

    tenants: Globs = _ANY
    sites: Globs = _ANY
    devices: Globs = _ANY
    metrics: Globs = _ANY
    types: Globs = _ANY
    tags: Globs = _ANY


EVERYTHING = Selector()


class Selection:
    """Looks up which of many selectors match a series.

    :param traits_of: asked only if a selector looks at types or tags.

    Selectors share most of their globs, so that each distinct list of globs is tried once per name,
    and only once for all series of a tenant, site or metric.
    """

    def __init__(self, selectors: Sequence[Selector], traits_of: TraitsOf = without_traits) -> None:
        self._parts = (
            _Part([s.tenants for s in selectors]),
            _Part([s.sites for s in selectors]),
            _Part([s.devices for s in selectors], remembers=False),
            _Part([s.metrics for s in selectors]),
        )
        self._types = _Part([s.types for s in selectors])
        self._tags = _Part([s.tags for s in selectors])
        self._any_tag = np.asarray(["*" in s.tags for s in selectors], np.bool_)
        self._traits_of = None if all(s.types == s.tags == _ANY for s in selectors) else traits_of

    def of(self, names: Names) -> Int32:
        """Return int32: the selectors that match, in their order."""
        tenant, site, device, metric = (
            part.matching(name) for part, name in zip(self._parts, names, strict=True)
        )
        found = tenant & site & device & metric
        if self._traits_of is not None and found.any():
            traits = self._traits_of(names.tenant, names.site, names.device)
            tagged = self._any_tag.copy()
            for tag in traits.tags:
                tagged |= self._tags.matching(tag)
            found = found & self._types.matching(traits.type) & tagged
        return np.flatnonzero(found).astype(np.int32)


@dataclass(slots=True)
class _Part:
    """One of the names that selectors look at."""

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
