"""What was done and what came of it, a JSON object a line, for somebody else's checker."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from benchmarks.streams.outcome import Outcome


class History:
    """Appends to a file, or to nothing where there is none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            path.write_bytes(b"")

    def run(self, data: str, number: int, outcome: Outcome) -> None:
        """Note one run of one system."""
        self.note("run", {"data": data, "run": number, **asdict(outcome)})

    def note(self, kind: str, fields: dict[str, Any]) -> None:
        """Note anything else."""
        if self._path is not None:
            with self._path.open("ab") as out:
                out.write(orjson.dumps({"kind": kind, **fields}) + b"\n")
