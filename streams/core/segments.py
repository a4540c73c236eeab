"""Running values per group inside one batch, without a Python loop over rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.core.readings import Bool, Int64

_SHIFT = 42
TIME_LIMIT_MS = 1 << _SHIFT
"""Event times lie in [0, 2**42) ms: up to the year 2109. Others are rejected as bad-time."""

_MARKED = 128
"""Codes for each row up to which marking those that occur is faster than sorting the rows."""


def distinct(codes: NDArray[np.integer], n: int) -> Int64:
    """Return the codes that occur, ascending.

    :param codes: int[m] below *n*.
    """
    if n > _MARKED * len(codes):
        return np.unique(codes).astype(np.int64)
    seen = np.zeros(n, np.bool_)
    seen[codes] = True
    return np.flatnonzero(seen)


def running_max_before(
    groups: NDArray[np.integer], values: Int64, initial: Int64, eligible: Bool | None = None
) -> Int64:
    """Return, for each row, the greatest value of its group before that row.

    :param groups: int[n], dense group of each row, below 2**20 distinct per batch.
    :param values: int64[n] in [0, 2**42).
    :param initial: int64, indexed by group: the greatest before the batch, -1 for none.
    :param eligible: bool[n]; rows where it is false raise nobody's maximum.
    :returns: int64[n], -1 where nothing came before.
    """
    n = len(values)
    if n == 0:
        return np.empty(0, np.int64)
    order = np.argsort(groups, kind="stable")
    group = groups[order]
    first = np.empty(n, np.bool_)
    first[0] = True
    np.not_equal(group[1:], group[:-1], out=first[1:])
    raised = values if eligible is None else np.where(eligible, values, -1)
    before = np.empty(n, np.int64)
    before[1:] = raised[order[:-1]]
    before[first] = initial[group[first]]
    # Each group is lifted above all values of the previous one, so that one cumulative
    # maximum over the whole batch restarts by itself at every group.
    lift = (np.cumsum(first) - 1) << (_SHIFT + 1)
    running = np.maximum.accumulate(before + 1 + lift) - lift - 1
    result = np.empty(n, np.int64)
    result[order] = running
    return result
