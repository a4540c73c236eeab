"""Which readings made a number: one window of one series, from its readings to its result.

Told from outside: the readings come from the lake (Kafka where it lags), the classes from the
records of ``late``, ``quarantine`` and ``rejected``, and the arithmetic is plain Python, in
order of arrival. So it checks the engine rather than asking it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from streams.core.windows import Sliding, Window
from streams.covering import definitions_for, spans_over
from streams.errors import HeadwaterError
from streams.history import History, is_inside, read_history
from streams.settings import Settings

Series = tuple[str, str, str]
"""Tenant, device, metric."""
COMPARED = ("count", "sum", "min", "max")
_ROUNDING = 1e-12

_ROWS = """
SELECT * FROM judged
WHERE tenant = $tenant AND device = $device AND metric = $metric
    AND t_ms >= $start_ms AND t_ms < $end_ms
ORDER BY kafka_offset, row
"""
_RESULTS = """
SELECT DISTINCT ON (rank, kafka_offset, row) * FROM aggregates
WHERE tenant = $tenant AND device = $device AND metric = $metric AND "window" = $window
    AND start_ms = $start_ms
ORDER BY rank, count, kafka_offset, row
"""
_SESSIONS = """
SELECT DISTINCT start_ms, end_ms FROM aggregates
WHERE tenant = $tenant AND device = $device AND metric = $metric AND "window" = $window
    AND start_ms <= $at_ms AND end_ms > $at_ms AND count > 0
ORDER BY end_ms - start_ms
"""
_SHOWN = ("t_ms", "value", "text", "boot", "seq", "quality", "received_ms", "kafka_ms", "source")
_TOLD = ("rank", "reason", *COMPARED, "kafka_ms", "kafka_partition", "kafka_offset", "row")


@dataclass(frozen=True, slots=True)
class Explanation:
    """A window taken apart."""

    tenant: str
    device: str
    metric: str
    window: str
    start_ms: int
    end_ms: int
    revisions: list[dict[str, Any]]
    """Every result that was told, by rank; the greatest counts."""
    inside: list[dict[str, Any]]
    """Readings inside, in order of arrival; ``is_correction`` came after the window closed."""
    left_out: list[dict[str, Any]]
    """Readings of this series and time that are not inside: ``class``, ``reason``, ``detail``."""
    refused: list[dict[str, Any]]
    """Messages of the device, received while these readings came, that could not be decoded."""
    recomputed: dict[str, float]
    sources: dict[str, str] = field(default_factory=dict)
    """Where the tables came from."""

    @property
    def current(self) -> dict[str, Any] | None:
        """The result that counts."""
        return self.revisions[-1] if self.revisions else None

    @property
    def is_open(self) -> bool:
        """Whether no final result was told yet."""
        return self.current is None or int(self.current["rank"]) < 0

    @property
    def compared(self) -> dict[str, str]:
        """Per number: ``equal``, ``rounding`` (the last bits differ) or ``differs``."""
        told = self.current
        if told is None:
            return {}
        return {name: _compare(told[name], self.recomputed[name]) for name in COMPARED}

    @property
    def holds(self) -> bool:
        """Whether what was told is what its readings make; an open window cannot be wrong yet."""
        return self.is_open or "differs" not in self.compared.values()

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            **asdict(self),
            "current": self.current,
            "compared": self.compared,
            "is_open": self.is_open,
            "holds": self.holds,
            "corrections": sum(row["is_correction"] for row in self.inside),
            "left_out_counts": dict(Counter(row["class"] for row in self.left_out)),
        }


async def explain(
    settings: Settings, series: Series, at_ms: int, window: str | None = None
) -> Explanation:
    """Explain the window of a series that holds *at_ms*.

    :param window: name of the definition; may be left out where only one applies.
    :raises HeadwaterError: if no or several definitions apply, or nothing is known of it.
    """
    tenant, device, metric = series
    definition = _definition(settings, metric, window)
    with await read_history(settings, [(tenant, device)]) as history:
        return take_apart(settings, history, series, definition, at_ms)


def take_apart(
    settings: Settings, history: History, series: Series, definition: Window, at_ms: int
) -> Explanation:
    """Explain from a history that is open.

    :param at_ms: the start of the window, or a time inside; of windows that overlap, the last; of
        sliding ones, the time of the reading at which it ends.
    :raises HeadwaterError: if neither a reading nor a result of this window is known.
    """
    where = dict(zip(("tenant", "device", "metric"), series, strict=True))
    start_ms, end_ms = _span(history, where, definition, at_ms)
    place = {**where, "start_ms": start_ms}
    rows = _rows(history, where, definition, (start_ms, end_ms), settings.devices.disorder_ms)
    told = history.rows(_RESULTS, {**place, "window": definition.name})
    if not rows and not told:
        raise _unknown(series, start_ms, end_ms)
    disorder_ms = settings.devices.disorder_ms
    inside = [row for row in rows if row["is_inside"]]
    return Explanation(
        *series,
        definition.name,
        start_ms,
        end_ms,
        [{name: row[name] for name in _TOLD} for row in told],
        _marked(inside, told, end_ms + definition.grace_ms + disorder_ms),
        [_left_out(row) for row in rows if not row["is_inside"]],
        _refused(history, rows),
        recompute([row["value"] for row in inside]),
        {name: "lake and kafka" if has else "kafka" for name, has in history.from_lake.items()},
    )


def _span(
    history: History, where: Mapping[str, str], definition: Window, at_ms: int
) -> tuple[int, int]:
    spans = spans_over(definition, at_ms)
    if isinstance(definition, Sliding):
        # The one that ends at the reading of this time.
        start_ms = at_ms + 1 - definition.width_ms
        spans = [(start_ms, at_ms + 1)]
    elif not spans:
        # Where a session begins and ends, only its results say.
        told = history.rows(_SESSIONS, {**where, "window": definition.name, "at_ms": at_ms})
        spans = [(row["start_ms"], row["end_ms"]) for row in told]
    if not spans:
        raise _unknown((where["tenant"], where["device"], where["metric"]), at_ms, at_ms)
    return next((span for span in spans if span[0] == at_ms), spans[-1])


def _rows(
    history: History,
    where: Mapping[str, str],
    definition: Window,
    span: tuple[int, int],
    disorder_ms: int,
) -> list[dict[str, Any]]:
    """Return the readings of a window's time, and say of each whether it is inside."""
    is_last = isinstance(definition, Sliding) and definition.last is not None
    begin_ms = 0 if is_last else span[0]
    rows = history.rows(_ROWS, {**where, "start_ms": begin_ms, "end_ms": span[1]})
    for row in rows:
        row["is_inside"] = math.isfinite(row["value"]) and is_inside(row, definition, disorder_ms)
    if not isinstance(definition, Sliding):
        return rows
    # Of sliding windows, readings are added in order of time.
    rows.sort(key=lambda row: row["t_ms"])
    if definition.last is not None:
        places = [at for at, row in enumerate(rows) if row["is_inside"]]
        return rows[places[-definition.last] :] if len(places) >= definition.last else rows
    return rows


def _unknown(series: Series, start_ms: int, end_ms: int) -> HeadwaterError:
    return HeadwaterError(
        f"neither a reading nor a result of {'/'.join(series)} from {start_ms} to {end_ms} "
        "is in the lake or in Kafka; headwater inspect readings shows what is there"
    )


def recompute(values: Sequence[float]) -> dict[str, float]:
    """Return count, sum (in this order), min and max; NaN where there is nothing."""
    total = 0.0
    for value in values:
        total += value
    return {
        "count": len(values),
        "sum": total,
        "min": min(values, default=math.nan),
        "max": max(values, default=math.nan),
    }


def _definition(settings: Settings, metric: str, name: str | None) -> Window:
    fitting = [d for d in definitions_for(settings, metric) if name in (None, d.name)]
    if len(fitting) != 1:
        names = ", ".join(window.name for window in settings.windows)
        raise HeadwaterError(
            f"{len(fitting)} window definitions fit {metric}; --window names one of: {names}"
        )
    return fitting[0]


def _marked(
    inside: Sequence[Mapping[str, Any]], told: Sequence[Mapping[str, Any]], closes_ms: int
) -> list[dict[str, Any]]:
    """Mark what came after the window had closed: by the device's time, or by the idle rule."""
    idle = next((row["count"] for row in told if row["reason"] == "idle"), len(inside))
    marked = []
    for number, row in enumerate(inside):
        greatest = row["greatest_before_ms"]
        is_behind = greatest is not None and greatest >= closes_ms
        marked.append(
            {
                **{name: row[name] for name in _SHOWN},
                "is_correction": bool(is_behind or number >= idle),
                "is_redriven": bool(row["counted"]),
            }
        )
    return marked


def _left_out(row: Mapping[str, Any]) -> dict[str, Any]:
    kind = row["class"]
    shown = {name: row[name] for name in _SHOWN}
    if kind == "duplicate":
        numbered = row["seq"] is not None
        by = f"boot {row['boot']}, seq {row['seq']}" if numbered else "metric and time"
        return {**shown, "class": kind, "reason": "seen-before", "detail": f"known by {by}"}
    if kind == "accepted" and math.isfinite(row["value"]):
        detail = "beyond the horizon of this definition; another one still took it"
        return {**shown, "class": "late", "reason": "late-here", "detail": detail}
    if kind == "accepted":
        detail = "text is kept, not aggregated"
        return {**shown, "class": "no-number", "reason": "text", "detail": detail}
    detail = row["detail"] or ""
    if kind == "late":
        behind_ms = (row["greatest_before_ms"] or 0) - row["t_ms"]
        detail = f"its device had shown times {behind_ms / 1000:g} s later, beyond every horizon"
    return {**shown, "class": kind, "reason": row["why"] or "", "detail": detail}


def _refused(history: History, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not rows:
        return []
    first = min(row["received_ms"] for row in rows)
    last = max(row["received_ms"] for row in rows)
    return [one for one in history.refused if first <= one["received_ms"] <= last]


def _compare(told: float, again: float) -> str:
    if told == again or (math.isnan(told) and math.isnan(again)):
        return "equal"
    return "rounding" if math.isclose(told, again, rel_tol=_ROUNDING) else "differs"
