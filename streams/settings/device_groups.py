"""The sections ``[[types]]`` and ``[[tags]]``: what devices have in common."""

from __future__ import annotations

from fnmatch import fnmatchcase

from pydantic import Field, model_validator

from streams.settings.sections import Globs, Name, Section


class DeviceGlobs(Section):
    """Chooses devices."""

    devices: Globs = Field(default=["*"])
    """Globs; a device is meant if all three match."""
    sites: Globs = Field(default=["*"])
    """Globs."""
    tenants: Globs = Field(default=["*"])
    """Globs."""

    @model_validator(mode="after")
    def _selects(self) -> DeviceGlobs:
        if (self.devices, self.sites, self.tenants) == (["*"], ["*"], ["*"]):
            raise ValueError(
                "it needs devices, sites or tenants: without one it takes every device; a roll-up "
                'of all has group = "tenant", and a rule looks at all unless told otherwise'
            )
        return self

    def takes(self, tenant: str, site: str, device: str) -> bool:
        """Whether a device is meant."""
        pairs = ((tenant, self.tenants), (site, self.sites), (device, self.devices))
        return all(any(fnmatchcase(name, glob) for glob in globs) for name, globs in pairs)


class DeviceType(DeviceGlobs):
    """A type of devices; of several that match a device the first counts."""

    name: Name
    """Names the group in results of roll-ups, and what ``types`` of rules match."""


class DeviceTag(DeviceGlobs):
    """A tag of devices, which may have several."""

    name: Name
    """What ``tags`` of rules match."""
