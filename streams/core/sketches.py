"""Quantiles of panes: a DDSketch each, as integer counts in fixed bins.

DDSketch (Masson, Rim, Lee 2019): a value falls into the bin of its logarithm, so that any
quantile is told within a relative error of ``ACCURACY``. Counts in fixed bins depend neither on
the order of the readings nor on how panes were merged, as t-digest and KLL do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from streams.core.chains import Chains
from streams.core.columns import Columns
from streams.core.index import ABSENT, Index
from streams.core.readings import Float64, Int32, Int64

ACCURACY = 0.01
_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)
_ZERO = 40_000
"""Code of zero; a positive value's bin lies above, a negative one's below."""
_MIDDLE = 20_000
"""The bin of 1.0 is this far from zero's: bins of the smallest floats stay on their side."""
_TINY = math.exp(-19_000 * _LOG_GAMMA)
_CODE_BITS = 17


class Sketches:
    """The sketches of the panes of one table, by slot; a row is one bin of one pane."""

    def __init__(self) -> None:
        self._bins = Columns({"slot": (np.int32, 0), "code": (np.int32, 0), "count": (np.int64, 0)})
        self._index = Index(self._keys_of)
        self._of_pane = Chains()

    def __len__(self) -> int:
        return self._bins.n

    def add(self, slots: Int64, value: Float64) -> None:
        """Count values, one per slot given."""
        self._count(slots, codes_of(value), np.ones(len(slots), np.int64))

    def absorb(self, pane: int, other: int) -> None:
        """Count in *pane* too what *other* has counted."""
        _, rows = self._of_pane.walk(np.asarray([other]))
        code, count = self._bins["code"][rows], self._bins["count"][rows]
        self._count(np.full(len(rows), pane), code, count)

    def quantiles(
        self, owners: Int64, panes: Int64, n: int, wanted: Sequence[float]
    ) -> list[Float64]:
        """Return quantiles of *n* owners, each of the union of its panes.

        :param owners: the owner of each of *panes*.
        :param wanted: quantiles in [0, 1]; float64[n] each, NaN where nothing was counted.
        """
        at, rows = self._of_pane.walk(panes)
        owner, code = owners[at], self._bins["code"][rows]
        order = np.lexsort((code, owner))
        owner, code = owner[order], code[order]
        running = np.cumsum(self._bins["count"][rows][order])
        last = np.searchsorted(owner, np.arange(n), side="right") - 1
        first = np.searchsorted(owner, np.arange(n), side="left")
        before = np.where(first > 0, running[first - 1], 0) if len(running) else first
        total = (running[last] if len(running) else last) - before
        found = []
        for q in wanted:
            place = np.searchsorted(running, before + q * (total - 1), side="right")
            value = np.full(n, np.nan)
            some = total > 0
            value[some] = values_of(code[np.minimum(place, last)[some]])
            found.append(value)
        return found

    def renumber(self, new: Int64) -> None:
        """Follow a renumbering of panes; what belongs to those that went (-1) goes too."""
        slot = new[self._bins["slot"]]
        self._bins["slot"][:] = slot
        self._bins.keep(slot >= 0)
        self._rebuild()

    def snapshot(self, slots: Int64) -> dict[str, np.ndarray[Any, Any]]:
        """Return the bins of some panes, with the position in *slots* as their pane."""
        at, rows = self._of_pane.walk(slots)
        return {
            "slot": at.astype(np.int32),
            "code": self._bins["code"][rows],
            "count": self._bins["count"][rows],
        }

    def restore(self, kept: dict[str, np.ndarray[Any, Any]], slots: Int64) -> None:
        """Add bins of a snapshot; *slots* are the panes of now."""
        self._count(slots[kept["slot"]], kept["code"], kept["count"])

    def _count(self, slots: Int64, code: Int32, count: Int64) -> None:
        keys = (slots << _CODE_BITS) | code
        rows = self._index.find(keys).astype(np.int64)
        missing = np.flatnonzero(rows == ABSENT)
        if len(missing):
            fresh, first, inverse = np.unique(keys[missing], return_index=True, return_inverse=True)
            made = np.arange(len(self), len(self) + len(fresh))
            heads = missing[first]
            self._bins.append({"slot": slots[heads], "code": code[heads]}, len(heads))
            self._index.add(made.astype(np.int32))
            self._of_pane.insert(slots[heads], made)
            rows[missing] = made[inverse]
        np.add.at(self._bins["count"], rows, count)

    def _rebuild(self) -> None:
        self._index.replace(np.arange(len(self), dtype=np.int32))
        self._of_pane = Chains()
        self._of_pane.insert(self._bins["slot"], np.arange(len(self)))

    def _keys_of(self, rows: Int32) -> Int64:
        slot = self._bins["slot"][rows].astype(np.int64)
        keys: Int64 = (slot << _CODE_BITS) | self._bins["code"][rows]
        return keys


def codes_of(value: Float64) -> Int32:
    """Return the bin of each value, ascending with it; |x| below 1e-165 counts as zero."""
    size = np.abs(value)
    with np.errstate(divide="ignore"):
        bin_ = np.ceil(np.log(size) / _LOG_GAMMA)
    bin_ = np.where(size < _TINY, 0.0, np.minimum(bin_, _MIDDLE - 1) + _MIDDLE)
    code: Int32 = (_ZERO + np.sign(value) * bin_).astype(np.int32)
    return code


def values_of(code: Int32) -> Float64:
    """Return the value that stands for each bin."""
    away = code - _ZERO
    size = 2.0 * np.exp((np.abs(away) - _MIDDLE) * _LOG_GAMMA) / (_GAMMA + 1.0)
    value: Float64 = np.where(away == 0, 0.0, np.sign(away) * size)
    return value
