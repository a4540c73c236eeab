"""Whether a batch follows on the last one, and what to do where it does not.

Between a fetch and an agent, Faust may let a batch fall: while partitions are being assigned,
or when the flow is suspended. The consumer has moved on by then, so the next batch begins
later than expected, and to commit past it would lose readings. A gap may also be real, where
retention removed records or a transaction left its markers.

The two are told apart by reading again: what was dropped comes back, a real gap does not.
Batches that were under way when the reader was sent back arrive first, and are let go.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

READ_AGAIN = 2
"""A gap counts as real once reading again has twice begun behind it."""
IMPATIENT_AFTER_S = 5.0


class Step(Enum):
    """What to do with a batch."""

    FOLD = auto()
    SEEK = auto()
    """Leave it, and read again from the expected offset."""
    DROP = auto()
    """Leave it: it was under way when the reader was sent back."""


@dataclass(slots=True)
class Continuity:
    """The position of one partition in one assignment."""

    expected: int
    _gap_ends_at: int | None = None
    _seen: int = 0
    _sought_at_s: float = 0.0

    def judge(self, first: int, now_s: float) -> Step:
        """Judge a batch by its first offset; *now_s* is any monotonic clock."""
        if first <= self.expected:
            return Step.FOLD
        if self._gap_ends_at is None or first < self._gap_ends_at:
            self._gap_ends_at, self._seen = first, 0
        elif first > self._gap_ends_at and now_s - self._sought_at_s < IMPATIENT_AFTER_S:
            return Step.DROP
        if first == self._gap_ends_at:
            self._seen += 1
            if self._seen > READ_AGAIN:
                return Step.FOLD
        self._sought_at_s = now_s
        return Step.SEEK

    def ends_in_a_gap(self, end: int) -> bool:
        """Judge a log that was read to *end* and brought nothing from the expected offset on.

        What was dropped comes when it is read again; markers of transactions do not.
        """
        if self._gap_ends_at != end:
            self._gap_ends_at, self._seen = end, 0
        self._seen += 1
        return self._seen > READ_AGAIN

    def advance(self, after: int) -> None:
        """Expect *after*, the offset that follows what was folded."""
        self.expected = after
        self._gap_ends_at, self._seen = None, 0
