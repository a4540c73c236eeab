"""How long readings have waited, by a clock that nobody can set.

The wall clock of a site jumps: it has no battery, somebody sets it, a time server comes into
reach. What waited for a minute must not be given up as an hour old. So records in the spool are
stamped with the time that edges of this spool have been running: it goes on over restarts of the
process, and stands still while the machine is off, because nobody could tell for how long.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson

from crdt.core.commands.tray import Instant
from edge.spool.disk import Disk
from streams.log import get_logger

_log = get_logger(__name__)
_NAME = "age.json"
_NOTE_MS = 60_000


class RunningTime:
    """Milliseconds that only go forward. A new one begins at the wall clock, and leaves it then."""

    def __init__(self, disk: Disk, clock: Callable[[], Instant], wall_ms: int) -> None:
        """Go on from what is on disk.

        :param clock: see :mod:`edge.boot_clock`.
        """
        self._disk, self._clock = disk, clock
        now = clock()
        self._begun_ms = now.ms
        self._at_ms = self._continued(now, wall_ms)
        self.note()

    def __call__(self) -> int:
        """Return the time."""
        return self._at_ms + max(0, self._clock().ms - self._begun_ms)

    def note_now_and_then(self) -> None:
        """Put it on disk, if that was not done for a while."""
        if self() - self._noted_ms >= _NOTE_MS:
            self.note()

    def note(self) -> None:
        """Put it on disk, for a start after the machine was off; a full disk keeps what it has."""
        self._noted_ms = self()
        told = {"boot": self._clock().boot, "boot_ms": self._clock().ms, "running_ms": self()}
        try:
            self._disk.replace(_NAME, orjson.dumps(told))
        except OSError as error:
            _log.warning("the running time is not noted", error=str(error))

    def _continued(self, now: Instant, wall_ms: int) -> int:
        if _NAME not in self._disk.names("."):
            return wall_ms
        try:
            told = orjson.loads(self._disk.read(_NAME))
            boot, boot_ms, running_ms = told["boot"], int(told["boot_ms"]), int(told["running_ms"])
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("the running time begins anew", file=_NAME, error=repr(error))
            return wall_ms
        return running_ms + (max(0, now.ms - boot_ms) if boot == now.boot else 0)
