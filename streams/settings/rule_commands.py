"""The entries ``[[rules.commands]]``: what an edge has done by itself when a rule fires."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator

from streams.settings.sections import Positive, Section

PLACES = ("tenant", "site", "device", "metric", "rule")
"""Names that may stand in braces."""
_BRACES = re.compile(r"\{([^{}]*)\}")


class RuleCommand(Section):
    """A command that an edge gives when an alert of the rule changes."""

    when: Literal["firing", "resolved"] = "firing"
    """``firing``: when the first alert of the rule on a device fires; ``resolved``: when none does
    any more."""
    name: Annotated[str, Field(pattern=r"^[^/\x00-\x1f\x7f]{1,128}$")]
    """Of the command."""
    args: dict[str, JsonValue] = Field(default={})
    """What goes with it."""
    device: Annotated[str, Field(min_length=1)] = "{device}"
    """Who carries it out: a name, or a pattern of ``{tenant}``, ``{site}``, ``{device}``,
    ``{metric}`` and ``{rule}`` of the alert."""
    topic: Annotated[str, Field(min_length=1)] | None = None
    """A topic of the site's own broker, a pattern as ``device``: the command is published there.
    Without one it waits at the edge until its device asks for it (docs/twins.md)."""
    ttl_ms: Positive = 60_000
    """How long it may still be started, or published."""

    @field_validator("device", "topic")
    @classmethod
    def _is_pattern(cls, pattern: str | None) -> str | None:
        for name in _BRACES.findall(pattern or ""):
            if name not in PLACES:
                raise ValueError(f"{{{name}}} is not known; there are {', '.join(PLACES)}")
        return pattern

    @field_validator("topic")
    @classmethod
    def _is_topic(cls, topic: str | None) -> str | None:
        if topic is not None and any(sign in topic for sign in "+#\x00"):
            raise ValueError(f"{topic!r}: expected one topic to publish to, without + and #")
        return topic


def filled(pattern: str, names: Mapping[str, str]) -> str:
    """Return a pattern with the names in braces replaced."""
    return _BRACES.sub(lambda found: names[found[1]], pattern)
