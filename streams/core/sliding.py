"""Sliding windows: over the last readings or the last milliseconds, one at each reading.

::

    size 10           a     b   c     d        at a: [-6, 4): a       at b: [0, 10): a, b
                  ----3-----9--12-----20-->    at c: [3, 13): a, b, c at d: [11, 21): c, d
    then e at 11:     a     b e c     d        a window of its own, [2, 12): a, b, e; it corrects
                  ----3-----9-11-12---20-->    those at c (a, b, e, c) and at d (e, c, d)

    last 2                                     at a: a   at b: a, b   at c: b, c   at d: c, d
    then e at 11:                              at e: b, e   at c: e, c   that at d does not change

A window is known by the event time at which it ends: readings of one series and time share it. It
closes when the watermark passes that time, and a later reading corrects every window that has
closed and that it now falls into. It is folded from its points each time that it is told.

A series keeps its points until the horizon: and no more than ``max_points``. Where one more comes,
the oldest point is given up, and with it the corrections of the windows that reach so far back:
readings that such a window would be told for are taken no more. A point that a window needs which
has not closed yet is never given up; the reading that comes then is not taken instead. So no window
is ever told without a point that was taken. All of this is decided reading by reading; points that
were given up are there until what they were taken for has been told.
"""

from __future__ import annotations

from bisect import bisect_right, insort_right
from typing import Any

import numpy as np

from streams.core.aggregates import Arrays, Rows
from streams.core.aligned import AlignedOperator, rows_of
from streams.core.columns import Columns
from streams.core.emission import Writer
from streams.core.keyed import Keyed
from streams.core.open_windows import LIFE, WatermarkOf
from streams.core.points import (
    ARRIVAL,
    NO_POINTS,
    SITE,
    T_MS,
    Points,
    block_of,
    distinct,
    fold_slices,
    ragged,
    runs,
)
from streams.core.readings import Bool, Int32, Int64
from streams.core.results import PROVISIONAL, WindowResults
from streams.core.windows import Sliding

SPAN_MS = "span_ms"
"""From the oldest reading inside to the newest: a window over the last readings says it."""
_SWEEP_AT = 4096


class SlidingOperator(AlignedOperator):
    """The windows of all series. Points lie by series, so that a batch costs what it touches."""

    def __init__(self, definition: Sliding, writer: Writer) -> None:
        super().__init__(definition, Keyed(LIFE), writer)
        self._sliding = definition
        self._points: dict[int, Points] = {}
        self._devices = Columns({"idle_until_ms": (np.int64, -1), "told_until_ms": (np.int64, -1)})
        self._dropped = 0
        self._held = 0
        self._sweep_points_at = _SWEEP_AT

    def takes(self, t_ms: Int64, before_ms: Int64) -> Bool:
        """See :class:`~streams.core.operators.Operator`."""
        d = self._sliding
        taken: Bool = before_ms < t_ms + (1 + d.grace_ms + d.horizon_ms)
        return taken

    def add(self, rows: Rows) -> Int64:
        """See :class:`~streams.core.operators.Operator`."""
        taken = np.ones(len(rows), np.bool_)
        arrival = np.empty(len(rows), np.int64)
        self._devices.grow_to(int(rows.device.max()) + 1)
        block = block_of(rows)
        for mine in runs(rows.series):
            points = self._points_of(int(rows.series[mine[0]]), int(rows.device[mine[0]]))
            admitted = self._admit(points, rows.t_ms[mine], rows.before_ms[mine])
            taken[mine] = admitted
            at = mine if admitted.all() else mine[admitted]
            if len(at):
                arrival[at] = points.add(block[:, at])
        refused = np.flatnonzero(~taken)
        if len(refused):
            rows, arrival = rows.take(taken), arrival[taken]
        if len(rows):
            self._held += len(rows)
            self._start(rows.series, rows.device, self._sliding.start_of(rows.t_ms))
            self._count_late(rows, arrival)
        return refused

    def emit(self, devices: Int64 | Int32, watermark_ms: Int64) -> list[WindowResults]:
        """See :class:`~streams.core.operators.Operator`."""
        told = super().emit(devices, watermark_ms)
        self._devices.grow_to(int(devices.max(initial=-1)) + 1)
        self._devices["told_until_ms"][devices] = watermark_ms
        return told

    def show(self, devices: Int64 | Int32) -> list[WindowResults]:
        """See :class:`~streams.core.operators.Operator`."""
        slots = self._open.of(devices)
        if not len(slots):
            return []
        block, low, high = self._slices(slots)
        owner, place = ragged(low, high)
        newest = np.zeros(len(slots), np.int64)
        # What is inside has changed exactly if a newer reading is: their number may be the same.
        np.maximum.at(newest, owner, block[ARRIVAL, place] + 1)
        slots = slots[self._open.news(slots, newest)]
        if not len(slots):
            return []
        ranks = np.full(len(slots), PROVISIONAL, np.int32)
        return self._written(slots, ranks, "provisional", self._content(slots))

    def finish(self, devices: Int64 | Int32) -> list[WindowResults]:
        """See :class:`~streams.core.operators.Operator`."""
        self._note_idle(self._open.of(devices))
        return super().finish(devices)

    def given_up(self) -> int:
        """See :class:`~streams.core.operators.Operator`."""
        return self._dropped

    # -- rows ---------------------------------------------------------------------------

    def _points_of(self, series: int, device: int) -> Points:
        points = self._points.get(series)
        if points is None:
            points = self._points[series] = Points(device)
        return points

    def _admit(self, points: Points, t_ms: Int64, before_ms: Int64) -> Bool:
        """Return which readings of one series are taken, and give up points for them."""
        d, wanted = self._sliding, points.n + len(t_ms)
        if wanted > min(points.sweep_at, d.max_points):
            # Of what closes in this batch, nothing has been told yet.
            self._forget_points(points, int(self._devices["told_until_ms"][points.device]))
        admitted: Bool = t_ms >= points.edge_ms
        if points.n - points.lost + len(t_ms) <= d.max_points:
            return admitted
        times, first = points.t_ms.tolist(), points.lost
        for i, (t, before) in enumerate(zip(t_ms.tolist(), before_ms.tolist(), strict=True)):
            admitted[i] = t >= points.edge_ms
            if not admitted[i]:
                continue
            first = max(first, d.first_needed(times, before - d.horizon_ms))
            if len(times) - first >= d.max_points:
                after = self._without_oldest(times, first, t, before)
                admitted[i] = after > first
                if after == first:
                    continue
                self._dropped += after - first
                first = after
                points.edge_ms = d.edge_ms(times, first)
            insort_right(times, t)
        points.lost = first
        return admitted

    def _without_oldest(self, times: list[int], first: int, t_ms: int, before_ms: int) -> int:
        """Return the first point that stays if the oldest goes: *first* if it has to stay."""
        d = self._sliding
        after = bisect_right(times, times[first]) if d.size_ms else first + 1
        if after > d.first_needed(times, before_ms) or t_ms < d.edge_ms(times, after):
            return first
        return after

    def _count_late(self, rows: Rows, arrival: Int64) -> None:
        """Count rows in every window that had closed before they came and that they fall into."""
        closed_ms = rows.before_ms - (1 + self._sliding.grace_ms)
        closed_ms = np.maximum(closed_ms, self._devices["idle_until_ms"][rows.device])
        late = np.flatnonzero(rows.t_ms <= closed_ms)
        if not len(late):
            return
        series = rows.series[late]
        places = zip(
            series.tolist(),
            rows.t_ms[late].tolist(),
            arrival[late].tolist(),
            closed_ms[late].tolist(),
            strict=True,
        )
        found = [self._over(self._points[s], t, number, until) for s, t, number, until in places]
        at = np.repeat(np.arange(len(late)), [len(times) for times in found])
        start = self._sliding.start_of(np.concatenate(found))
        slots = self._windows.find(series[at], start)
        self._open.count_late(slots, rows.before_ms[late][at])

    def _over(self, points: Points, t_ms: int, arrival: int, until_ms: int) -> Int64:
        """Return the windows, by their times up to *until_ms*, that a reading fell into."""
        d, times = self._sliding, points.t_ms
        if d.size_ms is not None:
            until_ms = min(until_ms, t_ms + d.size_ms - 1)
        begin, end = np.searchsorted(times, [t_ms, until_ms + 1])
        times = times[begin:end][points.block[ARRIVAL, begin:end] <= arrival]
        if d.last is not None:
            own = int(np.searchsorted(times, t_ms, side="right"))
            after = times[own:]
            after = after[np.searchsorted(after, after, side="right") < d.last]
            times = np.concatenate([times[own - 1 : own], after])
        return distinct(times)

    def _note_idle(self, slots: Int64) -> None:
        """Remember until when a device's windows were closed before their watermark came."""
        if len(slots):
            c = self._windows.columns
            device = c["device"][slots]
            self._devices.grow_to(int(device.max()) + 1)
            until_ms = self._sliding.end_of(c["start_ms"][slots]) - 1
            np.maximum.at(self._devices["idle_until_ms"], device, until_ms)

    # -- results ------------------------------------------------------------------------

    def _content(self, slots: Int64) -> Arrays:
        block, low, high = self._slices(slots)
        found = fold_slices(self._sliding.aggregates, block, low, high)
        if self._sliding.last is not None:
            span = block[T_MS, high - 1] - block[T_MS, low]
            found[SPAN_MS] = span.astype(np.float64)
        return found

    def _slices(self, slots: Int64) -> tuple[Int64, Int64, Int64]:
        """Return points, and where in them each window begins and ends."""
        c, d = self._windows.columns, self._sliding
        series, t_ms = c["series"][slots], d.end_of(c["start_ms"][slots]) - 1
        low, high = np.empty(len(slots), np.int64), np.empty(len(slots), np.int64)
        blocks, base = [NO_POINTS], 0
        for at in runs(series):
            points = self._points[int(series[at[0]])]
            high[at] = np.searchsorted(points.t_ms, t_ms[at], side="right")
            low[at] = (
                np.searchsorted(points.t_ms, t_ms[at] - d.size_ms, side="right")
                if d.size_ms is not None
                else np.maximum(high[at] - d.reading_count, 0)
            )
            first, last = int(low[at].min()), int(high[at].max())
            blocks.append(points.block[:, first:last])
            low[at] += base - first
            high[at] += base - first
            base += last - first
        return np.concatenate(blocks, axis=1), low, high

    # -- state --------------------------------------------------------------------------

    def sweep(self, watermark_of: WatermarkOf) -> None:
        """See :class:`~streams.core.operators.Operator`."""
        self._sweep(watermark_of, self._sliding.horizon_ms)
        if self._held < self._sweep_points_at:
            return
        held = list(self._points.values())
        watermark_ms = watermark_of(np.asarray([points.device for points in held], np.int64))
        for points, reached_ms in zip(held, watermark_ms.tolist(), strict=True):
            self._forget_points(points, reached_ms)
        self._points = {series: p for series, p in self._points.items() if p.n}
        self._held = sum(points.n for points in self._points.values())
        self._sweep_points_at = max(_SWEEP_AT, 2 * self._held)

    def forget(self, series: Bool, devices: Int64) -> None:
        """See :class:`~streams.core.operators.Operator`."""
        self._drop_windows(series[self._windows.columns["series"]])
        for one in np.flatnonzero(series).tolist():
            points = self._points.pop(one, None)
            self._held -= points.n if points else 0
        self._devices.reset(devices)

    def _forget_points(self, points: Points, watermark_ms: int) -> None:
        d = self._sliding
        needed = d.first_needed(points.t_ms, watermark_ms - d.horizon_ms)
        points.forget(max(needed, points.lost))

    def snapshot(self, series: Int64) -> dict[str, Any]:
        """See :class:`~streams.core.operators.Operator`."""
        held = [(i, self._points[s]) for i, s in enumerate(series.tolist()) if s in self._points]
        blocks = [points.block[:, points.lost :] for _, points in held]
        return {
            "windows": rows_of(self._windows, series)[1],
            "series": np.asarray([i for i, _ in held], np.int32),
            "points": np.asarray([block.shape[1] for block in blocks], np.int64),
            "edge_ms": np.asarray([points.edge_ms for _, points in held], np.int64),
            "block": np.concatenate([NO_POINTS, *blocks], axis=1),
        }

    def restore(self, state: dict[str, Any], series: Int32, device: Int32, site: Int32) -> None:
        """See :class:`~streams.core.operators.Operator`."""
        if not len(state["series"]):
            return
        slots = self._restore_windows(state["windows"], series, device)
        self._note_idle(slots[state["windows"]["idle"]])
        block: Int64 = state["block"].copy()
        block[SITE] = site[block[SITE]]
        pieces = np.split(block, np.cumsum(state["points"])[:-1], axis=1)
        places = zip(state["series"].tolist(), state["edge_ms"].tolist(), pieces, strict=True)
        for i, edge_ms, piece in places:
            self._points[int(series[i])] = Points(int(device[i]), piece.copy(), edge_ms)
        self._held += block.shape[1]
