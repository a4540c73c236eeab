"""How many readings of filtered devices went up and how many lie in the ring alone: what an audit
needs, told in the ledger. Pure.

A tally is of one segment of the ring and says all of it, so it may be told again and again: of two
about one segment the greater holds. After a crash it is counted anew from the segment itself.
"""

from __future__ import annotations

import numpy as np

from edge.filters import MARKS, RELEASED
from edge.spool.losses import MAX_DEVICES, Loss
from streams.core.readings import Readings

FILTERED = "filtered"


class Tallies:
    """Counts of the segments that are written to."""

    def __init__(self) -> None:
        self._segments: dict[int, dict[str, list[int]]] = {}
        self._changed: set[int] = set()

    def count(self, segment: int, ring: Readings) -> None:
        """Count rows of the ring, which lie in a segment."""
        counts = self._segments.setdefault(segment, {})
        up = (ring.quality & MARKS).astype(bool)
        released = (ring.quality & RELEASED).astype(bool)
        for code in np.unique(ring.device.codes).tolist():
            rows = ring.device.codes == code
            name = f"{ring.tenant[int(np.argmax(rows))]}/{ring.device.values[code]}"
            went, stayed = int((rows & up).sum()), int((rows & ~up).sum())
            # What is released was counted as staying when it came.
            stayed -= int((rows & released).sum())
            before = counts.setdefault(name, [0, 0])
            counts[name] = [before[0] + went, before[1] + stayed]
        self._changed.add(segment)

    @property
    def segments(self) -> int:
        """How many segments there is something to be told of."""
        return len(self._changed)

    def untold(self, now_ms: int) -> list[Loss]:
        """Return what is to be told since :meth:`told`."""
        return [self._loss(segment, now_ms) for segment in sorted(self._changed)]

    def told(self) -> None:
        """Note that all is told; segments that are written no more are forgotten."""
        self._changed.clear()
        newest = max(self._segments, default=0)
        self._segments = {number: c for number, c in self._segments.items() if number == newest}

    def _loss(self, segment: int, now_ms: int) -> Loss:
        counts = self._segments[segment]
        ordered = sorted(counts, key=lambda name: (-sum(counts[name]), name))
        named, others = ordered[:MAX_DEVICES], ordered[MAX_DEVICES:]
        return Loss(
            lane="ring",
            reason=FILTERED,
            at_ms=now_ms,
            segment=segment,
            places=(),
            readings=sum(stayed for _, stayed in counts.values()),
            devices={name: counts[name][1] for name in named},
            other_devices=sum(counts[name][1] for name in others),
            up={name: counts[name][0] for name in named},
            other_up=sum(counts[name][0] for name in others),
        )
