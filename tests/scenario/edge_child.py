"""An edge whose wall clock a test moves: the file that HEADWATER_TEST_CLOCK names holds how far."""

from __future__ import annotations

import os
import time
from pathlib import Path

from edge import process
from streams.log import configure
from streams.settings import load


def main() -> None:
    """Run an edge as ``headwater edge`` does, with its clock off by so many milliseconds."""
    real, moved = time.time_ns, Path(os.environ["HEADWATER_TEST_CLOCK"])
    time.time_ns = lambda: real() + int(moved.read_text() or 0) * 1_000_000
    settings = load()
    configure(settings.log, "edge")
    process.main(settings)


if __name__ == "__main__":
    main()
