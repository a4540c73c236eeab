"""Windows whose place in time is given: what all of them share, and hopping ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from streams.core.aggregates import NO_ROWS, Aggregates, Arrays, Rows
from streams.core.columns import Columns
from streams.core.emission import Writer
from streams.core.keyed import Keyed
from streams.core.open_windows import LIFE, OpenWindows, WatermarkOf
from streams.core.readings import Bool, Int32, Int64
from streams.core.results import PROVISIONAL, WindowResults
from streams.core.windows import Calendar, Hopping, Sliding, Tumbling

_SWEEP_AT = 4096
_AT_ONCE = 1 << 16
"""Slices of windows that are folded together: so few stay in the caches of a core."""


class AlignedOperator(ABC):
    """Opens, closes, shows and corrects windows; what is in them is the subclass's."""

    def __init__(
        self,
        definition: Tumbling | Calendar | Hopping | Sliding,
        windows: Keyed,
        writer: Writer,
    ) -> None:
        self._definition = definition
        self._windows = windows
        self._open = OpenWindows(windows.columns)
        self._writer = writer
        self._sweep_at = _SWEEP_AT

    @abstractmethod
    def takes(self, t_ms: Int64, before_ms: Int64) -> Bool:
        """See :class:`~streams.core.operators.Operator`."""

    @abstractmethod
    def add(self, rows: Rows) -> Int64:
        """See :class:`~streams.core.operators.Operator`."""

    @abstractmethod
    def _content(self, slots: Int64) -> Arrays:
        """Return the results of some windows: name -> array."""

    def emit(self, devices: Int64 | Int32, watermark_ms: Int64) -> list[WindowResults]:
        """See :class:`~streams.core.operators.Operator`."""
        again = self._open.corrected()
        due = self._open.due(devices, watermark_ms)
        return [*self._close(due, "closed"), *self._told(again, "late")]

    def show(self, devices: Int64 | Int32) -> list[WindowResults]:
        """See :class:`~streams.core.operators.Operator`."""
        slots = self._open.of(devices)
        content = self._content(slots)
        news = self._open.news(slots, content["count"])
        slots, content = slots[news], {name: found[news] for name, found in content.items()}
        ranks = np.full(len(slots), PROVISIONAL, np.int32)
        return self._written(slots, ranks, "provisional", content)

    def finish(self, devices: Int64 | Int32) -> list[WindowResults]:
        """See :class:`~streams.core.operators.Operator`."""
        return self._close(self._open.of(devices), "idle")

    def has_open(self, devices: Int64 | Int32) -> Bool:
        """See :class:`~streams.core.operators.Operator`."""
        return self._open.has_open(devices)

    @abstractmethod
    def given_up(self) -> int:
        """See :class:`~streams.core.operators.Operator`."""

    def _drop_windows(self, gone: Bool) -> Int64:
        """Drop windows, none of which is open; return the renumbering."""
        new = self._windows.drop(gone)
        self._open.renumber(new)
        return new

    def _start(self, series: Int32, device: Int32, start_ms: Int64) -> tuple[Int64, Int64]:
        """Return the windows of some rows, opening new ones; and the first row of each of these."""
        slots, fresh = self._windows.slots_of(series, start_ms)
        if len(fresh):
            closes = self._definition.end_of(start_ms[fresh]) + self._definition.grace_ms
            self._open.put(slots[fresh], device[fresh], closes)
        return slots, fresh

    def _close(self, slots: Int64, reason: str) -> list[WindowResults]:
        if not len(slots):
            return []
        self._open.close(slots, idle=reason == "idle")
        return self._told(slots, reason)

    def _told(self, slots: Int64, reason: str) -> list[WindowResults]:
        ranks = self._windows.columns["late"][slots]
        return self._written(slots, ranks, reason, self._content(slots)) if len(slots) else []

    def _written(
        self, slots: Int64, rank: Int32, reason: str, content: Arrays
    ) -> list[WindowResults]:
        if not len(slots):
            return []
        c = self._windows.columns
        start, end = c["start_ms"][slots], self._definition.end_of(c["start_ms"][slots])
        series = c["series"][slots]
        return [self._writer.results(series, start, end, rank, reason=reason, found=content)]

    def _sweep(self, watermark_of: WatermarkOf, kept_ms: int) -> Int64 | None:
        """Drop closed windows *kept_ms* behind their close; return the renumbering, if any."""
        if len(self._windows) < self._sweep_at:
            return None
        c = self._windows.columns
        gone = c["closed"] & (watermark_of(c["device"]) >= c["closes_ms"] + kept_ms)
        new = self._drop_windows(gone)
        self._sweep_at = max(_SWEEP_AT, len(self._windows) + len(self._windows) // 2)
        return new

    def _restore_windows(self, rows: Arrays, series: Int32, device: Int32) -> Int64:
        mine = rows["series"]
        slots = self._windows.extend(rows | {"series": series[mine], "device": device[mine]})
        self._open.relist(slots[~rows["closed"]])
        return slots


class HoppingOperator(AlignedOperator):
    """Windows share slices; a window's content is the fold of its slices in order of time."""

    def __init__(self, definition: Hopping, writer: Writer) -> None:
        super().__init__(definition, Keyed(LIFE), writer)
        self._hopping = definition
        self._aggregates = Aggregates(definition.aggregates, definition.max_points)
        self._slices = Keyed(self._aggregates.spec)
        self._had_idle = Columns({"idle": (np.bool_, False)})

    def takes(self, t_ms: Int64, before_ms: Int64) -> Bool:
        """See :class:`~streams.core.operators.Operator`."""
        d = self._hopping
        last_close = d.end_of(d.last_start(d.slice_of(t_ms))) + d.grace_ms
        taken: Bool = before_ms < last_close + d.horizon_ms
        return taken

    def add(self, rows: Rows) -> Int64:
        """See :class:`~streams.core.operators.Operator`."""
        d = self._hopping
        slice_ms = d.slice_of(rows.t_ms)
        slots, fresh = self._slices.slots_of(rows.series, slice_ms)
        self._aggregates.add(self._slices.columns, slots, rows, fresh)
        # A new slice may be the first in some of its windows.
        self._windows_over(rows.take(fresh), slice_ms[fresh])
        first_close = d.end_of(d.first_start(slice_ms)) + d.grace_ms
        self._had_idle.grow_to(int(rows.device.max()) + 1)
        had_idle = self._had_idle["idle"][rows.device]
        after = np.flatnonzero((rows.before_ms >= first_close) | had_idle)
        at, windows = self._windows_over(rows.take(after), slice_ms[after])
        self._open.count_late(windows, rows.before_ms[after][at])
        return NO_ROWS

    def finish(self, devices: Int64 | Int32) -> list[WindowResults]:
        """See :class:`~streams.core.operators.Operator`."""
        self._note_idle(devices)
        return super().finish(devices)

    def sweep(self, watermark_of: WatermarkOf) -> None:
        """See :class:`~streams.core.operators.Operator`."""
        d = self._hopping
        if self._sweep(watermark_of, d.horizon_ms + d.size_ms) is None:
            return
        c = self._slices.columns
        # A slice goes with the last window over it.
        kept = self._windows.find(c["series"], d.last_start(c["start_ms"])) >= 0
        self._aggregates.renumber(self._slices.drop(~kept))

    def forget(self, series: Bool, devices: Int64) -> None:
        """See :class:`~streams.core.operators.Operator`."""
        self._drop_windows(series[self._windows.columns["series"]])
        gone = series[self._slices.columns["series"]]
        self._aggregates.renumber(self._slices.drop(gone))
        self._had_idle.reset(devices)

    def snapshot(self, series: Int64) -> dict[str, Any]:
        """See :class:`~streams.core.operators.Operator`."""
        slots, slices = rows_of(self._slices, series)
        kept = self._aggregates.snapshot(slots)
        return {"windows": rows_of(self._windows, series)[1], "slices": slices, "kept": kept}

    def restore(self, state: dict[str, Any], series: Int32, device: Int32, site: Int32) -> None:
        """See :class:`~streams.core.operators.Operator`."""
        rows = dict(state["slices"])
        if len(rows["series"]):
            windows = self._restore_windows(state["windows"], series, device)
            self._note_idle(self._windows.columns["device"][windows[state["windows"]["idle"]]])
            rows |= {"series": series[rows["series"]], "site": site[rows["site"]]}
            self._aggregates.restore(state["kept"], self._slices.extend(rows))

    def given_up(self) -> int:
        """See :class:`~streams.core.operators.Operator`."""
        return self._aggregates.given_up

    def _note_idle(self, devices: Int64 | Int32) -> None:
        """Remember devices whose windows may have closed before their watermark came."""
        if len(devices):
            self._had_idle.grow_to(int(devices.max()) + 1)
            self._had_idle["idle"][devices] = True

    def _windows_over(self, rows: Rows, slice_ms: Int64) -> tuple[Int64, Int64]:
        """Return all windows over the slices of some rows: positions of rows, and windows."""
        at, start = self._hopping.starts_over(slice_ms)
        return at, self._start(rows.series[at], rows.device[at], start)[0]

    def _content(self, slots: Int64) -> Arrays:
        some = max(1, _AT_ONCE // self._hopping.slices)
        parts = [self._folded(at) for at in np.split(slots, range(some, len(slots), some))]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _folded(self, slots: Int64) -> Arrays:
        c, d = self._windows.columns, self._hopping
        slice_ms = c["start_ms"][slots] + d.slice_ms * np.arange(d.slices)[:, None]
        series = np.broadcast_to(c["series"][slots], slice_ms.shape)
        panes = self._slices.find(series.ravel(), slice_ms.ravel()).reshape(slice_ms.shape)
        return self._aggregates.of_slices(self._slices.columns, panes)


def rows_of(table: Keyed, series: Int64) -> tuple[Int64, Arrays]:
    """Return the slots of some series, and copies of their rows with series numbered from zero."""
    owner = table.columns["series"]
    local = np.full(int(owner.max(initial=-1)) + 1, -1, np.int32)
    mine = series[series < len(local)]
    local[mine] = np.arange(len(series), dtype=np.int32)[series < len(local)]
    slots = np.flatnonzero(local[owner] >= 0) if len(owner) else np.empty(0, np.int64)
    rows = table.select(slots)
    rows["series"] = local[rows["series"]]
    return slots, rows
