"""Which windows a reading belongs to, told from the definitions alone, without an engine."""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np

from streams.agents.window_definitions import definition_of
from streams.core.windows import Calendar, Hopping, Session, Sliding, Tumbling, Window
from streams.settings import Settings
from streams.settings import Window as WindowSettings
from streams.settings.generations import base_name

Span = tuple[int, int]
"""Start and end of a window, half-open, in ms."""


def definitions_for(settings: Settings, metric: str) -> list[Window]:
    """Return the window definitions that apply to a metric."""
    found = [
        _definition(window.name, window.model_dump_json(exclude={"name"}))
        for window in settings.windows
    ]
    return [definition for definition in found if definition.applies_to(metric)]


@lru_cache(maxsize=256)
def _definition(name: str, rest: str) -> Window:
    """Return a definition; a calendar's takes longer to make than to use."""
    content = {**json.loads(rest), "name": base_name(name)}
    return definition_of(WindowSettings.model_validate(content).model_copy(update={"name": name}))


def spans_over(definition: Window, t_ms: int) -> list[Span]:
    """Return the windows that hold a time, ascending.

    None for sessions and sliding windows: where those are follows from all their readings.
    """
    at = np.asarray([t_ms], np.int64)
    if isinstance(definition, Tumbling | Calendar):
        starts = definition.start_of(at)
    elif isinstance(definition, Hopping):
        _, starts = definition.starts_over(definition.slice_of(at))
    else:
        return []
    ends = definition.end_of(starts)
    return sorted(zip(starts.tolist(), ends.tolist(), strict=True))


def takes(definition: Window, t_ms: int, before_ms: int | None) -> bool:
    """Return whether a window of this definition still takes a reading.

    :param before_ms: its device's watermark just before it; ``None`` if there is none yet.
    """
    if before_ms is None:
        return True
    if isinstance(definition, Session):
        last_end = t_ms + definition.gap_ms
    elif isinstance(definition, Sliding):
        last_end = t_ms + 1
    else:
        last_end = spans_over(definition, t_ms)[-1][1]
    return before_ms < last_end + definition.grace_ms + definition.horizon_ms
