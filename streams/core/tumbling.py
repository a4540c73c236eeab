"""Windows that follow each other: tumbling ones, and those of a calendar.

Each is a pane of its own. So one that has closed can leave memory before its horizon is over: it
is *settled* once its device's event time has gone on some way past its close. Whoever keeps it is
asked for it when a late row wants it (:mod:`streams.core.shelves`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from streams.core.aggregates import NO_ROWS, Aggregates, Arrays, Rows
from streams.core.aligned import AlignedOperator, rows_of
from streams.core.emission import Writer
from streams.core.keyed import Keyed
from streams.core.open_windows import LIFE, WatermarkOf
from streams.core.readings import Bool, Int32, Int64
from streams.core.windows import Calendar, Tumbling


class TumblingOperator(AlignedOperator):
    """Each window is a pane of its own."""

    def __init__(self, definition: Tumbling | Calendar, writer: Writer) -> None:
        self._aggregates = Aggregates(definition.aggregates, definition.max_points)
        super().__init__(definition, Keyed({**LIFE, **self._aggregates.spec}), writer)
        self._tumbling = definition
        self.recall: Callable[[Int32, Int64], object] | None = None
        """Called with series and starts of closed windows that are not here: brings back those
        that were kept elsewhere."""

    def takes(self, t_ms: Int64, before_ms: Int64) -> Bool:
        """See :class:`~streams.core.operators.Operator`."""
        d = self._tumbling
        taken: Bool = before_ms < d.end_of(d.start_of(t_ms)) + (d.grace_ms + d.horizon_ms)
        return taken

    def add(self, rows: Rows) -> Int64:
        """See :class:`~streams.core.operators.Operator`."""
        start = self._tumbling.start_of(rows.t_ms)
        if self.recall is not None:
            self._bring_back(rows, start)
        slots, fresh = self._start(rows.series, rows.device, start)
        self._aggregates.add(self._windows.columns, slots, rows, fresh)
        self._open.count_late(slots, rows.before_ms)
        return NO_ROWS

    def sweep(self, watermark_of: WatermarkOf) -> None:
        """See :class:`~streams.core.operators.Operator`."""
        new = self._sweep(watermark_of, self._tumbling.horizon_ms)
        if new is not None:
            self._aggregates.renumber(new)

    def forget(self, series: Bool, devices: Int64) -> None:
        """See :class:`~streams.core.operators.Operator`."""
        gone = series[self._windows.columns["series"]]
        self._aggregates.renumber(self._drop_windows(gone))

    def snapshot(self, series: Int64) -> dict[str, Any]:
        """See :class:`~streams.core.operators.Operator`."""
        slots, rows = rows_of(self._windows, series)
        return {"windows": rows, "kept": self._aggregates.snapshot(slots)}

    def restore(self, state: dict[str, Any], series: Int32, device: Int32, site: Int32) -> None:
        """See :class:`~streams.core.operators.Operator`."""
        rows = dict(state["windows"])
        if len(rows["series"]):
            rows["site"] = site[rows["site"]]
            slots = self._restore_windows(rows, series, device)
            self._aggregates.restore(state["kept"], slots)

    # -- windows that leave memory before their horizon is over --------------------------

    @property
    def held(self) -> Keyed:
        """The windows that are here."""
        return self._windows

    def settled(self, watermark_ms: Int64, behind_ms: int) -> Int64:
        """Return the closed windows whose close lies *behind_ms* behind their device's watermark.

        :param watermark_ms: of every device.
        """
        c = self._windows.columns
        past = watermark_ms[c["device"]] >= c["closes_ms"] + behind_ms
        return np.flatnonzero(c["closed"] & past)

    def is_over(self, closes_ms: Int64, watermark_ms: Int64) -> Bool:
        """Return which windows no row can change any more, given their devices' watermarks."""
        over: Bool = watermark_ms >= closes_ms + self._tumbling.horizon_ms
        return over

    def take(self, slots: Int64) -> dict[str, Any]:
        """Return copies of some windows, as :meth:`restore` takes them but for their series."""
        return {"windows": self._windows.select(slots), "kept": self._aggregates.snapshot(slots)}

    def drop(self, slots: Int64) -> None:
        """Forget closed windows, of which the caller has a copy."""
        gone = np.zeros(len(self._windows), np.bool_)
        gone[slots] = True
        self._aggregates.renumber(self._drop_windows(gone))

    def _bring_back(self, rows: Rows, start_ms: Int64) -> None:
        """Ask for the windows of late rows that are not here."""
        closes_ms = self._tumbling.end_of(start_ms) + self._tumbling.grace_ms
        late = np.flatnonzero(rows.before_ms >= closes_ms)
        if not len(late):
            return
        series, start_ms = rows.series[late], start_ms[late]
        absent = self._windows.find(series, start_ms) < 0
        if absent.any() and self.recall is not None:
            self.recall(series[absent], start_ms[absent])

    def given_up(self) -> int:
        """See :class:`~streams.core.operators.Operator`."""
        return self._aggregates.given_up

    def _content(self, slots: Int64) -> Arrays:
        return self._aggregates.of_panes(self._windows.columns, slots)
