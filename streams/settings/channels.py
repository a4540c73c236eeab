"""The section ``[[channels]]``."""

from __future__ import annotations

from fnmatch import fnmatchcase

from pydantic import Field, field_validator

from streams.extensions import CHANNELS
from streams.settings.plugged import Option, check_installed
from streams.settings.sections import Name, Positive, Section


class Channel(Section):
    """A way to deliver alerts beside webhooks, which a package adds."""

    name: Name
    """Names the channel in metrics and deliveries; no webhook may have the same name."""
    kind: Name
    """What a package adds under ``headwater.channels``."""
    options: dict[str, Option] = Field(default={})
    """For the channel, as its page says. Secrets belong in files that an option names."""
    timeout_ms: Positive = 10_000
    """Of one attempt."""
    tenants: list[str] = Field(default=["*"])
    """Globs: whose alerts this channel gets."""

    @field_validator("kind")
    @classmethod
    def _is_channel(cls, name: str) -> str:
        if name == "webhook":
            raise ValueError("webhooks have a section of their own: [[webhooks]]")
        return check_installed(CHANNELS, name)

    def takes(self, tenant: str) -> bool:
        """Whether alerts of a tenant go through this channel."""
        return any(fnmatchcase(tenant, glob) for glob in self.tenants)
