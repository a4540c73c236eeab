"""What is sent of the readings that come, by ``[[filters]]``. No I/O.

A filter has state, and readings that come to nothing (a full disk) must leave none: so
:meth:`Filters.offer` says what it would send, and :meth:`Filters.undo` takes it back. State that is
lost (a crash) makes filters begin anew: more is sent, never less. What waited in a swinging door
then is found in the ring (:mod:`edge.keeping`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from prometheus_client import Counter, Gauge

from streams.core.readings import (
    ABSENT,
    ELSEWHERE,
    GOOD,
    TIME_OF_RECEIPT,
    Bool,
    Int64,
    Readings,
    concat_readings,
)
from streams.core.thinning import Deadband, SwingingDoor
from streams.settings import Filter

SENT = 0x40
"""Quality of a row of the ring: it went up."""
RELEASED = 0x80
"""Quality of a row of the ring: one that lies there already has gone up after all."""
MARKS = SENT | RELEASED
_SERIES = Gauge("headwater_edge_filtered_series", "Series that are filtered.")
_BEYOND = Counter(
    "headwater_edge_unfiltered_readings", "Readings sent whole: edge.ring.max_series was met."
)
Series = tuple[str, str]
"""Device and metric."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A reading of an earlier batch that waits."""

    readings: Readings
    row: int


Item = int | _Held
"""A row of the batch that is offered, or one of before."""


@dataclass(slots=True)
class _State:
    door: Deadband[Item] | SwingingDoor[Item]
    max_gap_ms: int


@dataclass(frozen=True, slots=True)
class Offered:
    """What is to become of a batch."""

    up: Readings
    """What goes up; of devices that are filtered without ``boot`` and ``seq``."""
    ring: Readings | None = None
    """What the ring keeps: all of filtered devices as it came, and what is released; marked."""
    before: Mapping[Series, _State | None] = field(default_factory=dict)
    """The filters as they were."""


class Filters:
    """The filters of all series of a site, which are of one tenant. Used from one thread, but for
    :attr:`first`, :attr:`has_windows` and :meth:`windowed`, which know no state."""

    def __init__(
        self,
        filters: Sequence[Filter],
        max_series: int,
        has_windows: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Make filters that have seen nothing.

        :param max_series: how many series are thinned; further ones are sent whole.
        :param has_windows: whether a metric has windows at this edge; one that has none is sent
            whole, whatever its filter says of windows.
        """
        self._max_series = max_series
        self._states: dict[Series, _State] = {}
        windowed = [one for one in filters if one.is_windowed]
        self._makes_windows = bool(windowed)

        def first(device: str, metric: str) -> Filter | None:
            found = next((one for one in filters if one.matches(device, metric)), None)
            if found is None or found.mode == "all":
                return None
            return None if found.is_windowed and not has_windows(metric) else found

        def named(device: str) -> bool:
            for one in filters:
                if one.names(device) and (one.mode != "all" or "*" in one.metrics):
                    return one.mode != "all"
            return False

        self.first: Callable[[str, str], Filter | None] = lru_cache(max_series)(first)
        """The filter of a series; None if all of it goes up."""
        self._is_named: Callable[[str], bool] = lru_cache(max_series)(named)
        self.has_windows: Callable[[str], bool] = lru_cache(max_series)(
            lambda device: any(one.names(device) for one in windowed)
        )
        """Whether a filter makes windows of something of a device."""

    @property
    def series(self) -> int:
        """How many series are filtered."""
        return len(self._states)

    def of_device(self, device: str) -> list[dict[str, Any]]:
        """Return the filters of a device: mode, and the bound that is in force now."""
        return [
            {
                "metric": metric,
                "mode": spec.mode,
                "bound": state.door.bound,
                "bound_by": "noise" if spec.bound is None else "settings",
                "max_gap_ms": state.max_gap_ms,
            }
            for (name, metric), state in sorted(self._states.items())
            if name == device and (spec := self.first(name, metric)) is not None
        ]

    def offer(self, readings: Readings) -> Offered:
        """Return what of *readings* goes up, and what that makes of what waited."""
        named, windowed = self._named(readings), self.windowed(readings)
        # Of a device with windows the ring has all: its numbers and its watermark follow from that.
        kept = named | _of_devices(readings, self.has_windows)
        if not kept.any():
            return Offered(readings)
        passes = ~windowed
        gone: list[_Held] = []
        before: dict[Series, _State | None] = {}
        for series, rows in _by_series(readings, named & ~windowed & _may_wait(readings)):
            state = self._states.get(series)
            before[series] = None if state is None else replace(state, door=copy(state.door))
            if state is None and (state := self._begin(series, len(rows))) is None:
                del before[series]
                continue
            passes[rows] = False
            times, values = readings.t_ms[rows].tolist(), readings.value[rows].tolist()
            for row, t_ms, value in zip(rows.tolist(), times, values, strict=True):
                for item in state.door.offer(t_ms, value, row):
                    if isinstance(item, _Held):
                        gone.append(item)
                    else:
                        passes[item] = True
        self._hold(before, readings)
        _SERIES.set(len(self._states))
        marked = _marked(readings.take(kept), np.where(passes[kept], SENT, 0))
        up = _unnumbered(readings, named).take(passes)
        if not gone:
            return Offered(up, marked, before)
        late = released(_gathered(gone))
        assert late.ring is not None
        return Offered(concat_readings([late.up, up]), concat_readings([late.ring, marked]), before)

    def flush(self, received_before: Callable[[int], int]) -> Offered | None:
        """Return what has waited for too long; None if there is nothing.

        :param received_before: the greatest gap of a series -> what was received before this time
            does not wait any longer.
        """
        found: list[_Held] = []
        before: dict[Series, _State | None] = {}
        for series, state in self._states.items():
            item = state.door.waiting
            if not isinstance(item, _Held):
                continue
            if item.readings.received_ms[item.row] < received_before(state.max_gap_ms):
                before[series] = replace(state, door=copy(state.door))
                state.door.flush()
                found.append(item)
        return replace(released(_gathered(found)), before=before) if found else None

    def undo(self, offered: Offered) -> None:
        """Forget that a batch, the last one, was offered."""
        for series, state in offered.before.items():
            if state is None:
                self._states.pop(series, None)
            else:
                self._states[series] = state

    def _begin(self, series: Series, rows: int) -> _State | None:
        spec = self.first(*series)
        if spec is None:
            return None
        if len(self._states) >= self._max_series:
            _BEYOND.inc(rows)
            return None
        kind = Deadband if spec.mode == "deadband" else SwingingDoor
        made = self._states[series] = _State(kind(spec.bound, spec.max_gap_ms), spec.max_gap_ms)
        return made

    def _hold(self, touched: Iterable[Series], readings: Readings) -> None:
        """Let rows that wait outlast their batch, alone."""
        waiting = [
            (self._states[series].door, row)
            for series in touched
            if isinstance(row := self._states[series].door.waiting, int)
        ]
        if waiting:
            kept = readings.take(np.asarray([row for _, row in waiting], np.int64))
            kept = replace(kept, device=kept.device.compact(), metric=kept.metric.compact())
            for at, (door, _) in enumerate(waiting):
                door.hold(_Held(kept, at))

    def _named(self, readings: Readings) -> Bool:
        """Return which rows a filter is about: of a device that one names, with a time of its own.

        Readings without one are known by their numbers alone, so they keep these, and go up.
        """
        has_time: Bool = readings.quality & TIME_OF_RECEIPT == 0
        found: Bool = _of_devices(readings, self._is_named) & has_time
        return found

    def windowed(self, readings: Readings) -> Bool:
        """Return which rows are numbers whose windows are computed here, instead of being sent."""
        found = np.zeros(len(readings), np.bool_)
        if not self._makes_windows:
            return found
        chosen = np.isfinite(readings.value)
        for series, rows in _by_series(readings, chosen):
            spec = self.first(*series)
            found[rows] = spec is not None and spec.is_windowed
        return found


def _of_devices(readings: Readings, chosen: Callable[[str], bool]) -> Bool:
    """Return which rows are of devices that are chosen."""
    names = np.zeros(len(readings.device.values), np.bool_)
    for code in np.unique(readings.device.codes).tolist():
        names[code] = chosen(readings.device.values[code])
    found: Bool = names[readings.device.codes]
    return found


def released(late: Readings) -> Offered:
    """Return what becomes of readings that lie in the ring and go up after all."""
    ring = replace(late, quality=(late.quality & ~np.uint8(ELSEWHERE)).astype(np.uint8))
    return Offered(_unnumbered(late, np.ones(len(late), np.bool_)), _marked(ring, RELEASED))


def raw_of(ring: Readings) -> Readings:
    """Return rows of the ring as they came, each once."""
    raw = ring.take(ring.quality & RELEASED == 0)
    return replace(raw, quality=(raw.quality & ~np.uint8(MARKS)).astype(np.uint8))


def unsent_of(ring: Readings) -> int:
    """Return by how many more readings lie in the ring alone, with these rows in it."""
    marks = ring.quality & MARKS
    return int(np.count_nonzero(marks == 0)) - int(np.count_nonzero(marks & RELEASED))


def sent_of(ring: Readings) -> int:
    """Return how many readings went up with these rows of the ring."""
    return int(np.count_nonzero(ring.quality & MARKS))


def newest_of(ring: Readings) -> Iterator[tuple[Series, int, Readings | None]]:
    """Give the newest reading of each series that may have waited, and its time.

    :param ring: rows of the ring, in order.
    :returns: series, event time in ms, and the reading; None in its place if it went up.
    """
    sent = (ring.quality & MARKS).astype(np.bool_)
    plain = replace(ring, quality=(ring.quality & ~np.uint8(MARKS)).astype(np.uint8))
    for series, rows in _by_series(plain, _may_wait(plain)):
        newest = rows[np.lexsort((sent[rows], ring.t_ms[rows]))[-1]]
        row = None if sent[newest] else plain.take(np.asarray([newest], np.int64))
        yield series, int(ring.t_ms[newest]), row


def _may_wait(readings: Readings) -> Bool:
    found: Bool = (readings.quality == GOOD) & np.isfinite(readings.value)
    return found


def _by_series(readings: Readings, chosen: Bool) -> Iterator[tuple[Series, Int64]]:
    at = np.flatnonzero(chosen)
    if not len(at):
        return
    metrics = len(readings.metric.values)
    cell = readings.device.codes[at].astype(np.int64) * metrics + readings.metric.codes[at]
    order = np.argsort(cell, kind="stable")
    cuts = np.flatnonzero(np.diff(cell[order])) + 1
    for rows in np.split(at[order], cuts):
        yield (readings.device[int(rows[0])], readings.metric[int(rows[0])]), rows


def _gathered(held: Sequence[_Held]) -> Readings:
    return concat_readings([one.readings.take(np.asarray([one.row])) for one in held])


def _unnumbered(readings: Readings, rows: Bool) -> Readings:
    """Take numbers away: of a message a part may go up now and the rest later."""
    return replace(
        readings,
        boot=np.where(rows, ABSENT, readings.boot),
        seq=np.where(rows, ABSENT, readings.seq),
    )


def _marked(readings: Readings, mark: int | np.ndarray[tuple[int], np.dtype[np.int64]]) -> Readings:
    return replace(readings, quality=(readings.quality | mark).astype(np.uint8))
