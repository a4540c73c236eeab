"""The section ``[commands]``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from streams.settings.sections import Positive, Section


class Commands(Section):
    """Commands to devices."""

    default_ttl_ms: Positive = 60_000
    """How long a command may still be started, if whoever sends it does not say."""
    max_ttl_ms: Positive = 604_800_000
    """Longest time that may be asked for."""
    max_open: Annotated[int, Field(gt=0, le=10_000)] = 64
    """Commands of a device that have not ended; a further one ends as ``refused``."""
    max_args_bytes: Annotated[int, Field(gt=0, le=262_144)] = 16_384
    """Of the arguments, and of the result, of one command."""
    retention_ms: Positive = 86_400_000
    """A command whose end nobody told for so long behind its deadline is ``lost``."""
    remember_ms: Positive = 2_592_000_000
    """How long the id of an ended command is remembered: what comes again in that time is known."""
    max_remembered: Annotated[int, Field(gt=0, le=100_000)] = 1_024
    """Ids of ended commands that are remembered: of each device in the cloud, of all at an edge."""
    max_listed: Positive = 100_000
    """Commands that the api process keeps ready to be listed, the newest."""
