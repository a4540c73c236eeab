"""Which type a device is of, and which tags it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streams.core.rollups import NO_GROUP
from streams.core.selectors import Traits
from streams.settings import DeviceTag, DeviceType

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


def traits_by(
    types: Sequence[DeviceType], tags: Sequence[DeviceTag]
) -> Callable[[str, str, str], Traits]:
    """Return what tells the traits of a device by its tenant, site and name."""
    type_of = TypeOf(types)

    def traits_of(tenant: str, site: str, device: str) -> Traits:
        names = tuple(tag.name for tag in tags if tag.takes(tenant, site, device))
        return Traits(type_of(tenant, site, device), names)

    return traits_of
