"""What panes keep of single readings, for aggregates that no running number can tell.

The time-weighted mean needs every reading in order of time, the number of distinct values each
value once. Rows lie in one table, in order of arrival, and in lists by pane.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from streams.core.chains import Chains
from streams.core.columns import Columns
from streams.core.index import ABSENT, Index
from streams.core.readings import Float64, Int32, Int64

_ID_BITS = 31
_SCANNED = 200_000
"""Rows up to which looking at all of them is no slower than following lists."""
Spec = dict[str, tuple[Any, Any]]
Kept = dict[str, np.ndarray[Any, Any]]


class _PaneRows:
    """Rows by pane; a subclass says what of readings they hold."""

    def __init__(self, spec: Spec) -> None:
        self._names = tuple(spec)
        self._rows = Columns({"slot": (np.int32, 0), **spec})
        self._of_pane = Chains()

    def renumber(self, new: Int64) -> None:
        """Follow a renumbering of panes; what belongs to those that went (-1) goes too."""
        slot = new[self._rows["slot"]]
        self._rows["slot"][:] = slot
        self._rows.keep(slot >= 0)
        self._of_pane = Chains()
        self._of_pane.insert(self._rows["slot"], np.arange(self._rows.n))

    def snapshot(self, slots: Int64) -> Kept:
        """Return the rows of some panes, with the position in *slots* as their pane."""
        at, rows = self._scan(slots)
        return {
            "slot": at.astype(np.int32),
            **{name: self._rows[name][rows] for name in self._names},
        }

    def restore(self, kept: Kept, slots: Int64) -> None:
        """Add rows of a snapshot; *slots* are the panes of now."""
        self._append(slots[kept["slot"]], {name: kept[name] for name in self._names})

    def _append(self, slots: Int64, columns: Kept) -> None:
        first = self._rows.n
        self._rows.append({"slot": slots, **columns}, len(slots))
        self._of_pane.insert(slots, np.arange(first, self._rows.n))

    def _walk(self, panes: Int64) -> tuple[Int64, Int64]:
        """Return the rows of panes in order of arrival, and whose each is."""
        if self._rows.n <= _SCANNED and len(np.unique(panes)) == len(panes):
            return self._scan(panes)
        at, rows = self._of_pane.walk(panes)
        order = np.argsort(rows)
        return at[order], rows[order]

    def _scan(self, panes: Int64) -> tuple[Int64, Int64]:
        """Do the same for distinct panes, at the cost of all rows instead of that of long lists."""
        slot = self._rows["slot"]
        place = np.full(int(max(slot.max(initial=-1), panes.max(initial=-1))) + 1, -1)
        place[panes] = np.arange(len(panes))
        at = place[slot]
        rows = np.flatnonzero(at >= 0)
        return at[rows], rows


class Steps(_PaneRows):
    """Every reading of a pane: a step function of time."""

    def __init__(self) -> None:
        super().__init__({"t_ms": (np.int64, 0), "value": (np.float64, 0.0)})

    def add(self, slots: Int64, t_ms: Int64, value: Float64) -> None:
        """Keep readings."""
        self._append(slots, {"t_ms": t_ms, "value": value})

    def absorb(self, pane: int, other: int) -> None:
        """Keep for *pane* too what *other* has."""
        _, rows = self._walk(np.asarray([other]))
        kept = {name: self._rows[name][rows] for name in self._names}
        self._append(np.full(len(rows), pane), kept)

    def means(self, owners: Int64, panes: Int64, n: int) -> Float64:
        """Return the time-weighted means of *n* owners, each over the union of its panes.

        A value holds from its reading to the next one: from the first reading to the last. Of
        readings of one moment the last to arrive holds; where there is no other moment, its value
        is the mean. Added in order of time.
        """
        at, rows = self._walk(panes)
        owner, t_ms = owners[at], self._rows["t_ms"][rows]
        order = np.lexsort((t_ms, owner))
        owner, t_ms, value = owner[order], t_ms[order], self._rows["value"][rows[order]]
        mean = np.full(n, np.nan)
        mean[owner] = value  # Of repeated indices the last one wins.
        holds_ms = np.zeros(len(owner), np.int64)
        holds_ms[:-1] = np.where(owner[1:] == owner[:-1], np.diff(t_ms), 0)
        area = np.bincount(owner, value * holds_ms, minlength=n)
        span_ms = np.bincount(owner, holds_ms, minlength=n)
        np.divide(area, span_ms, out=mean, where=span_ms > 0)
        return mean


class States(_PaneRows):
    """Every distinct value of a pane, once; 0.0 and -0.0 are one."""

    def __init__(self) -> None:
        super().__init__({"value": (np.float64, 0.0)})
        self._forget_numbers()

    def add(self, count: Int64, slots: Int64, value: Float64, most: int) -> int:
        """Keep values that their panes have not.

        :param count: how many each pane has, which is raised; beyond *most* values are not kept.
        :returns: how many were not kept.
        """
        value = value + 0.0
        number = self._numbers_of(value)
        fresh, first = np.unique((slots << _ID_BITS) | number, return_index=True)
        new = first[self._index.find(fresh) == ABSENT]
        new.sort()
        np.add.at(count, slots[new], 1)
        kept = new[count[slots[new]] <= most]
        self._append(slots[kept], {"value": value[kept]})
        self._index_more(number[kept])
        return len(new) - len(kept)

    def absorb(self, count: Int64, pane: int, other: int, most: int) -> None:
        """Keep for *pane* too what *other* has."""
        _, rows = self._walk(np.asarray([other]))
        # One that had too many to keep them all has too many still.
        if count[other] > most:
            count[pane] = max(count[pane], count[other])
        self.add(count, np.full(len(rows), pane), self._rows["value"][rows], most)

    def counts(self, owners: Int64, panes: Int64, n: int) -> Float64:
        """Return the numbers of distinct values of *n* owners, each in the union of its panes."""
        at, rows = self._walk(panes)
        owner, value = owners[at], self._rows["value"][rows]
        order = np.lexsort((value, owner))
        owner, value = owner[order], value[order]
        new = np.ones(len(owner), np.bool_)
        new[1:] = (owner[1:] != owner[:-1]) | (value[1:] != value[:-1])
        return np.bincount(owner[new], minlength=n).astype(np.float64)

    def renumber(self, new: Int64) -> None:
        """See :class:`_PaneRows`; numbers of values that no pane has any more go, too."""
        super().renumber(new)
        self._forget_numbers()
        self._index_more(self._numbers_of(self._rows["value"]))

    def restore(self, kept: Kept, slots: Int64) -> None:
        """See :class:`_PaneRows`."""
        super().restore(kept, slots)
        self._index_more(self._numbers_of(kept["value"]))

    def _index_more(self, number: Int32) -> None:
        """Index the last rows, the values of which have these numbers."""
        self._number.append({"of_value": number}, len(number))
        end = self._number.n
        self._index.add(np.arange(end - len(number), end, dtype=np.int32))

    def _forget_numbers(self) -> None:
        self._bits = Columns({"bits": (np.int64, 0)})
        self._numbers = Index(lambda numbers: self._bits["bits"][numbers])
        self._number = Columns({"of_value": (np.int32, 0)})
        self._index = Index(self._keys_of)

    def _keys_of(self, rows: Int32) -> Int64:
        slot = self._rows["slot"][rows].astype(np.int64)
        keys: Int64 = (slot << _ID_BITS) | self._number["of_value"][rows]
        return keys

    def _numbers_of(self, value: Float64) -> Int32:
        """Return a small number for each value."""
        bits = value.view(np.int64)
        found = self._numbers.find(bits)
        missing = bits[found == ABSENT]
        if len(missing):
            fresh = np.unique(missing)
            known = self._bits.n
            self._bits.append({"bits": fresh}, len(fresh))
            self._numbers.add(np.arange(known, self._bits.n, dtype=np.int32))
            found = self._numbers.find(bits)
        return found
