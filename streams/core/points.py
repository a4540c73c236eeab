"""The readings that a series keeps for its sliding windows, and windows folded from them.

A reading that is kept is a *point*. Points lie in order of event time, those of equal time in
order of arrival, so that a window over the last readings or milliseconds is one slice of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from streams.core.aggregates import Aggregates, Arrays, Rows
from streams.core.columns import Columns
from streams.core.readings import Bool, Float64, Int32, Int64

T_MS, VALUE, SITE, RECEIVED_MS, KAFKA_MS, ARRIVAL = range(6)
"""Lines of a block of points: int64[6, n], where the line of values is float64 in its bits."""
_LINES = 6
_LEAST = 8
NO_POINTS: Int64 = np.empty((_LINES, 0), np.int64)
_FOLDED_AT_ONCE = 1 << 18


class Points:
    """The points of one series.

    ``edge_ms`` is the least event time that is still taken: it rises where points were given up
    because there were too many. The first ``lost`` points are given up, but still there.
    """

    __slots__ = ("_arrivals", "_block", "device", "edge_ms", "lost", "n", "sweep_at")

    def __init__(self, device: int, block: Int64 | None = None, edge_ms: int = -1) -> None:
        self.device = device
        self._block: Int64 = NO_POINTS if block is None else block
        self.n = self._block.shape[1]
        self.edge_ms = edge_ms
        self.lost = 0
        self.sweep_at = max(_LEAST, 2 * self.n)
        self._arrivals = int(self._block[ARRIVAL].max(initial=-1)) + 1

    @property
    def block(self) -> Int64:
        """A view of all points: int64[6, n]."""
        return self._block[:, : self.n]

    @property
    def t_ms(self) -> Int64:
        """A view of their event times, ascending."""
        return self._block[T_MS, : self.n]

    def add(self, block: Int64) -> Int64:
        """Put in points.

        :param block: in order of arrival; which that is, is filled in here.
        :returns: int64, the number of each in the order of arrival of this series.
        """
        n, m = self.n, block.shape[1]
        arrival = block[ARRIVAL] = np.arange(self._arrivals, self._arrivals + m)
        self._arrivals += m
        if n + m > self._block.shape[1]:
            grown = np.empty((_LINES, max(_LEAST, 2 * n, n + m)), np.int64)
            grown[:, :n] = self.block
            self._block = grown
        self._block[:, n : n + m] = block
        self.n = n + m
        times = self._block[T_MS, max(0, n - 1) : n + m]
        if (times[1:] < times[:-1]).any():
            first = int(np.searchsorted(self._block[T_MS, :n], block[T_MS].min(), side="right"))
            tail = self._block[:, first : n + m]
            tail[:] = tail[:, np.argsort(tail[T_MS], kind="stable")]
        return arrival

    def forget(self, first: int) -> None:
        """Drop the first points."""
        if first:
            kept = self.n - first
            self._block[:, :kept] = self._block[:, first : self.n].copy()
            self.n = kept
            self.lost = max(0, self.lost - first)
        self.sweep_at = max(_LEAST, 2 * self.n)
        if self._block.shape[1] > 2 * self.sweep_at:
            self._block = self._block[:, : self.sweep_at].copy()


def block_of(rows: Rows) -> Int64:
    """Return rows as points whose arrival is not numbered yet."""
    block = np.empty((_LINES, len(rows)), np.int64)
    block[T_MS] = rows.t_ms
    block[VALUE] = rows.value.view(np.int64)
    block[SITE] = rows.site
    block[RECEIVED_MS] = rows.received_ms
    block[KAFKA_MS] = rows.kafka_ms
    return block


def values_of(block: Int64) -> Float64:
    """Return the line of values."""
    return np.ascontiguousarray(block[VALUE]).view(np.float64)


def fold_slices(declared: tuple[str, ...], block: Int64, low: Int64, high: Int64) -> Arrays:
    """Return the results of windows, each a slice ``[low, high)`` of the points of a block.

    The points are added one after the other in their order, as
    :class:`~streams.core.aggregates.Aggregates` says.
    """
    parts = []
    for at in _pieces(high - low):
        owner, place = ragged(low[at], high[at])
        part = block[:, place]
        # A window has no more points than its series may keep.
        aggregates = Aggregates(declared, len(place))
        columns = Columns(aggregates.spec)
        columns.grow_to(len(at))
        # Only the lines of the points are read of these rows.
        nobody = part[SITE].astype(np.int32)
        rows = Rows(
            series=nobody,
            device=nobody,
            site=nobody,
            t_ms=part[T_MS],
            before_ms=part[T_MS],
            received_ms=part[RECEIVED_MS],
            kafka_ms=part[KAFKA_MS],
            value=values_of(part),
        )
        aggregates.add(columns, owner, rows, np.flatnonzero(np.diff(owner, prepend=-1)))
        parts.append(aggregates.of_panes(columns, np.arange(len(at))))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def ragged(low: Int64, high: Int64) -> tuple[Int64, Int64]:
    """Return, for all places in some slices, the number of the slice, and the place."""
    length = high - low
    owner = np.repeat(np.arange(len(low)), length)
    begins = np.cumsum(length) - length
    return owner, np.arange(len(owner)) - begins[owner] + low[owner]


def runs(owners: Int32) -> Iterator[Int64]:
    """Yield the positions of each owner, in order."""
    order = np.argsort(owners, kind="stable")
    if len(order):
        yield from np.split(order, np.flatnonzero(np.diff(owners[order])) + 1)


def distinct(ascending: Int64) -> Int64:
    """Return ascending numbers without repetitions."""
    new: Bool = np.ones(len(ascending), np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=new[1:])
    return ascending[new]


def _pieces(length: Int64) -> Iterator[Int64]:
    """Cut windows into pieces of not too many points together; at least one piece."""
    cuts = np.cumsum(length) // _FOLDED_AT_ONCE
    yield from np.split(np.arange(len(length)), np.flatnonzero(np.diff(cuts)) + 1)
