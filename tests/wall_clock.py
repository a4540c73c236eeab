"""A wall clock that a test moves, and any process of ``headwater`` that goes by it.

As a program it is ``headwater`` with the clock that :class:`WallClock` has set:
``python -m tests.wall_clock alerts``.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_FILE = "HEADWATER_TEST_CLOCK"
MODULE = "tests.wall_clock"


class WallClock:
    """The wall clock of one process or several."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "clock"
        self.move(0)

    def env(self) -> dict[str, str]:
        """What a process needs to go by it."""
        return {_FILE: str(self._path), "PYTHONPATH": str(Path(__file__).parents[1])}

    def move(self, by_ms: int) -> None:
        """Set how far it is off."""
        new = self._path.with_suffix(".new")
        new.write_text(str(by_ms))
        new.replace(self._path)


def main() -> None:
    """Run a command of ``headwater``, with the clock off by so many milliseconds."""
    real_ns, moved = time.time_ns, Path(os.environ[_FILE])

    def off_ns() -> int:
        return real_ns() + int(moved.read_text() or 0) * 1_000_000

    time.time_ns, time.time = off_ns, lambda: off_ns() / 1e9
    from streams.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
