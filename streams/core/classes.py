"""The class of a reading: each gets exactly one, tested in this order.

Conservation: the readings received from a device are the sum of its classes.
"""

from __future__ import annotations

from enum import IntEnum


class Class(IntEnum):
    """What became of a reading."""

    REJECTED = 0
    """Not usable: no number, a time outside [0, 2**42) ms."""
    DUPLICATE = 1
    """Seen before: by (boot, seq), or by (metric, time) where the payload carried its time."""
    QUARANTINED = 2
    """Further in the future of its receipt than the skew bound; moves no watermark."""
    UNVERIFIABLE = 3
    """Its gap in the sequence was given up, so new and seen can no longer be told apart."""
    LATE = 4
    """Beyond the horizon of every window it would belong to."""
    ACCEPTED = 5


UNIDENTIFIED = 6
"""Column of the counters: accepted readings that nothing identifies (no seq, no own time)."""

COLUMNS = (*(kind.name.lower() for kind in Class), "unidentified")
