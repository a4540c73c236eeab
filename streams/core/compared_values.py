"""Which of the values that come are news to a comparison: one rule for metrics and for groups."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from streams.core.keyed import Keyed
from streams.core.readings import Int32, Int64
from streams.core.segments import running_max_before

HELD: dict[str, tuple[Any, Any]] = {
    "rank": (np.int64, -1),
    "value": (np.float64, np.nan),
    "end_ms": (np.int64, 0),
    "received_ms": (np.int64, 0),
    "kafka_ms": (np.int64, 0),
    "site": (np.int32, 0),
}
"""Columns of what is held of a value, by side and start of its window."""


class Come(NamedTuple):
    """Values of windows that come, in arrays of one length."""

    side: Int32
    board: Int32
    """What each side is on."""
    start_ms: Int64
    end_ms: Int64
    rank: Int32
    keep_ms: Int64
    """Windows that end so long before the last one are no news, and count as gone."""


def news_among(come: Come, values: Keyed, ends_ms: Int64) -> tuple[Int64, Int64]:
    """Return the rows to keep: of each side and window the first of the greatest rank.

    :param values: what is held, by (side, start): ``rank`` and ``end_ms`` are looked at.
    :param ends_ms: by board: the greatest end of a window before the batch; not changed here.
    :returns: int64[m] rows, in order; int64[m] slots in *values*, negative where it is not held.
    """
    side, board, start_ms, end_ms, rank, keep_ms = come
    heads, local = np.unique(board, return_inverse=True)
    until_ms = running_max_before(local, end_ms, ends_ms[heads])
    slot = values.find(side, start_ms)
    c = values.columns
    counts = slot >= 0
    if counts.any():
        # What is too old counts as gone, whether or not it has been swept.
        least_ms = ends_ms[board[counts]] - keep_ms[counts]
        counts[counts] = c["end_ms"][slot[counts]] >= least_ms
    known = np.full(len(slot), -1, np.int64)
    known[counts] = c["rank"][slot[counts]]
    news = np.flatnonzero((end_ms >= until_ms - keep_ms) & (rank > known))
    news = news[_firsts(side[news], start_ms[news], rank[news])]
    return news, slot[news]


def _firsts(side: Int32, start_ms: Int64, rank: Int32) -> Int64:
    """Return, in order, the first row of the greatest rank of each side and window."""
    order = np.lexsort((-rank, start_ms, side))
    if not len(order):
        return order
    s, t = side[order], start_ms[order]
    first = np.append(True, (s[1:] != s[:-1]) | (t[1:] != t[:-1]))
    return np.sort(order[first])
