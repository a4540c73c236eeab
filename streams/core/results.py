"""What the stream engine says: results of windows, and scored readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from streams.core.readings import Float64, Int32, Int64, Labels, concat_labels

CLOUD = "cloud"
EDGE = "edge"
"""Sources of results."""
EDGE_FIRST = 1 << 29
"""More than any revision; two of them fit into an int32."""
PROVISIONAL = -1
"""Rank of a provisional result; revisions count from 0."""
RETRACTED = "retracted"
"""Reason of a result that says that its window is no more: ``count`` 0, values NaN."""


@dataclass(frozen=True, slots=True)
class WindowResults:
    """*n* window results, keyed by tenant, device, metric, window, start_ms, source and rank.

    ``window`` is the definition's name; windows are half-open ``[start_ms, end_ms)``.
    ``rank`` is the revision (0, 1, ...) or ``PROVISIONAL``. ``reason`` says why it was emitted:
    ``closed``, ``late`` (a correction), ``idle``, ``provisional`` or ``retracted``. ``sd`` is the
    sample standard deviation (n-1), NaN for a single reading. ``last_received_ms`` is the latest
    receipt of a reading inside, ``kafka_ms`` the latest log time: both follow from the content.
    ``extra`` holds the further aggregates that the definition declares, by name.
    """

    tenant: Labels
    site: Labels
    device: Labels
    metric: Labels
    window: Labels
    source: Labels
    reason: Labels
    start_ms: Int64
    end_ms: Int64
    rank: Int32
    count: Int64
    sum: Float64
    min: Float64
    max: Float64
    mean: Float64
    sd: Float64
    last_received_ms: Int64
    kafka_ms: Int64
    extra: Mapping[str, Float64] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.start_ms)

    def take(self, rows: Int64) -> WindowResults:
        """Select rows by index."""
        extra = {name: values[rows] for name, values in self.extra.items()}
        return WindowResults(**_taken(self, rows), extra=extra)


@dataclass(frozen=True, slots=True)
class Scores:
    """*n* scored readings: every one at or over the emission bound, and the first below it again.

    ``score`` is in the detector's measure (0 = as usual, larger = stranger); ``expected``
    and ``spread`` are what it held to be usual just before the reading, and ``why`` says in words
    what was strange: empty below the bound. ``offset`` and ``row`` identify the reading in its
    partition of ``readings``.
    """

    tenant: Labels
    site: Labels
    device: Labels
    metric: Labels
    detector: Labels
    t_ms: Int64
    received_ms: Int64
    kafka_ms: Int64
    value: Float64
    score: Float64
    expected: Float64
    spread: Float64
    offset: Int64
    row: Int32
    why: Labels

    def __len__(self) -> int:
        return len(self.t_ms)


@dataclass(frozen=True, slots=True)
class RollupResults:
    """*n* results of groups, keyed by tenant, rollup, group, metric, window, start_ms and rank.

    ``rollup`` is the definition's name, ``group`` the group's (a site, or ``*`` for the whole
    tenant). ``rank`` is the revision: the sum over the members of (revision + 1), and one more
    for each that left. ``final``, ``provisional`` and ``missing`` count the group's members by
    what they have told for this window. ``reason`` is ``provisional`` while a member's result
    is, ``retracted`` (count 0) when none is left, else ``closed``. ``m2`` is the sum of squared
    differences from the mean, from which further merging starts; ``sd`` the sample's deviation.
    """

    tenant: Labels
    rollup: Labels
    group: Labels
    metric: Labels
    window: Labels
    source: Labels
    reason: Labels
    start_ms: Int64
    end_ms: Int64
    rank: Int64
    count: Int64
    sum: Float64
    min: Float64
    max: Float64
    mean: Float64
    sd: Float64
    m2: Float64
    final: Int64
    provisional: Int64
    missing: Int64
    last_received_ms: Int64
    kafka_ms: Int64

    def __len__(self) -> int:
        return len(self.start_ms)

    def take(self, rows: Int64) -> RollupResults:
        """Select rows by index."""
        return RollupResults(**_taken(self, rows))


def standing(rank: Int32 | Int64, source: Labels) -> Int64:
    """Return int64[n] that orders all results of a window: the greatest counts.

    A final result is over a provisional one, and of final ones an edge's is over the cloud's: an
    edge tells windows of those series alone whose readings stay with it.
    """
    is_edge = np.asarray([name == EDGE for name in source.values], np.bool_)[source.codes]
    return np.where(is_edge & (rank >= 0), rank.astype(np.int64) + EDGE_FIRST, rank)


def concat_windows(parts: Sequence[WindowResults]) -> WindowResults:
    """Concatenate results that have the same further aggregates, in order; at least one part."""
    if len(parts) == 1:
        return parts[0]
    columns: dict[str, Any] = {}
    for column in fields(WindowResults):
        values = [getattr(part, column.name) for part in parts]
        if column.name == "extra":
            columns["extra"] = {
                name: np.concatenate([extra[name] for extra in values]) for name in values[0]
            }
        elif isinstance(values[0], Labels):
            columns[column.name] = concat_labels(values)
        else:
            columns[column.name] = np.concatenate(values)
    return WindowResults(**columns)


def _taken(results: WindowResults | RollupResults, rows: Int64) -> dict[str, Any]:
    """Return the columns of some rows."""
    columns = {f.name: getattr(results, f.name) for f in fields(results) if f.name != "extra"}
    return {name: c.take(rows) if isinstance(c, Labels) else c[rows] for name, c in columns.items()}
