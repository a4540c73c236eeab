"""Labelled files in NAB's layout, wherever they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson

from benchmarks.nab.scoring import Labelled
from streams.errors import HeadwaterError
from streams.sim.nab import FOLDER, read_csv, to_ms


def load(folder: Path | None) -> list[Labelled]:
    """Return the files of a folder, sorted by name.

    :param folder: with ``data/SET/FILE.csv`` and ``combined_windows.json`` (or the same in
        ``labels/``), as in NAB; by default the seven files that come with the project.
    :raises HeadwaterError: if there are no labels or no files.
    """
    if folder is None:
        return _of(FOLDER, orjson.loads((FOLDER / "windows.json").read_bytes()))
    for labels in (folder / "combined_windows.json", folder / "labels/combined_windows.json"):
        if labels.exists():
            return _of(folder / "data", orjson.loads(labels.read_bytes()))
    raise HeadwaterError(f"{folder}: no combined_windows.json, which NAB's layout has")


def _of(folder: Path, labels: dict[str, list[tuple[str, str]]]) -> list[Labelled]:
    found = [
        _read(folder, name, labels[name]) for name in sorted(labels) if (folder / name).exists()
    ]
    if not found:
        raise HeadwaterError(f"{folder}: none of the {len(labels)} labelled files is there")
    return found


def _read(folder: Path, name: str, windows: list[tuple[str, str]]) -> Labelled:
    points = read_csv(folder / name)
    t_ms = np.asarray([p.t_ms for p in points], np.int64)
    rows = [
        (
            int(np.searchsorted(t_ms, to_ms(begin))),
            int(np.searchsorted(t_ms, to_ms(end), side="right")) - 1,
        )
        for begin, end in windows
    ]
    return Labelled(name, t_ms, np.asarray([p.value for p in points]), rows)
