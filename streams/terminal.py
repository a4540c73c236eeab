"""What commands that show tables share: a console, and times."""

from __future__ import annotations

import getpass
import sys
from datetime import UTC, datetime

from rich.console import Console

from streams.errors import HeadwaterError

_UNFOLDED = 200
"""Columns where output does not go to a terminal: no row is folded."""


def console() -> Console:
    """Return a console on standard output."""
    return Console() if sys.stdout.isatty() else Console(width=_UNFOLDED)


def who(author: str | None) -> str:
    """Return who says something: *author*, or else who is logged in.

    :raises HeadwaterError: if nobody is: the user of a container may have no name.
    """
    try:
        return author or getpass.getuser()
    except (KeyError, OSError, ImportError) as error:
        raise HeadwaterError("the user of this process has no name: give --author") from error


def utc(at_ms: int, *, with_ms: bool = False) -> str:
    """Return a time as people read it; what no calendar holds as a number."""
    try:
        at = datetime.fromtimestamp(at_ms / 1000, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms"
    return f"{at:%Y-%m-%d %H:%M:%S}" + (f".{at_ms % 1000:03d}" if with_ms else "")
