"""Batches on their way: what was sent, what has to be sent again and when. Pure.

A batch keeps its id and its bytes for as long as it is in the window, so an answer to any of its
sendings is an answer to it. Times are monotonic seconds.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from edge.spool.lane import Entry

_SLOW_DOWN = 0.125
_TIMEOUTS = 4.0
_MAX_DOUBLINGS = 6


@dataclass(slots=True)
class Batch:
    """One batch in the window."""

    id: str
    kind: str
    payload: bytes
    entries: list[Entry]
    backlog: bool
    sent_s: float = 0.0
    attempts: int = 0
    due_s: float = field(default=0.0)
    """When it is to be sent (again)."""


class Window:
    """At most so many batches and bytes that are not answered."""

    def __init__(
        self, max_batches: int, max_bytes: int, timeout_s: tuple[float, float], rng: random.Random
    ) -> None:
        """Make an empty one.

        :param timeout_s: least and greatest time to wait for an answer.
        :param rng: spreads the resending of a fleet.
        """
        self._max_batches, self._max_bytes = max_batches, max_bytes
        self._least_s, self._most_s = timeout_s
        self._rng = rng
        self._batches: dict[str, Batch] = {}
        self._bytes = 0
        self.round_trip_s = 0.0
        """Smoothed as in RFC 6298; 0 before the first answer."""
        self.resent = 0

    def __len__(self) -> int:
        return len(self._batches)

    def room(self, *, backlog: bool) -> bool:
        """Whether one more may go; a quarter of the places is never the backlog's."""
        places = self._max_batches
        if backlog:
            places = max(1, places - max(1, places // 4))
            taken = sum(batch.backlog for batch in self._batches.values())
            if taken >= places:
                return False
        return len(self._batches) < self._max_batches and self._bytes < self._max_bytes

    def add(self, batch: Batch, now_s: float) -> None:
        """Put a batch in; it is to be sent now."""
        self._batches[batch.id] = batch
        self._bytes += len(batch.payload)
        batch.due_s = now_s

    def due(self, now_s: float) -> list[Batch]:
        """Return batches to be sent (again) now, in the order they came."""
        return [batch for batch in self._batches.values() if batch.due_s <= now_s]

    def next_due_s(self) -> float:
        """Return when the next one is."""
        return min((batch.due_s for batch in self._batches.values()), default=float("inf"))

    def sent(self, batch: Batch, now_s: float) -> None:
        """Note a sending; each waits twice as long as the one before, with jitter."""
        batch.sent_s = now_s
        self.resent += batch.attempts > 0
        timeout_s = max(self._least_s, _TIMEOUTS * self.round_trip_s)
        timeout_s *= 1 << min(batch.attempts, _MAX_DOUBLINGS)
        batch.due_s = now_s + min(timeout_s, self._most_s) * self._rng.uniform(0.75, 1.25)
        batch.attempts += 1

    def answered(self, ids: Iterable[str], now_s: float) -> tuple[list[Batch], list[float]]:
        """Return the batches that are done, and the times of those that were sent once.

        A batch that was sent twice tells nothing of the time: the answer may be the first's (Karn).
        """
        done, times = [], []
        for batch_id in ids:
            batch = self._batches.pop(batch_id, None)
            if batch is None:
                continue
            self._bytes -= len(batch.payload)
            done.append(batch)
            if batch.attempts == 1:
                times.append(now_s - batch.sent_s)
        for took_s in times:
            before_s = self.round_trip_s or took_s
            self.round_trip_s = before_s + _SLOW_DOWN * (took_s - before_s)
        return done, times

    def postpone(self, batch_id: str, until_s: float) -> None:
        """Send a batch again at a given time: the gateway said so."""
        if batch_id in self._batches:
            self._batches[batch_id].due_s = until_s

    def reconnected(self, now_s: float) -> None:
        """Wait anew for each: the MQTT client sends again what the broker has not confirmed."""
        for batch in self._batches.values():
            batch.attempts = min(batch.attempts, 1)
            if batch.attempts:
                batch.due_s = now_s + self._least_s * self._rng.uniform(0.75, 1.25)
