"""Growable columns: the structure of arrays in which all state is kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST = 64
_AHEAD = 16
"""One part in so many is made ready beyond the rows that are asked for."""


class Columns:
    """Named arrays of one common length that grows by half, and shrinks when little is left.

    Room beyond the rows is not written to before it is near: until then it takes no memory.

    :param spec: column name -> (dtype, value of a new row).
    """

    def __init__(self, spec: dict[str, tuple[Any, Any]]) -> None:
        self._spec = spec
        self._arrays: dict[str, NDArray[Any]] = {
            name: np.empty(0, dtype) for name, (dtype, _) in spec.items()
        }
        self.n = self._ready = 0

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a writable view of the *n* rows of a column."""
        return self._arrays[name][: self.n]

    def grow_to(self, n: int) -> None:
        """Make room for *n* rows; new ones hold the default of their column."""
        if n > self._ready:
            self._make_ready(n)
        self.n = max(self.n, n)

    def append(self, rows: dict[str, NDArray[Any]], n: int) -> None:
        """Add *n* rows; a column that is not given gets its default."""
        first = self.n
        self.grow_to(first + n)
        for name, values in rows.items():
            self._arrays[name][first : self.n] = values

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drop the rows where *mask* is false."""
        kept = int(mask.sum())
        for name, (_, default) in self._spec.items():
            array = self._arrays[name]
            array[:kept] = array[: self.n][mask]
            array[kept : self.n] = default
        self.n = kept
        if len(array) > _LEAST + 4 * kept:
            self._ready = min(self._ready, _LEAST + 2 * kept)
            self._resize(_LEAST + 2 * kept)

    def reset(self, rows: NDArray[Any]) -> None:
        """Give some rows the defaults again; those that are not there yet have them."""
        rows = rows[rows < self.n]
        for name, (_, default) in self._spec.items():
            self._arrays[name][rows] = default

    def widen(self, names: Iterable[str], dtype: Any) -> None:
        """Give some columns a dtype that holds more."""
        for name in names:
            self._spec = {**self._spec, name: (dtype, self._spec[name][1])}
            self._arrays[name] = self._arrays[name].astype(dtype)

    def _make_ready(self, n: int) -> None:
        """Give the rows from the last ready one to *n*, and some more, the defaults."""
        capacity = len(next(iter(self._arrays.values())))
        if n > capacity:
            capacity = max(_LEAST, capacity + capacity // 2, n)
            self._resize(capacity)
        ready = min(capacity, n + max(_LEAST, n // _AHEAD))
        for name, (_, default) in self._spec.items():
            self._arrays[name][self._ready : ready] = default
        self._ready = ready

    def _resize(self, capacity: int) -> None:
        for name, (dtype, _) in self._spec.items():
            resized = np.empty(capacity, dtype)
            resized[: self._ready] = self._arrays[name][: self._ready]
            self._arrays[name] = resized

    def select(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return copies of some rows of every column."""
        return {name: self[name][rows] for name in self._spec}
