"""The time of a partition's log: the greatest log time so far, on a replay too.

After a crash the log is read again from before what some pieces of state have folded. Each piece
knows the time at its stamp; a record may only take those of pieces with a lesser stamp, or its
replay would be later than it was the first time, and idle rules would fire that never fired.
"""

from __future__ import annotations

from bisect import insort

import numpy as np

from streams.core.readings import Int64


class LogClock:
    """A running maximum that starts from what stored pieces remember."""

    def __init__(self) -> None:
        self.now_ms = 0
        self._known: list[tuple[int, int]] = []

    def learn(self, stamp: int, now_ms: int) -> None:
        """Take the time *now_ms* that a piece has stored under the offset *stamp*."""
        insort(self._known, (stamp, now_ms))

    def read(self, offset: Int64, log_ms: Int64) -> Int64:
        """Return the log's time at the next records, int64[n] that never descends.

        :param offset: of the records, ascending; ``log_ms`` their own log times.
        """
        times = log_ms
        if self._known:
            stamps, known = np.asarray(self._known, np.int64).T
            before = np.searchsorted(stamps, offset, side="left")
            times = np.maximum(times, np.concatenate([[0], np.maximum.accumulate(known)])[before])
            if before[-1] == len(stamps):
                self._known.clear()
        now: Int64 = np.maximum(np.maximum.accumulate(times), self.now_ms)
        self.now_ms = int(now[-1])
        return now
