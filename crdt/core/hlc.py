"""Hybrid logical clocks (Kulkarni et al. 2014): near wall time, never behind what was seen."""

from __future__ import annotations

from typing import NamedTuple


class Hlc(NamedTuple):
    """A time stamp. Order is that of the tuple."""

    ms: int
    """Milliseconds since the epoch."""
    n: int
    """Distinguishes events of one millisecond, or of a clock that stands still."""


ZERO = Hlc(0, 0)


def next_stamp(last: Hlc, now_ms: int) -> Hlc:
    """Return the stamp of a local event: later than *last*, at *now_ms* if the clock moved on."""
    return Hlc(now_ms, 0) if now_ms > last.ms else Hlc(last.ms, last.n + 1)


def adopt(last: Hlc, remote: Hlc, now_ms: int, skew_ms: int) -> Hlc:
    """Return the clock after seeing *remote*, so that later local events are stamped later.

    A remote stamp further ahead of *now_ms* than *skew_ms* is not adopted: one clock that is
    ten years ahead must not drag all others along. Causality needs no clock (see cells).
    """
    return max(last, remote) if remote.ms <= now_ms + skew_ms else last
