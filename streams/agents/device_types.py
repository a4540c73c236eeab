"""Which type a device is of."""

from __future__ import annotations

from collections.abc import Sequence

from streams.core.rollups import NO_GROUP
from streams.settings import DeviceType

_MOST_REMEMBERED = 1_000_000


class TypeOf:
    """The first type that takes a device; no group for a device of none."""

    def __init__(self, types: Sequence[DeviceType]) -> None:
        self._types = list(types)
        self._known: dict[tuple[str, str, str], str] = {}

    def __call__(self, tenant: str, site: str, device: str) -> str:
        """Return the name of the type."""
        key = tenant, site, device
        found = self._known.get(key)
        if found is None:
            fitting = (one.name for one in self._types if one.takes(*key))
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            found = self._known[key] = next(fitting, NO_GROUP)
        return found
