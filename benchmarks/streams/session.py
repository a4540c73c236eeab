"""What all parts of the benchmark share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.streams.history import History


@dataclass(frozen=True, slots=True)
class Session:
    """One call of the benchmark; ``home`` is a folder that goes with it."""

    runs: int
    seed: int
    home: Path
    history: History
    console: Console

    def folders(self, name: str) -> tuple[Path, Path]:
        """Return a folder for the servers of *name*, and a new one for what runs against them."""
        runs = self.home / f"runs-{name}"
        runs.mkdir()
        return self.home / f"servers-{name}", runs
