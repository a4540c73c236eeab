"""Rules on silence: a series that has had no reading for so long, in log time.

When the last one came follows from the results: each says the log time of the latest reading
inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from streams.core.columns import Columns
from streams.core.readings import Bool, Int64
from streams.core.registry import NEVER

PRESENT = -1
_SPEC: dict[str, tuple[Any, Any]] = {
    "track": (np.int64, 0),
    "rule": (np.int64, 0),
    "absent_ms": (np.int64, PRESENT),
}


class Absences:
    """Pairs of a track and an absence rule.

    ``absent_ms`` is the log time of the last reading before the silence that was told, -1 if none
    was. A column of the tracks, ``seen_ms``, is handed in by the caller.
    """

    def __init__(self, silent_ms: Sequence[int]) -> None:
        """Make it empty.

        :param silent_ms: of every rule; anything for those that are no absence rules.
        """
        self._silent_ms = np.asarray(silent_ms, np.int64)
        self.columns = Columns(_SPEC)
        self._next_ms = NEVER

    def add(self, track: int, rule: int, absent_ms: int = PRESENT) -> None:
        """Watch a track, from its next reading on."""
        row = {"track": [track], "rule": [rule], "absent_ms": [absent_ms]}
        self.columns.append({name: np.asarray(v, np.int64) for name, v in row.items()}, 1)
        self._next_ms = 0

    def heard(self, seen_ms: Int64) -> Iterator[tuple[int, int, int]]:
        """Yield track, rule and ``absent_ms`` of silences that are over."""
        c = self.columns
        back = np.flatnonzero((c["absent_ms"] != PRESENT) & (seen_ms[c["track"]] > c["absent_ms"]))
        self._next_ms = 0 if len(back) else self._next_ms
        for i in back.tolist():
            absent_ms = int(c["absent_ms"][i])
            c["absent_ms"][i] = PRESENT
            yield int(c["track"][i]), int(c["rule"][i]), absent_ms

    def pass_time(self, seen_ms: Int64, takes: Bool, now_ms: int) -> Iterator[tuple[int, int, int]]:
        """Yield track, rule and the log time of its last reading, of series silent for too long.

        :param takes: bool[tracks]: whose state may change.
        """
        if now_ms < self._next_ms:
            return
        c = self.columns
        due_ms = seen_ms[c["track"]] + self._silent_ms[c["rule"]]
        waits = (c["absent_ms"] == PRESENT) & (seen_ms[c["track"]] >= 0)
        due = waits & (due_ms <= now_ms) & takes[c["track"]]
        self._next_ms = int(due_ms[waits & ~due].min(initial=NEVER))
        for i in np.flatnonzero(due).tolist():
            track = int(c["track"][i])
            c["absent_ms"][i] = seen_ms[track]
            yield track, int(c["rule"][i]), int(seen_ms[track])

    def absent(self) -> Iterator[tuple[int, int, int]]:
        """Yield track, rule and ``absent_ms`` of the silences that were told."""
        c = self.columns
        for i in np.flatnonzero(c["absent_ms"] != PRESENT).tolist():
            yield int(c["track"][i]), int(c["rule"][i]), int(c["absent_ms"][i])

    def waits(self) -> bool:
        """Whether a series may become silent."""
        return bool((self.columns["absent_ms"] == PRESENT).any())
