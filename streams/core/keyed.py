"""Rows of state by (series, time): a table that is looked up a batch at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from streams.core.columns import Columns
from streams.core.index import ABSENT, Index
from streams.core.readings import Bool, Int32, Int64
from streams.core.segments import TIME_LIMIT_MS

_KEY: dict[str, tuple[Any, Any]] = {"series": (np.int32, 0), "start_ms": (np.int64, 0)}


class Keyed:
    """Columns with one row, its *slot*, per (series, start_ms).

    :param spec: the other columns: name -> (dtype, value of a new row).
    """

    def __init__(self, spec: dict[str, tuple[Any, Any]]) -> None:
        self.columns = Columns({**_KEY, **spec})
        self._index = Index(self._keys_of)

    def __len__(self) -> int:
        return self.columns.n

    def slots_of(self, series: Int32, start_ms: Int64) -> tuple[Int64, Int64]:
        """Return the slot of each row, making what is not there.

        :returns: int64[n] slots; int64[m], the first row of each slot that was made.
        """
        keys = _keys(series, start_ms)
        slots = self._index.find(keys).astype(np.int64)
        missing = np.flatnonzero(slots == ABSENT)
        if not len(missing):
            return slots, missing
        fresh, first, inverse = np.unique(keys[missing], return_index=True, return_inverse=True)
        made = np.arange(len(self), len(self) + len(fresh))
        heads = missing[first]
        self.columns.append({"series": series[heads], "start_ms": start_ms[heads]}, len(heads))
        self._index.add(made.astype(np.int32))
        slots[missing] = made[inverse]
        return slots, heads

    def find(self, series: Int32, start_ms: Int64) -> Int64:
        """Return the slot of each row, -1 where there is none."""
        return self._index.find(_keys(series, start_ms)).astype(np.int64)

    def drop(self, gone: Bool) -> Int64:
        """Forget rows; return the new slot of each old one, -1 for those that went."""
        new = np.where(gone, -1, np.cumsum(~gone) - 1)
        self.columns.keep(~gone)
        self._index.replace(np.arange(len(self), dtype=np.int32))
        return new

    def select(self, slots: Int64) -> dict[str, np.ndarray[Any, Any]]:
        """Return copies of some rows."""
        return self.columns.select(slots)

    def extend(self, rows: dict[str, np.ndarray[Any, Any]]) -> Int64:
        """Add rows that were selected once, under keys that are not there; return their slots."""
        n = len(rows["series"])
        slots = np.arange(len(self), len(self) + n)
        self.columns.append(rows, n)
        self._index.add(slots.astype(np.int32))
        return slots

    def _keys_of(self, slots: Int32) -> Int64:
        return _keys(self.columns["series"][slots], self.columns["start_ms"][slots])


def _keys(series: Int32, start_ms: Int64) -> Int64:
    keys: Int64 = series.astype(np.int64) * TIME_LIMIT_MS + start_ms
    return keys
