"""What may be sent now, and how much of it: bandwidth, hours, shares, batch size. Pure.

Times are monotonic seconds unless named otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass


class Bucket:
    """A token bucket: at most *bytes_per_s* over time, in bursts of up to a second's worth."""

    def __init__(self, bytes_per_s: int, now_s: float) -> None:
        """Begin full.

        :param bytes_per_s: 0: no bound.
        """
        self._rate = bytes_per_s
        self._tokens = float(bytes_per_s)
        self._at_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Return seconds until something may be sent; 0 means now.

        One batch may overdraw the bucket: what comes after pays for it.
        """
        if not self._rate:
            return 0.0
        passed_s = max(0.0, now_s - self._at_s)
        self._tokens = min(float(self._rate), self._tokens + passed_s * self._rate)
        self._at_s = now_s
        # Less than a byte is rounding.
        return -self._tokens / self._rate if self._tokens <= -1.0 else 0.0

    def take(self, size: int) -> None:
        """Note that *size* bytes were sent."""
        if self._rate:
            self._tokens -= size


@dataclass(frozen=True, slots=True)
class Hours:
    """When readings may go up: half-open minutes of the local day; empty: always."""

    spans: tuple[tuple[int, int], ...] = ()

    def open(self, minute: int) -> bool:
        """Whether *minute* of the day is inside; a span may pass midnight."""
        return not self.spans or any(
            begin <= minute < end if begin <= end else minute >= begin or minute < end
            for begin, end in self.spans
        )


class BatchSize:
    """Readings per batch: grows slowly while answers are quick, halves when one does not come.

    Additive increase, multiplicative decrease, as TCP's congestion window (RFC 5681).
    """

    def __init__(self, least: int, most: int, target_s: float) -> None:
        """Begin in the middle.

        :param target_s: an answer within this is quick.
        """
        self._least, self._most, self._target_s = least, most, target_s
        self.rows = max(least, most // 4)

    def answered(self, after_s: float) -> None:
        """Note an answer."""
        if after_s <= self._target_s:
            self.rows = min(self._most, self.rows + max(1, self._most // 20))
        else:
            self.rows = max(self._least, self.rows - max(1, self.rows // 10))

    def lost(self) -> None:
        """Note that there was none in time."""
        self.rows = max(self._least, self.rows // 2)


class Shares:
    """Fresh readings first, but the backlog gets its share of the bytes while both wait."""

    def __init__(self, backlog_share: float) -> None:
        """Begin even.

        :param backlog_share: 0 to 1.
        """
        self._share = backlog_share
        self._backlog = self._all = 0.0

    def backlog_first(self) -> bool:
        """Whether it is the backlog's turn, where both wait."""
        return self._share > 0 and self._backlog < self._share * max(self._all, 1.0)

    def sent(self, size: int, *, backlog: bool) -> None:
        """Note what was sent; what is long ago counts less."""
        self._all = self._all * 0.95 + size
        self._backlog = self._backlog * 0.95 + (size if backlog else 0)
