"""The settings of a window definition: ``[[windows]]``."""

from __future__ import annotations

from functools import cache
from math import gcd
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import Field, ValidationInfo, field_validator, model_validator

from streams.settings.plugged import Aggregate
from streams.settings.sections import Ms, Name, Positive, Section

_zones = cache(available_timezones)
"""Names of time zones: to look for them is slow."""
MAX_SLICES = 10_000
"""Of one hopping window."""
MAX_LAST = 10_000
"""Readings of one sliding window over the last ones."""
MAX_SLIDING_MS = 7 * 86_400_000
"""Length of one sliding window over the last milliseconds."""
MAX_POINTS = 1_000_000
"""Readings that a series keeps for one definition."""
_NEEDS = {
    "tumbling": ("size_ms",),
    "hopping": ("size_ms", "step_ms"),
    "session": ("gap_ms",),
    "calendar": ("period",),
    "sliding": ("size_ms", "last"),
}


def check_zone(zone: str) -> str:
    """Return the name of a time zone.

    :raises ValueError: if it is none.
    """
    if zone not in _zones():
        raise ValueError(f"{zone!r} is no time zone; expected a name such as Europe/Berlin")
    return zone


class Window(Section):
    """A window definition."""

    name: Name
    """Names the window in results."""
    kind: Literal["tumbling", "hopping", "session", "calendar", "sliding"] = "tumbling"
    """``tumbling`` and ``hopping`` need ``size_ms``, ``hopping`` also ``step_ms``, ``session``
    needs ``gap_ms``, ``calendar`` needs ``period``, ``sliding`` needs ``size_ms`` or ``last``."""
    metrics: list[str] = Field(default=["*"])
    """Globs over metric names."""
    aggregates: list[Aggregate] = Field(default=[])
    """Beyond count, sum, min, max, mean and sd: ``first``, ``last``, ``delta``, ``rate`` (per
    second), ``trend`` (per second, by least squares), ``trend_last`` (the value of that line at the
    last reading), ``time_weighted_mean``, ``distinct`` (how many different values), and quantiles
    such as ``p50`` or ``p99.9``, right to 1 % of their value, and what a package adds under
    ``headwater.aggregates``."""
    size_ms: Positive | None = None
    """Windows are half-open: [start, start + size); a sliding one ends at a reading, and is at most
    7 days long."""
    last: Annotated[int, Field(gt=0, le=MAX_LAST)] | None = None
    """A sliding window over this many readings up to the one that it ends at, at most 10,000."""
    step_ms: Positive | None = None
    """A hopping window begins every so often; readings are folded once, whatever the overlap."""
    gap_ms: Positive | None = None
    """Readings less than this apart belong to one session."""
    period: Literal["day", "week", "month"] | None = None
    """Of a calendar window, from midnight to midnight; weeks begin on Monday."""
    zone: str = "UTC"
    """Time zone of a calendar window, such as ``Europe/Berlin``."""
    offset_ms: Ms = 0
    """Shifts the starts of tumbling and hopping windows from multiples of size or step."""
    grace_ms: Ms = 0
    """How far the watermark must pass the end before revision 0 is emitted."""
    horizon_ms: Ms = 3_600_000
    """How long after grace corrections are accepted; beyond it readings are late."""

    max_points: Annotated[int, Field(gt=1, le=MAX_POINTS)] = 10_000
    """Readings that a series keeps for its sliding windows, until the horizon (48 bytes each);
    beyond, the oldest are given up, and corrections that reach so far back with them. Of other
    windows: readings kept for ``time_weighted_mean`` and values for ``distinct``, per window (a
    hopping one: per slice); beyond, that aggregate is NaN."""

    @field_validator("size_ms")
    @classmethod
    def _is_not_too_long(cls, size_ms: int | None, given: ValidationInfo) -> int | None:
        if given.data.get("kind") == "sliding" and size_ms is not None and size_ms > MAX_SLIDING_MS:
            raise ValueError(
                f"a sliding window is at most {MAX_SLIDING_MS} ms long (7 days), because it keeps "
                "every reading; take a hopping one"
            )
        return size_ms

    @field_validator("zone")
    @classmethod
    def _is_zone(cls, zone: str) -> str:
        return check_zone(zone)

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Window:
        needs = _NEEDS[self.kind]
        if self.kind == "sliding":
            if (self.size_ms is None) == (self.last is None):
                raise ValueError("a sliding window needs size_ms or last, not both")
            needs = ("size_ms",) if self.last is None else ("last",)
        for field in ("size_ms", "step_ms", "gap_ms", "period", "last"):
            given = getattr(self, field) is not None
            if given != (field in needs):
                verb = "needs" if field in needs else "has no"
                raise ValueError(
                    f"a {self.kind} window {verb} {field}; it takes {', '.join(needs)}"
                )
        self._has_bounded_state()
        return self

    def _has_bounded_state(self) -> None:
        if self.kind == "hopping":
            assert self.size_ms is not None
            assert self.step_ms is not None
            slices = self.size_ms // gcd(self.size_ms, self.step_ms)
            if self.step_ms > self.size_ms:
                raise ValueError("step_ms is more than size_ms: readings would fall in between")
            if slices > MAX_SLICES:
                raise ValueError(
                    f"size_ms and step_ms cut a window into {slices} slices, at most {MAX_SLICES} "
                    "are allowed; let the step divide the size"
                )
        if self.last is not None and self.max_points <= self.last:
            raise ValueError(
                f"max_points = {self.max_points} must be more than last = {self.last}: a series "
                "keeps the readings of its newest window, and those that corrections need"
            )
