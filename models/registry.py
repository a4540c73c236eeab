"""Versions of models in a folder: which is champion, which challenger, and which was before.

::

    FOLDER/registry.json                    names -> versions, champion, challenger, past champions
    FOLDER/pump/1/{card.json,model.skops,model.onnx}

``registry.json`` has the SHA-256 of every card, and a card that of its files: what is not in that
chain is refused. It is replaced as a whole, so that a reader never sees half of a change; changes
are for one process at a time.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import ModelError
from models.store import Card, Stored, read, write
from models.training import Plan, Trained

_FILE = "registry.json"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PAST_MAX = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One model: version -> SHA-256 of its card; 0 where there is no champion or challenger."""

    versions: dict[int, str] = field(default_factory=dict)
    champion: int = 0
    challenger: int = 0
    past: tuple[int, ...] = ()


class Registry:
    """The models in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def entries(self) -> dict[str, Entry]:
        """Return all models by name.

        :raises ModelError: if the registry cannot be read.
        """
        path = self._folder / _FILE
        if not path.exists():
            return {}
        try:
            held = json.loads(path.read_bytes())
            return {name: _entry(fields) for name, fields in held.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"{path}: cannot be read: {error}") from error

    def signature(self) -> tuple[int, int, int] | None:
        """Return what changes when the registry does; None while there is none."""
        try:
            found = (self._folder / _FILE).stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def entry(self, name: str) -> Entry:
        """Return one model.

        :raises ModelError: if there is none of that name.
        """
        known = self.entries()
        if name not in known:
            raise ModelError(f"no model is named {name!r}; there are {sorted(known) or 'none'}")
        return known[name]

    def add(self, name: str, plan: Plan, trained: Trained, t_ms: Any, rows: Any) -> int:
        """Store a new version; the first is the champion, a later one the challenger.

        :returns: its number.
        :raises ModelError: if the name is not of small letters, digits, dots and dashes.
        """
        if not NAME.fullmatch(name):
            raise ModelError(f"{name!r} is no name; expected small letters, digits, . _ and -")
        entry = self.entries().get(name, Entry())
        number = max(entry.versions, default=0) + 1
        _, sha256 = write(self._folder / name / str(number), name, plan, trained, (t_ms, rows))
        versions = entry.versions | {number: sha256}
        if entry.champion:
            self._put(name, replace(entry, versions=versions, challenger=number))
        else:
            self._put(name, replace(entry, versions=versions, champion=number))
        return number

    def load(self, name: str, version: int | None = None) -> Stored:
        """Return a version, by default the champion, whose card was found whole.

        :raises ModelError: if it is unknown or was changed.
        """
        entry = self.entry(name)
        number = entry.champion if version is None else version
        if number not in entry.versions:
            raise ModelError(f"{name} has no version {number}; it has {sorted(entry.versions)}")
        return read(self._folder / name / str(number), entry.versions[number])

    def named(self, name: str, version: int | None = None) -> str:
        """Return a version, by default the champion, as edges are asked for it: number and hash.

        :raises ModelError: as :meth:`load`.
        """
        entry = self.entry(name)
        number = entry.champion if version is None else version
        self.load(name, number)
        return f"{number}/{entry.versions[number]}"

    def challenge(self, name: str, version: int) -> None:
        """Make a version the challenger."""
        self._change(name, lambda entry: replace(entry, challenger=_known(name, entry, version)))

    def promote(self, name: str) -> int:
        """Make the challenger the champion; return its number.

        :raises ModelError: if there is no challenger.
        """
        self._change(name, lambda entry: _promoted(name, entry))
        return self.entry(name).champion

    def roll_back(self, name: str) -> int:
        """Make the champion before this one champion again; return its number.

        :raises ModelError: if there was none.
        """
        self._change(name, lambda entry: _rolled_back(name, entry))
        return self.entry(name).champion

    def _change(self, name: str, change: Callable[[Entry], Entry]) -> None:
        self._put(name, change(self.entry(name)))

    def _put(self, name: str, entry: Entry) -> None:
        held = {key: asdict(one) for key, one in (self.entries() | {name: entry}).items()}
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / _FILE
        fresh = path.with_suffix(".tmp")
        with fresh.open("w") as file:
            json.dump(held, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Champion and challenger on the same rows: the share of rows that each alarms on, where they
    agree, and how the ranks of their scores agree (Spearman)."""

    rows: int
    champion_over: float
    challenger_over: float
    both_over: float
    rank_correlation: float


def compare(champion: Stored, challenger: Stored, rows: Any) -> Comparison:
    """Score rows with both, as a challenger is scored in the shadow of a champion.

    :raises ModelError: if they have other features, or no row is complete.
    """
    if champion.card.features != challenger.card.features:
        raise ModelError(f"other features: {champion.card.features} and {challenger.card.features}")
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows):
        raise ModelError("no complete row to compare the models on")
    scores = [one.model().score(rows) for one in (champion, challenger)]
    over = [s >= one.card.threshold for s, one in zip(scores, (champion, challenger), strict=True)]
    ranks = [np.argsort(np.argsort(s, kind="stable"), kind="stable") for s in scores]
    spread = all(np.ptp(s) > 0 for s in scores) and len(rows) > 1
    return Comparison(
        rows=len(rows),
        champion_over=float(over[0].mean()),
        challenger_over=float(over[1].mean()),
        both_over=float((over[0] & over[1]).mean()),
        rank_correlation=float(np.corrcoef(ranks[0], ranks[1])[0, 1]) if spread else float("nan"),
    )


def drift(card: Card, rows: Any) -> dict[str, float]:
    """Return for each feature the share of values outside of what training had seen."""
    return {
        feature: float(((rows[:, k] < low) | (rows[:, k] > high)).mean())
        for k, (feature, (low, high)) in enumerate(zip(card.features, card.ranges, strict=True))
    }


def _entry(fields: dict[str, Any]) -> Entry:
    versions = {int(number): str(sha256) for number, sha256 in fields["versions"].items()}
    past = tuple(int(number) for number in fields["past"])
    return Entry(versions, int(fields["champion"]), int(fields["challenger"]), past)


def _known(name: str, entry: Entry, version: int) -> int:
    if version not in entry.versions:
        raise ModelError(f"{name} has no version {version}; it has {sorted(entry.versions)}")
    return version


def _promoted(name: str, entry: Entry) -> Entry:
    if not entry.challenger:
        raise ModelError(f"{name} has no challenger to promote")
    past = (*entry.past, entry.champion)[-_PAST_MAX:]
    return replace(entry, champion=entry.challenger, challenger=0, past=past)


def _rolled_back(name: str, entry: Entry) -> Entry:
    if not entry.past:
        raise ModelError(f"{name} has no champion before version {entry.champion}")
    return replace(entry, champion=entry.past[-1], challenger=entry.champion, past=entry.past[:-1])
