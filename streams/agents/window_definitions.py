"""From the settings of a window to its definition in the core."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from streams.agents.derived import engine_aggregates
from streams.core.readings import Int64
from streams.core.windows import Calendar, Hopping, Session, Sliding, Tumbling, Window
from streams.settings import Window as WindowSettings

_FIRST, _LAST = date(1969, 12, 1), date(2110, 2, 1)
"""Calendars reach beyond every event time that is accepted."""


def definition_of(window: WindowSettings) -> Window:
    """Return the definition that the engine folds by."""
    common: dict[str, Any] = {
        "name": window.name,
        "metrics": tuple(window.metrics),
        "grace_ms": window.grace_ms,
        "horizon_ms": window.horizon_ms,
        "aggregates": engine_aggregates(window),
        "max_points": window.max_points,
    }
    if window.kind == "session":
        assert window.gap_ms is not None
        return Session(gap_ms=window.gap_ms, **common)
    if window.kind == "calendar":
        assert window.period is not None
        calendar = f"{window.period} in {window.zone}"
        bounds = boundaries_ms(window.period, window.zone)
        return Calendar(calendar=calendar, boundaries_ms=bounds, **common)
    if window.kind == "sliding":
        return Sliding(size_ms=window.size_ms, last=window.last, **common)
    assert window.size_ms is not None
    aligned = {"size_ms": window.size_ms, "offset_ms": window.offset_ms, **common}
    if window.kind == "tumbling":
        return Tumbling(**aligned)
    assert window.step_ms is not None
    return Hopping(step_ms=window.step_ms, **aligned)


def boundaries_ms(period: str, zone: str) -> Int64:
    """Return the local midnights at which days, weeks (on Mondays) or months begin.

    A day is 23 or 25 hours long where the clocks change; a midnight that does not exist is the
    moment at which the clocks jump over it.

    :returns: int64, milliseconds since the epoch, ascending.
    """
    where = ZoneInfo(zone)
    days = [datetime(d.year, d.month, d.day, tzinfo=where) for d in _begins(period)]
    return np.unique([round(day.timestamp() * 1000) for day in days])


def _begins(period: str) -> Iterator[date]:
    day = _FIRST
    while day < _LAST:
        wanted = {"day": True, "week": day.weekday() == 0, "month": day.day == 1}
        if wanted[period]:
            yield day
        day += timedelta(days=1)
