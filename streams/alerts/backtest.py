"""``headwater rules backtest``: how often a rule would have fired on the readings of the lake.

The readings are judged anew, in the order and at the log times in which Kafka had them: duplicates,
late readings and corrections are what they were. So a rule is tried with the windows and the
detector of the settings, also where these are new.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streams import lake
from streams.adapters import frames
from streams.alerts.trial import Trial
from streams.core.readings import ABSENT, Labels, Readings
from streams.errors import HeadwaterError
from streams.settings import Rule, Settings

_MOST_ROWS = 2_000
_LONGEST_MS = 1_000
"""Log time that rows of one record may span."""
_READINGS = """
SELECT {columns} FROM readings
WHERE kafka_ms >= $from_ms AND kafka_ms < $to_ms AND text IS NULL AND ({selected})
ORDER BY kafka_ms, kafka_partition, kafka_offset, row
LIMIT {limit}
"""
_LABELS = ("tenant", "site", "device", "metric")
_NUMBERS = ("t_ms", "received_ms", "value", "quality", "boot", "seq", "kafka_ms")


@dataclass(frozen=True, slots=True)
class Backtest:
    """What a rule would have done. Times in ms."""

    rule: str
    from_ms: int
    to_ms: int
    readings: int
    series: int
    alerts: list[dict[str, Any]]
    """In their last state, those that were told within the time; ``told_ms`` is its log time."""

    def span_ms(self) -> tuple[int, int]:
        """Return the event times to show: those asked for, unless alerts began at others.

        A recording that was replayed came in today, and tells of other years.
        """
        began = [alert["began_ms"] for alert in self.alerts]
        if all(self.from_ms <= at_ms < self.to_ms for at_ms in began):
            return self.from_ms, self.to_ms
        ended = [alert["resolved_ms"] or alert["sample"]["t_ms"] for alert in self.alerts]
        return min(began), max(*began, *ended) + 1

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "rule": self.rule,
            "from_ms": self.from_ms,
            "to_ms": self.to_ms,
            "readings": self.readings,
            "series": self.series,
            "alerts": self.alerts,
        }


def backtest(
    settings: Settings,
    name: str,
    from_ms: int,
    to_ms: int,
    *,
    warmup_ms: int = 0,
    max_readings: int = 5_000_000,
    root: Path | None = None,
) -> Backtest:
    """Try a rule.

    :param from_ms, to_ms: log time, half-open.
    :param warmup_ms: readings before that are judged too, without counting alerts: detectors learn.
    :raises HeadwaterError: if there is no such rule, the lake is empty, or there are more readings.
    """
    rules = _with_members(settings, name)
    narrowed = _narrowed(settings, rules)
    selected, parameters = _selection(rules)
    query = _READINGS.format(
        columns=", ".join((*_LABELS, *_NUMBERS)), selected=selected, limit=max_readings + 1
    )
    parameters |= {"from_ms": from_ms - warmup_ms, "to_ms": to_ms}
    table = lake.sql(query, root=root, parameters=parameters)
    if len(table) > max_readings:
        raise HeadwaterError(
            f"there are more than {max_readings:,} readings; take a shorter time, name devices in "
            "the rule, or raise --max-readings"
        )
    trial = Trial(narrowed)
    for at_ms, frame in _frames(table):
        trial.send(frame, at_ms)
    trial.pass_time(to_ms)
    first: dict[str, int] = {}
    for happened in trial.happened:
        first.setdefault(happened.alert["id"], happened.at_ms)
    found = [
        {**alert, "told_ms": first[alert["id"]]}
        for alert in trial.alerts()
        if alert["rule"] == name and first[alert["id"]] >= from_ms
    ]
    series = table.group_by(["tenant", "device", "metric"]).aggregate([])
    return Backtest(name, from_ms, to_ms, len(table), len(series), found)


def _with_members(settings: Settings, name: str) -> list[Rule]:
    by_name = {rule.name: rule for rule in settings.rules}
    if name not in by_name:
        raise HeadwaterError(f"there is no rule {name!r}; there are {', '.join(by_name)}")
    rule = by_name[name]
    return [*(by_name[member] for member in rule.of or ()), rule]


def _narrowed(settings: Settings, rules: Sequence[Rule]) -> Settings:
    """Leave out what the rules do not look at: it would only take time."""
    names = {rule.window for rule in rules}
    windows = [window for window in settings.windows if window.name in names]
    detects = any(rule.on_scores for rule in rules)
    # At the emission bound every score that a rule may fire at is told.
    metrics = settings.detection.metrics if detects else []
    return settings.model_copy(
        update={
            "rules": list(rules),
            "windows": windows or settings.windows[:1],  # the engine needs one
            "rollups": [],
            "detection": settings.detection.model_copy(update={"metrics": metrics}),
        }
    )


def _selection(rules: Sequence[Rule]) -> tuple[str, dict[str, Any]]:
    """Return the condition on series that any of the rules looks at, and its parameters."""
    parameters: dict[str, Any] = {}
    either: list[str] = []
    for rule in rules:
        if rule.of is not None:
            continue
        every: list[str] = []
        for label in _LABELS:
            globs = getattr(rule, f"{label}s")
            if "*" in globs:
                continue
            names = [f"g{len(parameters) + i}" for i in range(len(globs))]
            parameters |= dict(zip(names, globs, strict=True))
            every.append("(" + " OR ".join(f"{label} GLOB ${name}" for name in names) + ")")
        either.append("(" + (" AND ".join(every) or "TRUE") + ")")
    return " OR ".join(either), parameters


def _frames(table: pa.Table) -> Iterator[tuple[int, bytes]]:
    """Yield frames as they may have been in the log, each with its log time."""
    columns = {name: _numbers(table, name) for name in _NUMBERS}
    labels = {name: _labels(table, name) for name in _LABELS}
    kafka_ms = columns.pop("kafka_ms").astype(np.int64)
    at = 0
    while at < len(kafka_ms):
        end = min(at + _MOST_ROWS, len(kafka_ms))
        end = at + int(np.searchsorted(kafka_ms[at:end], kafka_ms[at] + _LONGEST_MS))
        rows = np.arange(at, max(end, at + 1))
        yield (
            int(kafka_ms[rows[-1]]),
            frames.encode(
                Readings(
                    **{name: column.take(rows) for name, column in labels.items()},
                    t_ms=columns["t_ms"][rows].astype(np.int64),
                    received_ms=columns["received_ms"][rows].astype(np.int64),
                    value=columns["value"][rows],
                    quality=columns["quality"][rows].astype(np.uint8),
                    boot=columns["boot"][rows].astype(np.int64),
                    seq=columns["seq"][rows].astype(np.int64),
                    exact_int={},
                    text={},
                )
            ),
        )
        at = int(rows[-1]) + 1


def _numbers(table: pa.Table, name: str) -> Any:
    column = table.column(name)
    if name in ("boot", "seq"):
        column = pc.fill_null(column, ABSENT)
    return column.to_numpy()


def _labels(table: pa.Table, name: str) -> Labels:
    encoded = table.column(name).combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    return Labels(codes, tuple(encoded.dictionary.to_pylist()))
