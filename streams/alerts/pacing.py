"""When to try again: pauses that grow, and a circuit breaker per endpoint.

Pure: the clock and the randomness are handed in.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """Bounds of pauses, in seconds, and the failures in a row that open a breaker."""

    min_s: float
    max_s: float
    failures: int

    def pause_s(self, attempt: int, luck: float, retry_after_s: float | None = None) -> float:
        """Return the pause after the *attempt*-th failure: doubled each time, with jitter.

        :param luck: in [0, 1): the pause is between half of the bound and the bound.
        :param retry_after_s: what the receiver asks for; obeyed up to the longest pause.
        """
        ceiling_s = min(self.max_s, self.min_s * (1 << min(attempt - 1, 30)))
        return max(ceiling_s * (0.5 + luck / 2), min(retry_after_s or 0.0, self.max_s))


AT_LEAST_S = 3600.0
"""A message is tried for so long by each process that finds it, however old it seems: the clock may
be days ahead, and a receiver away for the moment."""


def left_s(give_up_s: float, age_s: float) -> float:
    """Return how much longer a message is tried, when it is first seen.

    :param age_s: by clocks that may have been set in between: a message from the future is new.
        What is left then goes by a clock that nobody sets.
    """
    return max(give_up_s - max(0.0, age_s), min(AT_LEAST_S, give_up_s))


class Breaker:
    """Lets one attempt at a time through once an endpoint has failed several times in a row.

    ::

        closed ── failures in a row ──▶ open ── pause over ──▶ one attempt ── ok ──▶ closed
                                          ▲───────── it fails: a longer pause ────┘
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._failures = 0
        self._until_s = 0.0
        self._trying = False

    @property
    def is_open(self) -> bool:
        """Whether the endpoint has failed so often that most messages wait."""
        return self._failures >= self._pace.failures

    def wait_s(self, now_s: float) -> float:
        """Return how long an attempt has to wait; 0 takes the turn to make one."""
        if not self.is_open:
            return 0.0
        if now_s < self._until_s:
            return self._until_s - now_s
        if self._trying:
            return self._pace.min_s
        self._trying = True
        return 0.0

    def succeeded(self) -> None:
        """Take a success."""
        self._failures, self._trying = 0, False

    def failed(self, now_s: float, luck: float, retry_after_s: float | None) -> None:
        """Take a failure; of attempts that were under way when it opened none counts."""
        if self.is_open and not self._trying:
            return
        self._failures += 1
        self._trying = False
        if self.is_open:
            attempt = self._failures - self._pace.failures + 1
            self._until_s = now_s + self._pace.pause_s(attempt, luck, retry_after_s)
