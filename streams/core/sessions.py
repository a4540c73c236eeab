"""Session windows: how long they are follows from the readings, and a late one can join two.

::

    gap 6         a   b        c          a and b: [0, 10), c: [13, 19)
              ----0---4--------13----->
    then d at 8:  a   b   d    c          all four: [0, 19); the session that began at 13 is
              ----0---4---8----13----->   told as retracted, with its next revision

A session is known by its start. When its start changes, or two sessions become one, each key that
was told, or was due to be told before the reading came, gets a retraction: so it does not depend
on the batches whether there is one. Once a session was to be told, each further reading is a
correction of it, also where it moves the session's end beyond the watermark again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streams.core.aggregates import NO_ROWS, Aggregates, Arrays, Rows
from streams.core.columns import Columns
from streams.core.emission import Writer
from streams.core.open_windows import LIFE, OpenWindows, WatermarkOf
from streams.core.readings import Bool, Int32, Int64
from streams.core.results import PROVISIONAL, WindowResults
from streams.core.windows import Session

_SWEEP_AT = 4096
_PLACE: dict[str, tuple[Any, Any]] = {
    "series": (np.int32, 0),
    "start_ms": (np.int64, 0),
    "last_ms": (np.int64, 0),
    "joined": (np.bool_, False),
}
"""``joined`` marks a session that has become part of another."""


@dataclass(slots=True)
class Span:
    """One session in time: its columns' slot, its first and last reading."""

    slot: int
    start_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Retraction:
    """A key that is no more."""

    series: int
    start_ms: int
    end_ms: int
    rank: int
    site: int


class SessionOperator:
    """The sessions of all series, reading by reading: each may change what the next one meets."""

    def __init__(self, definition: Session, writer: Writer) -> None:
        self._definition = definition
        self._writer = writer
        self._aggregates = Aggregates(definition.aggregates, definition.max_points)
        self._columns = Columns({**_PLACE, **LIFE, **self._aggregates.spec})
        self._open = OpenWindows(self._columns)
        self._spans: dict[int, list[Span]] = {}
        self._retractions: list[Retraction] = []
        self._corrected: set[int] = set()
        self._sweep_at = _SWEEP_AT

    def takes(self, t_ms: Int64, before_ms: Int64) -> Bool:
        """See :class:`~streams.core.operators.Operator`."""
        taken: Bool = before_ms < t_ms + self._definition.reach_ms
        return taken

    def add(self, rows: Rows) -> Int64:
        """See :class:`~streams.core.operators.Operator`."""
        slots = np.empty(len(rows), np.int64)
        fresh: list[int] = []
        folded = 0
        facts = zip(
            rows.series.tolist(),
            rows.device.tolist(),
            rows.t_ms.tolist(),
            rows.before_ms.tolist(),
            strict=True,
        )
        for i, (series, device, t_ms, before_ms) in enumerate(facts):
            met = self._met(series, t_ms)
            if len(met) > 1 or (met and t_ms < met[0].start_ms):
                # Sums follow the order of arrival: what came before goes in before they join,
                # and before a key is retracted.
                self._fold(rows, slots, fresh, folded, i)
                folded, fresh = i, []
            if not met:
                met = [self._begin(series, device, t_ms)]
                fresh.append(i)
            slots[i] = met[0].slot
            self._stretch(series, met, t_ms, before_ms)
        self._fold(rows, slots, fresh, folded, len(rows))
        return NO_ROWS

    def _met(self, series: int, t_ms: int) -> list[Span]:
        """Return the sessions that a reading belongs to, the earliest first."""
        gap_ms = self._definition.gap_ms
        spans = self._spans.get(series, ())
        return [s for s in spans if s.start_ms - gap_ms < t_ms < s.last_ms + gap_ms]

    def _begin(self, series: int, device: int, t_ms: int) -> Span:
        slot = self._columns.n
        self._columns.grow_to(slot + 1)
        span = Span(slot, t_ms, t_ms)
        spans = self._spans.setdefault(series, [])
        spans.append(span)
        spans.sort(key=lambda s: s.start_ms)
        c = self._columns
        c["series"][slot], c["start_ms"][slot], c["last_ms"][slot] = series, t_ms, t_ms
        self._open.put(np.asarray([slot]), np.asarray([device], np.int32), self._closes(span))
        return span

    def _closes(self, span: Span) -> Int64:
        return np.asarray([span.last_ms + self._definition.gap_ms + self._definition.grace_ms])

    def _stretch(self, series: int, met: list[Span], t_ms: int, before_ms: int) -> None:
        """Make one session of those that a reading has met, and let it reach to the reading."""
        span = met[0]
        closed = [before_ms >= self._closes(s)[0] or self._columns["idle"][s.slot] for s in met]
        if t_ms >= span.start_ms and len(met) == 1 and not closed[0]:
            if t_ms > span.last_ms:
                span.last_ms = t_ms
                self._write(span)
            return
        start_ms = min(span.start_ms, t_ms)
        for other, was_closed in zip(met, closed, strict=True):
            if other.start_ms != start_ms:
                self._retract(series, other, was_closed=was_closed)
        for other in met[1:]:
            self._join(series, span, other)
        span.start_ms, span.last_ms = start_ms, max(t_ms, *(s.last_ms for s in met))
        self._write(span)
        if any(closed):
            self._correct(span.slot)

    def _retract(self, series: int, span: Span, *, was_closed: bool) -> None:
        c, slot = self._columns, span.slot
        if was_closed or c["shown"][slot]:
            end_ms = span.last_ms + self._definition.gap_ms
            rank = int(c["late"][slot]) + was_closed
            site = int(c["site"][slot])
            self._retractions.append(Retraction(series, span.start_ms, end_ms, rank, site))

    def _join(self, series: int, span: Span, other: Span) -> None:
        c = self._columns
        self._aggregates.absorb(c, span.slot, other.slot)
        c["late"][span.slot] += c["late"][other.slot]
        c["joined"][other.slot] = True
        self._open.close(np.asarray([other.slot]))
        self._corrected.discard(other.slot)
        self._spans[series].remove(other)

    def _correct(self, slot: int) -> None:
        c = self._columns
        c["late"][slot] += 1
        if not c["closed"][slot]:
            self._open.close(np.asarray([slot]))
        # From now on every reading is a correction, whatever the watermark says.
        c["idle"][slot] = True
        self._corrected.add(slot)

    def _write(self, span: Span) -> None:
        c, slot = self._columns, span.slot
        c["start_ms"][slot], c["last_ms"][slot] = span.start_ms, span.last_ms
        c["closes_ms"][slot] = self._closes(span)[0]

    def _fold(self, rows: Rows, slots: Int64, fresh: list[int], begin: int, end: int) -> None:
        if begin < end:
            first = np.asarray(fresh, np.int64) - begin
            part = rows.take(np.arange(begin, end))
            self._aggregates.add(self._columns, slots[begin:end], part, first)

    # -- results ------------------------------------------------------------------------

    def emit(self, devices: Int64 | Int32, watermark_ms: Int64) -> list[WindowResults]:
        """See :class:`~streams.core.operators.Operator`."""
        again = np.asarray(sorted(self._corrected), np.int64)
        self._corrected.clear()
        due = self._open.due(devices, watermark_ms)
        if len(due):
            self._open.close(due)
        return [
            *self._told_retractions(),
            *self._told(due, "closed"),
            *self._told(again, "late"),
        ]

    def show(self, devices: Int64 | Int32) -> list[WindowResults]:
        """See :class:`~streams.core.operators.Operator`."""
        slots = self._open.of(devices)
        slots = slots[self._open.news(slots, self._columns["count"][slots])]
        return self._told(slots, "provisional", np.full(len(slots), PROVISIONAL, np.int32))

    def finish(self, devices: Int64 | Int32) -> list[WindowResults]:
        """See :class:`~streams.core.operators.Operator`."""
        slots = self._open.of(devices)
        if len(slots):
            self._open.close(slots, idle=True)
        return self._told(slots, "idle")

    def has_open(self, devices: Int64 | Int32) -> Bool:
        """See :class:`~streams.core.operators.Operator`."""
        return self._open.has_open(devices)

    def given_up(self) -> int:
        """See :class:`~streams.core.operators.Operator`."""
        return self._aggregates.given_up

    def _told(self, slots: Int64, reason: str, rank: Int32 | None = None) -> list[WindowResults]:
        if not len(slots):
            return []
        c = self._columns
        end = c["last_ms"][slots] + self._definition.gap_ms
        found = self._aggregates.of_panes(c, slots)
        rank = c["late"][slots] if rank is None else rank
        series, start = c["series"][slots], c["start_ms"][slots]
        return [self._writer.results(series, start, end, rank, reason=reason, found=found)]

    def _told_retractions(self) -> list[WindowResults]:
        gone, self._retractions = self._retractions, []
        if not gone:
            return []
        return [
            self._writer.retractions(
                np.asarray([r.series for r in gone], np.int32),
                np.asarray([r.start_ms for r in gone], np.int64),
                np.asarray([r.end_ms for r in gone], np.int64),
                np.asarray([r.rank for r in gone], np.int32),
                np.asarray([r.site for r in gone], np.int32),
            )
        ]

    # -- state --------------------------------------------------------------------------

    def sweep(self, watermark_of: WatermarkOf) -> None:
        """See :class:`~streams.core.operators.Operator`."""
        c, d = self._columns, self._definition
        if c.n < self._sweep_at:
            return
        # A reading up to a gap after the last one may still join, within its own horizon.
        kept_ms = d.horizon_ms + d.gap_ms
        gone = c["closed"] & (watermark_of(c["device"]) >= c["closes_ms"] + kept_ms)
        self._drop(gone)
        self._sweep_at = max(_SWEEP_AT, 2 * c.n)

    def forget(self, series: Bool, devices: Int64) -> None:
        """See :class:`~streams.core.operators.Operator`."""
        self._drop(series[self._columns["series"]])

    def _drop(self, gone: Bool) -> None:
        """Drop sessions, and those that are part of another: none of them is listed again."""
        gone = gone | self._columns["joined"]
        new = np.where(gone, -1, np.cumsum(~gone) - 1)
        self._columns.keep(~gone)
        self._open.renumber(new)
        self._aggregates.renumber(new)
        self._list_spans(np.arange(self._columns.n), clear=True)

    def snapshot(self, series: Int64) -> dict[str, Any]:
        """See :class:`~streams.core.operators.Operator`."""
        owner = self._columns["series"]
        slots = np.flatnonzero(np.isin(owner, series) & ~self._columns["joined"])
        rows = self._columns.select(slots)
        rows["series"] = np.searchsorted(series, rows["series"]).astype(np.int32)
        return {"sessions": rows, "kept": self._aggregates.snapshot(slots)}

    def restore(self, state: dict[str, Any], series: Int32, device: Int32, site: Int32) -> None:
        """See :class:`~streams.core.operators.Operator`."""
        rows: Arrays = dict(state["sessions"])
        n = len(rows["series"])
        if not n:
            return
        slots = np.arange(self._columns.n, self._columns.n + n)
        mine = rows["series"]
        rows |= {"series": series[mine], "device": device[mine], "site": site[rows["site"]]}
        self._columns.append(rows, n)
        self._open.relist(slots[~rows["closed"]])
        self._aggregates.restore(state["kept"], slots)
        self._list_spans(slots)

    def _list_spans(self, slots: Sequence[int] | Int64, *, clear: bool = False) -> None:
        if clear:
            self._spans = {}
        c = self._columns
        places = zip(
            np.asarray(slots).tolist(),
            c["series"][slots].tolist(),
            c["start_ms"][slots].tolist(),
            c["last_ms"][slots].tolist(),
            strict=True,
        )
        for slot, series, start_ms, last_ms in places:
            self._spans.setdefault(series, []).append(Span(slot, start_ms, last_ms))
        for spans in self._spans.values():
            spans.sort(key=lambda s: s.start_ms)
