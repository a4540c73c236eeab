"""Panes: the running aggregates of every (series, window definition, start).

Values are added in arrival order directly into the pane (``ufunc.at``), never by partial sums
of a batch, so that the result has the same bits however the readings are batched. The second
moment is taken around the pane's first value: with sums of squares around zero, the standard
deviation of 1e9 +- 0.01 comes out as 43.8 instead of 0.0099.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from streams.core.columns import Columns
from streams.core.readings import Bool, Float64, Int32, Int64

_SPEC: dict[str, tuple[Any, Any]] = {
    "series": (np.int32, 0),
    "definition": (np.int16, 0),
    "site": (np.int32, 0),
    "start_ms": (np.int64, 0),
    "count": (np.int64, 0),
    "sum": (np.float64, 0.0),
    "min": (np.float64, np.inf),
    "max": (np.float64, -np.inf),
    "shift": (np.float64, 0.0),
    "s1": (np.float64, 0.0),
    "s2": (np.float64, 0.0),
    "late": (np.int32, 0),
    "received_ms": (np.int64, -1),
    "kafka_ms": (np.int64, -1),
    "closed": (np.bool_, False),
    "idle": (np.bool_, False),
    "shown": (np.int64, 0),
}
"""``late`` is the number of late readings inside, which is the revision; ``idle`` marks a pane
closed by the idle rule before its watermark came; ``shown`` is the count at the last
provisional result."""


class Panes:
    """All panes of one partition; a pane's index is its *slot*."""

    def __init__(self) -> None:
        self.columns = Columns(_SPEC)
        self._slots: dict[tuple[int, int, int], int] = {}
        self._open = np.empty(0, np.int64)

    def __len__(self) -> int:
        return self.columns.n

    @property
    def open_slots(self) -> Int64:
        """Slots of panes that are not closed."""
        return self._open

    def slots_of(self, definition: int, series: Int32, start_ms: Int64, value: Float64) -> Int64:
        """Return the slot of each row, making new panes where there is none.

        :param value: a new pane takes the value of its first row as its shift.
        """
        order = np.lexsort((start_ms, series))
        s, t = series[order], start_ms[order]
        first = np.empty(len(s), np.bool_)
        first[0] = True
        first[1:] = (s[1:] != s[:-1]) | (t[1:] != t[:-1])
        # lexsort is stable: the first row of a group is the first that arrived.
        heads = order[first]
        slots = self._look_up(definition, series[heads], start_ms[heads], value[heads])
        result = np.empty(len(s), np.int64)
        result[order] = slots[np.cumsum(first) - 1]
        return result

    def _look_up(self, definition: int, series: Int32, start: Int64, value: Float64) -> Int64:
        known = self._slots
        total = self.columns.n
        slots = np.empty(len(series), np.int64)
        fresh: list[int] = []
        for i, (s, t) in enumerate(zip(series.tolist(), start.tolist(), strict=True)):
            slot = known.setdefault((s, definition, t), total + len(fresh))
            if slot == total + len(fresh):
                fresh.append(i)
            slots[i] = slot
        if fresh:
            rows = np.asarray(fresh)
            self.columns.append(
                {
                    "series": series[rows],
                    "definition": np.full(len(rows), definition, np.int16),
                    "start_ms": start[rows],
                    "shift": value[rows],
                },
                len(rows),
            )
            self._open = np.concatenate([self._open, slots[rows]])
        return slots

    def add(
        self,
        slots: Int64,
        value: Float64,
        *,
        site: Int32,
        received_ms: Int64,
        kafka_ms: Int64,
        late: Bool,
    ) -> None:
        """Fold rows into their panes, in arrival order."""
        c = self.columns
        np.add.at(c["count"], slots, 1)
        np.add.at(c["sum"], slots, value)
        np.minimum.at(c["min"], slots, value)
        np.maximum.at(c["max"], slots, value)
        around = value - c["shift"][slots]
        np.add.at(c["s1"], slots, around)
        np.add.at(c["s2"], slots, around * around)
        np.maximum.at(c["received_ms"], slots, received_ms)
        np.maximum.at(c["kafka_ms"], slots, kafka_ms)
        np.add.at(c["late"], slots, late.astype(np.int32))
        # Of repeated indices the last one wins: the site of the newest row.
        c["site"][slots] = site

    def close(self, slots: Int64, *, idle: bool = False) -> None:
        """Mark open panes as closed."""
        self.columns["closed"][slots] = True
        self.columns["idle"][slots] = idle
        self._open = self._open[~self.columns["closed"][self._open]]

    def drop(self, gone: Bool) -> None:
        """Forget the panes where *gone* is true; slots change."""
        if not gone.any():
            return
        self.columns.keep(~gone)
        self._reindex()

    def _reindex(self) -> None:
        c = self.columns
        keys = zip(
            c["series"].tolist(), c["definition"].tolist(), c["start_ms"].tolist(), strict=True
        )
        self._slots = {key: slot for slot, key in enumerate(keys)}
        self._open = np.flatnonzero(~c["closed"])

    def snapshot(self, slots: Int64) -> dict[str, np.ndarray[Any, Any]]:
        """Return copies of some panes."""
        return self.columns.select(slots)

    def restore(self, rows: dict[str, np.ndarray[Any, Any]]) -> None:
        """Add panes that a snapshot held; their keys must not be there yet."""
        self.columns.append(rows, len(rows["series"]))
        self._reindex()


def deviation(count: Int64, s1: Float64, s2: Float64) -> Float64:
    """Return the sample standard deviation from sums around a shift; NaN for one reading.

    Shifted-data algorithm (Chan, Golub, LeVeque 1983): ``(s2 - s1**2 / n) / (n - 1)``.
    """
    n = count.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = (s2 - s1 * s1 / n) / (n - 1.0)
    deviation_: Float64 = np.sqrt(np.maximum(variance, 0.0))
    deviation_[count < 2] = np.nan
    return deviation_
