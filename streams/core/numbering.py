"""The numbering of one boot of one device, one message at a time: what the rules say, plainly."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

NEW, SEEN, GIVEN_UP = 0, 1, 2
BITS = 64
ALL = (1 << BITS) - 1


@dataclass(slots=True)
class Numbering:
    """All of ``[base, next)`` was seen but for zeros in ``recent`` and what lies in ``holes``.

    Bit *i* of ``recent`` says whether ``next - 1 - i`` was seen; numbers below ``base`` have a
    one there, and their own interval in ``holes``.
    """

    next: int
    base: int
    """The first seq that was seen: what lies below it may never have been meant for us."""
    recent: int = ALL
    floor: int = 0
    """End of the last hole that was given up."""
    holes: list[tuple[int, int]] = field(default_factory=list)
    """Missing intervals ``[low, high)`` below the last 64 numbers, ascending."""

    @staticmethod
    def begun_at(seq: int) -> Numbering:
        """Return the numbering of a device of which *seq* is the first message to come."""
        return Numbering(seq, seq, holes=[(0, seq)] if seq else [])

    def see(self, seq: int) -> int:
        """Mark a message as seen and say what it was: ``NEW``, ``SEEN`` or ``GIVEN_UP``."""
        if seq >= self.next:
            step = seq + 1 - self.next
            for low, high in leaving(self.next, self.base, self.recent, step):
                self.leave(low, high)
            self.recent = ((self.recent << step) | 1) & ALL
            self.next = seq + 1
            return NEW
        place = self.next - 1 - seq
        if place < BITS and seq >= self.base:
            if self.recent >> place & 1:
                return SEEN
            self.recent |= 1 << place
            return NEW
        return self._see_old(seq)

    def _see_old(self, seq: int) -> int:
        at = bisect_right(self.holes, (seq, 1 << 63)) - 1
        if at >= 0:
            low, high = self.holes[at]
            if low <= seq < high:
                rest = [(low, seq), (seq + 1, high)]
                self.holes[at : at + 1] = [(a, b) for a, b in rest if a < b]
                return NEW
        return GIVEN_UP if seq < self.floor else SEEN

    def leave(self, low: int, high: int) -> None:
        """Remember a missing interval that lies no more among the last 64 numbers."""
        if self.holes and self.holes[-1][1] == low:
            self.holes[-1] = (self.holes[-1][0], high)
        else:
            self.holes.append((low, high))

    def trim(self, limit: int) -> int:
        """Give up the oldest holes beyond *limit*; return how many messages that were."""
        lost = 0
        while len(self.holes) > limit:
            low, high = self.holes.pop(0)
            self.floor = high
            lost += high - max(low, min(self.base, high))
        return lost

    def missing(self) -> int:
        """Return how many messages have not come, from the first seen on."""
        old = sum(high - max(low, self.base) for low, high in self.holes if high > self.base)
        return old + BITS - self.recent.bit_count()


def leaving(after: int, base: int, recent: int, step: int) -> list[tuple[int, int]]:
    """Return what is missing among the numbers that leave the last 64 when *after* moves on.

    :param after: the next expected number so far, which moves by *step*.
    """
    low, high = max(base, after - BITS), min(after, after - BITS + step)
    numbers = [n for n in range(low, high) if not recent >> (after - 1 - n) & 1]
    gaps: list[tuple[int, int]] = []
    for n in numbers:
        if gaps and gaps[-1][1] == n:
            gaps[-1] = (gaps[-1][0], n + 1)
        else:
            gaps.append((n, n + 1))
    skipped = (after, after + step - BITS)
    if skipped[1] > skipped[0]:
        if gaps and gaps[-1][1] == after:
            skipped = (gaps.pop()[0], skipped[1])
        gaps.append(skipped)
    return gaps
