"""Models ready to score, taken from a registry again when it has changed: without a restart.

A version that is refused, because it was changed or cannot be read, is reported once, and what was
ready before goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.errors import ModelError
from models.registry import Entry, Registry
from models.scorer import Scorer
from models.store import Card

Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Live:
    """A version in memory."""

    name: str
    version: int
    card: Card
    scorer: Scorer


@dataclass(frozen=True, slots=True)
class Pair:
    """Who decides, and who is scored in its shadow."""

    champion: Live | None = None
    challenger: Live | None = None


class Shelf:
    """Champions and challengers of some names.

    :param refused: told the name of a model and why a version of it is not used.
    :param loaded: told of each version that became ready.
    """

    def __init__(
        self,
        folder: Path,
        refused: Callable[[str, str], None] = lambda _name, _why: None,
        loaded: Callable[[Live], None] = lambda _live: None,
    ) -> None:
        self._registry = Registry(folder)
        self._refused, self._loaded = refused, loaded
        self._seen: Signature | None = None
        self._entries: dict[str, Entry] = {}
        self._pairs: dict[str, tuple[Entry, Pair]] = {}

    def pair(self, name: str) -> Pair:
        """Return what is ready of a name; looks at the registry's file for changes."""
        self._look()
        entry = self._entries.get(name, Entry())
        held = self._pairs.get(name)
        if held is None or held[0] != entry:
            before = Pair() if held is None else held[1]
            held = self._pairs[name] = (entry, self._ready(name, entry, before))
        return held[1]

    def _look(self) -> None:
        now = self._registry.signature()
        if now == self._seen:
            return
        self._seen = now
        try:
            self._entries = self._registry.entries()
        except ModelError as error:
            self._refused("*", str(error))

    def _ready(self, name: str, entry: Entry, before: Pair) -> Pair:
        champion = self._load(name, entry, entry.champion, before) or before.champion
        if not entry.champion:
            champion = None
        return Pair(champion, self._load(name, entry, entry.challenger, before))

    def _load(self, name: str, entry: Entry, version: int, before: Pair) -> Live | None:
        if not version:
            return None
        known = next(
            (one for one in (before.champion, before.challenger) if one and one.version == version),
            None,
        )
        if known is not None:
            return known
        try:
            stored = self._registry.load(name, version)
            live = Live(name, version, stored.card, stored.scorer())
        except ModelError as error:
            self._refused(name, str(error))
            return None
        self._loaded(live)
        return live
