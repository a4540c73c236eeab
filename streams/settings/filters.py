"""The section ``[[filters]]``: what an edge does not send of a series."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, model_validator

from streams.settings.sections import Ms, Positive, Section

Globs = Annotated[tuple[str, ...], Field(min_length=1)]
_ALONE = {"around_ms": "windows-and-anomalies", "score_over": "windows-and-anomalies"}


class Filter(Section):
    """How an edge thins some series; of the filters that match a series the first counts.

    What is not sent stays in the ring of the edge (``edge.ring``). Devices that a filter names go
    up without ``boot`` and ``seq`` (docs/edge.md)."""

    devices: Globs = ("*",)
    """Globs of devices."""
    metrics: Globs = ("*",)
    """Globs of metrics."""
    mode: Literal["all", "deadband", "swinging-door", "windows", "windows-and-anomalies"]
    """``all`` sends every reading. ``deadband`` sends one that is further than ``bound`` from the
    last that was sent; the receiver holds that. ``swinging-door`` sends the corners of a line that
    passes every reading within ``bound``; the receiver draws it. ``windows`` sends no readings but
    their ``[[windows]]``, computed at the edge in place of the cloud's. ``windows-and-anomalies``
    sends the readings around anomalies, too."""
    bound: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Greatest error of what is rebuilt, in the unit of the metric. Without one it follows from the
    noise of each series (docs/edge.md)."""
    max_gap_ms: Positive = 30_000
    """Event time between two that are sent, at most, unless the readings are further apart; below
    ``devices.idle_ms``, or windows of a quiet series are told as provisional."""

    around_ms: Ms = 60_000
    """Event time before and after an anomaly whose readings go up in mode
    ``windows-and-anomalies``."""
    score_over: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Score from which a reading is an anomaly there; at least ``detection.emit_score``, which it
    is if left out."""

    @model_validator(mode="after")
    def _may_have_a_bound(self) -> Filter:
        if self.mode == "all" and self.bound is not None:
            raise ValueError("mode 'all' takes no bound: nothing is left out")
        if self.is_windowed and self.bound is not None:
            raise ValueError(f"mode {self.mode!r} takes no bound: windows are of all readings")
        for name, mode in _ALONE.items():
            if name in self.model_fields_set and self.mode != mode:
                raise ValueError(f"{name} is of mode {mode!r}, and this is {self.mode!r}")
        return self

    @property
    def is_windowed(self) -> bool:
        """Whether the edge computes the windows of what it matches."""
        return self.mode.startswith("windows")

    def names(self, device: str) -> bool:
        """Whether it is about a device."""
        return any(fnmatchcase(device, glob) for glob in self.devices)

    def matches(self, device: str, metric: str) -> bool:
        """Whether it is about a series."""
        return self.names(device) and any(fnmatchcase(metric, glob) for glob in self.metrics)
