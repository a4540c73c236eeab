"""The console of commands that show wide tables."""

from __future__ import annotations

import sys

from rich.console import Console

_UNFOLDED = 200
"""Columns where output does not go to a terminal: no row is folded."""


def console() -> Console:
    """Return a console on standard output."""
    return Console() if sys.stdout.isatty() else Console(width=_UNFOLDED)
