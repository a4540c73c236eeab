"""Batches taken apart so that what learns reading by reading can work on whole columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def rounds(series: NDArray[np.int32]) -> Iterator[NDArray[np.int64]]:
    """Split rows so that each part holds a series at most once, in order of arrival."""
    if not len(series):
        return
    if len(series) == 1:
        yield np.zeros(1, np.int64)
        return
    order = np.argsort(series, kind="stable")
    s = series[order]
    first = np.empty(len(s), np.bool_)
    first[0] = True
    np.not_equal(s[1:], s[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    rank = np.arange(len(s)) - np.repeat(starts, np.diff(np.append(starts, len(s))))
    by_rank = np.argsort(rank, kind="stable")
    ends = np.cumsum(np.bincount(rank))
    for part in np.split(by_rank, ends[:-1]):
        yield np.sort(order[part])
