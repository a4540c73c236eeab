"""Window definitions: the arithmetic of windows, on integer milliseconds.

Windows are half-open, ``[start, end)``. A window closes when its device's watermark reaches
``end + grace_ms`` (revision 0), and later readings correct it until the watermark has gone
``horizon_ms`` further.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import gcd

import numpy as np

from streams.core.readings import Int64

QUANTILES = "quantiles"
ORDERED = ("first", "last", "delta", "rate")
"""Aggregates that follow from the first and the last reading in event time."""
TRENDS = ("trend", "trend_last")
"""The line of least squares through the readings: its slope, and its value at the last one."""
TIME_WEIGHTED_MEAN = "time_weighted_mean"
DISTINCT = "distinct"
KEEPING = (TIME_WEIGHTED_MEAN, DISTINCT)
"""Aggregates for which a pane keeps single readings or values, up to ``max_points``."""
DEFAULT_MAX_POINTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What all kinds of windows have in common.

    ``metrics`` are globs; ``aggregates`` are those beyond count, sum, min, max, mean and sd:
    names of :data:`ORDERED`, :data:`TRENDS` and :data:`KEEPING`, or ``p50``, ``p99`` and so on for
    quantiles. ``max_points`` bounds what is kept for those of :data:`KEEPING`.
    """

    name: str
    metrics: tuple[str, ...] = ("*",)
    grace_ms: int = 0
    horizon_ms: int = 0
    aggregates: tuple[str, ...] = ()
    max_points: int = field(default=DEFAULT_MAX_POINTS, repr=False)

    @property
    def written(self) -> str:
        """The definition as stored state names it: whatever decides a result is in there."""
        keeps = any(name in KEEPING for name in self.aggregates)
        return f"{self!r}, max_points={self.max_points}" if keeps else repr(self)

    @property
    def reach_ms(self) -> int:
        """How far behind the watermark a reading can be that a window still takes, at most."""
        raise NotImplementedError

    def applies_to(self, metric: str) -> bool:
        """Whether the definition's globs match a metric."""
        return any(fnmatchcase(metric, glob) for glob in self.metrics)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tumbling(Window):
    """Windows ``[start, start + size_ms)`` with ``start = offset_ms (mod size_ms)``."""

    size_ms: int
    offset_ms: int = 0

    @property
    def reach_ms(self) -> int:
        """See :class:`Window`."""
        return self.size_ms + self.grace_ms + self.horizon_ms

    def start_of(self, t_ms: Int64) -> Int64:
        """Return the start of the window of each time."""
        return t_ms - (t_ms - self.offset_ms) % self.size_ms

    def end_of(self, start_ms: Int64) -> Int64:
        """Return the end of each window."""
        return start_ms + self.size_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar(Window):
    """Windows between given boundaries: days, weeks or months of a time zone.

    ``calendar`` names the boundaries: definitions are told apart by it. ``boundaries_ms`` int64,
    ascending, covers every time that a reading can have.
    """

    calendar: str
    boundaries_ms: Int64 = field(repr=False, compare=False)

    @property
    def reach_ms(self) -> int:
        """See :class:`Window`."""
        return int(np.diff(self.boundaries_ms).max()) + self.grace_ms + self.horizon_ms

    def start_of(self, t_ms: Int64) -> Int64:
        """Return the start of the window of each time."""
        at = np.searchsorted(self.boundaries_ms, t_ms, side="right") - 1
        start: Int64 = self.boundaries_ms[at]
        return start

    def end_of(self, start_ms: Int64) -> Int64:
        """Return the end of each window."""
        end: Int64 = self.boundaries_ms[np.searchsorted(self.boundaries_ms, start_ms, "right")]
        return end


@dataclass(frozen=True, slots=True, kw_only=True)
class Hopping(Window):
    """Windows of ``size_ms`` that begin every ``step_ms``, from ``offset_ms`` on.

    Readings are folded once, into slices that all windows share; a slice is as wide as size and
    step allow. A reading is late when the last window that shares its slice takes no more, so
    that all windows over a slice always agree on what is in it.
    """

    size_ms: int
    step_ms: int
    offset_ms: int = 0

    @property
    def slice_ms(self) -> int:
        """Width of a slice."""
        return gcd(self.size_ms, self.step_ms)

    @property
    def slices(self) -> int:
        """Slices in a window."""
        return self.size_ms // self.slice_ms

    @property
    def reach_ms(self) -> int:
        """See :class:`Window`."""
        return 2 * self.size_ms + self.grace_ms + self.horizon_ms

    def slice_of(self, t_ms: Int64) -> Int64:
        """Return the start of the slice of each time."""
        return t_ms - (t_ms - self.offset_ms) % self.slice_ms

    def last_start(self, slice_ms: Int64) -> Int64:
        """Return the start of the last window that covers each slice."""
        return slice_ms - (slice_ms - self.offset_ms) % self.step_ms

    def first_start(self, slice_ms: Int64) -> Int64:
        """Return the start of the first window that covers each slice."""
        reach = slice_ms + self.slice_ms - self.size_ms
        return reach + (self.offset_ms - reach) % self.step_ms

    def starts_over(self, slice_ms: Int64) -> tuple[Int64, Int64]:
        """Return all windows over some slices: positions in *slice_ms*, and window starts."""
        last = self.last_start(slice_ms)
        most = -(-self.size_ms // self.step_ms)
        starts = last[:, None] - self.step_ms * np.arange(most)[::-1]
        over = starts + self.size_ms > slice_ms[:, None]
        at, _ = np.nonzero(over)
        return at, starts[over]

    def end_of(self, start_ms: Int64) -> Int64:
        """Return the end of each window."""
        return start_ms + self.size_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Window):
    """Windows of activity: readings less than ``gap_ms`` apart belong together.

    A session reaches from its first reading to ``gap_ms`` after its last; it is known by its
    start, so a reading that comes late may replace one session by another.
    """

    gap_ms: int

    @property
    def reach_ms(self) -> int:
        """See :class:`Window`."""
        return self.gap_ms + self.grace_ms + self.horizon_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Sliding(Window):
    """One window for each event time of a series' readings, at which it ends.

    Over the last ``size_ms``: the readings of ``(t - size_ms, t]``, told as the window
    ``[t - size_ms + 1, t + 1)``. Or over the ``last`` readings up to and including those at ``t``,
    by event time and then arrival, told as ``[t, t + 1)``: how far it reaches back changes with a
    correction, so it is known by its end alone. Either, never both.

    ``max_points`` bounds what a series keeps, above ``last``.
    """

    max_points: int = DEFAULT_MAX_POINTS
    size_ms: int | None = None
    last: int | None = None

    @property
    def width_ms(self) -> int:
        """Of a window, from start to end."""
        return 1 if self.size_ms is None else self.size_ms

    @property
    def reading_count(self) -> int:
        """Most readings of a window over the last ones."""
        assert self.last is not None
        return self.last

    @property
    def reach_ms(self) -> int:
        """See :class:`Window`."""
        return self.width_ms + self.grace_ms + self.horizon_ms

    def start_of(self, t_ms: Int64) -> Int64:
        """Return the start of the window that ends at each time."""
        return t_ms - (self.width_ms - 1)

    def end_of(self, start_ms: Int64) -> Int64:
        """Return the end of each window."""
        return start_ms + self.width_ms

    def first_needed(self, times_ms: Sequence[int] | Int64, watermark_ms: int) -> int:
        """Return the first of ascending points that a window needs which has not closed yet.

        With the horizon taken off the watermark: which needs it for a correction.
        """
        open_ms = watermark_ms - self.grace_ms
        if self.size_ms is not None:
            return bisect_left(times_ms, open_ms - self.size_ms + 1)
        return max(0, bisect_left(times_ms, open_ms) - (self.reading_count - 1))

    def edge_ms(self, times_ms: Sequence[int], first: int) -> int:
        """Return the least time whose window is whole, when points before *first* are given up."""
        if self.size_ms is not None:
            return times_ms[first - 1] + self.size_ms
        return times_ms[first + max(0, self.reading_count - 2)]
