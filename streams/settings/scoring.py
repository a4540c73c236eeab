"""``[[scoring]]``: which trained models a worker scores, on which devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from streams.settings.sections import Globs, LocatedError, Name, Positive, Section
from streams.settings.windows import Window

Share = Annotated[float, Field(gt=0, le=1)]


class Scoring(Section):
    """A trained model, scored on the means of a window's results."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    """Of the model in the registry. Its scores have the metric ``model.NAME``."""
    window: Name = "1m"
    """The tumbling window whose means are the features: as long as the step it was trained with."""
    tenants: Globs = Field(default=["*"])
    """Globs: whose devices."""
    sites: Globs = Field(default=["*"])
    """Globs."""
    devices: Globs = Field(default=["*"])
    """Globs: only these are scored."""
    alarm_score: Annotated[float, Field(gt=0)] = 5.0
    """What a row on the model's threshold scores, so that one rule fits all detectors."""
    drift_share: Share = 0.05
    """Share of recent values outside of training, or of rows over the threshold, that is told as
    ``model.NAME.drift``, with ``alarm_score`` at this share."""
    drift_rows: Positive = 500
    """Rows of a device after which one has half its weight for drift; it is silent before."""
    max_devices: Positive = 100_000
    """In one partition; further ones are not scored, and counted."""
    promote_rows: Positive = 10_000
    """``headwater models promote --by-rule``: rows that both have scored,"""
    promote_alarms: Annotated[float, Field(gt=0)] = 1.0
    """alarms of the challenger for each of the champion's, at most,"""
    promote_agrees: Annotated[float, Field(ge=0, le=1)] = 0.5
    """and the share of the champion's alarms that it must have raised, too."""


def check_scoring(scoring: Sequence[Scoring], windows: Sequence[Window]) -> None:
    """Check what models are scored on.

    :raises LocatedError: if a window is unknown or does not tumble.
    """
    kinds = {window.name: window.kind for window in windows}
    for at, one in enumerate(scoring):
        if kinds.get(one.window) != "tumbling":
            tumbling = [name for name, kind in kinds.items() if kind == "tumbling"]
            raise LocatedError(
                ("scoring", at, "window"),
                f"{one.name!r} names the window {one.window!r}, expected one that tumbles: "
                f"{', '.join(tumbling) or 'there is none'}",
            )
