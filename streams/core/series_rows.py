"""Rows of a table that belong to a series, looked up a batch at a time.

What a series is to the rules follows from its names. It is learned when the series is first met;
from then on a batch costs a look at each distinct device, and numpy passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.core.columns import Columns
from streams.core.index import ABSENT, Index
from streams.core.readings import Int64, Labels
from streams.core.results import WindowResults
from streams.core.selectors import Names

_REMEMBERED = 100_000
_DEVICE_BITS = 32
_PACKED = 1 << 62
_SERIES: dict[str, tuple[Any, Any]] = {
    "key": (np.int64, 0),
    "first": (np.int64, 0),
    "count": (np.int64, 0),
}
Learn = Callable[[Names, str], Mapping[str, NDArray[Any]]]
"""From a series and a window to its rows, as columns of one length."""


class SeriesRows:
    """The rows of every series in a window. ``columns`` holds them; they may be written to.

    :param spec: of the columns: name -> (dtype, value of a new row).
    :param learn: asked once for a series, and again when much else was met since.
    """

    def __init__(self, spec: dict[str, tuple[Any, Any]], learn: Learn) -> None:
        self._spec, self._learn = spec, learn
        self._forget()

    def pair(self, found: WindowResults, rows: Int64) -> tuple[Int64, Int64]:
        """Return every pair of a result and a row of its series.

        :param rows: int64[n]: the results to look at.
        :returns: int64[m] rows of *found*, in the order given; int64[m] rows of ``columns``.
        """
        if self._series.n >= _REMEMBERED:
            self._forget()
        series = self._numbers(found, rows)
        count = self._series["count"][series]
        at = np.repeat(np.arange(len(series)), count)
        place = np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count)
        return rows[at], self._series["first"][series][at] + place

    def _numbers(self, found: WindowResults, rows: Int64) -> Int64:
        """Return the number of each result's series."""
        device = _numbered(found.device.take(rows), self._devices)
        rest = [c.take(rows) for c in (found.tenant, found.site, found.metric, found.window)]
        _, first, inverse = np.unique(_packed(rest), return_index=True, return_inverse=True)
        names = zip(*(column.take(first).to_list() for column in rest), strict=True)
        others = [self._others.setdefault(name, len(self._others)) for name in names]
        keys = (np.asarray(others, np.int64)[inverse] << _DEVICE_BITS) + device
        series = self._index.find(keys).astype(np.int64)
        missing = np.flatnonzero(series == ABSENT)
        if len(missing):
            fresh, first, inverse = np.unique(keys[missing], return_index=True, return_inverse=True)
            made = np.empty(len(fresh), np.int64)
            for i in np.argsort(first).tolist():
                made[i] = self._add(found, int(rows[missing[first[i]]]), int(fresh[i]))
            self._index.add(made.astype(np.int32))
            series[missing] = made[inverse]
        return series

    def _add(self, found: WindowResults, row: int, key: int) -> int:
        names = Names(found.tenant[row], found.site[row], found.device[row], found.metric[row])
        learned = dict(self._learn(names, found.window[row]))
        n = len(next(iter(learned.values()), ()))
        number, first = self._series.n, self.columns.n
        facts = {"key": key, "first": first, "count": n}
        self._series.append({name: np.asarray([fact]) for name, fact in facts.items()}, 1)
        if n:
            self.columns.append(learned, n)
        return number

    def _forget(self) -> None:
        """Forget what was learned; it follows from the names."""
        self._devices: dict[str, int] = {}
        self._others: dict[tuple[str, ...], int] = {}
        self._series, self.columns = Columns(_SERIES), Columns(self._spec)
        self._index = Index(lambda series: self._series["key"][series])


def _numbered(column: Labels, known: dict[str, int]) -> Int64:
    """Return the number of each name; new ones get the next."""
    used = np.zeros(len(column.values), np.bool_)
    used[column.codes] = True
    codes = np.flatnonzero(used)
    numbers = np.zeros(len(used), np.int64)
    values = column.values
    numbers[codes] = [known.setdefault(values[code], len(known)) for code in codes.tolist()]
    return numbers[column.codes]


def _packed(columns: list[Labels]) -> Int64:
    """Return int64[n] that are equal where all columns are."""
    packed, size = columns[0].codes.astype(np.int64), len(columns[0].values)
    for column in columns[1:]:
        if size * len(column.values) >= _PACKED:
            _, packed = np.unique(packed, return_inverse=True)
            size = len(packed)
        packed = packed * len(column.values) + column.codes
        size *= len(column.values)
    return packed
