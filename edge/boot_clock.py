"""A clock that nobody can set: time since this machine started, and which start that was."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from crdt.core.commands.tray import Instant

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_DIGITS = 12


class BootClock:
    """Counts suspended time too, where the system tells it."""

    def __init__(self) -> None:
        try:
            self._boot = _BOOT_ID.read_text().replace("-", "")[:_DIGITS]
        except OSError:
            # A system that does not tell its boots: every process counts as one.
            self._boot = secrets.token_hex(_DIGITS // 2)
        self._clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def __call__(self) -> Instant:
        """Return the moment."""
        return Instant(self._boot, time.clock_gettime_ns(self._clock) // 1_000_000)
