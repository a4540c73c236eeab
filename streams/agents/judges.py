"""The rule engines of a partition: one for each edition of the rules that some shard follows.

There is one, except while a change is met: after a crash, shards that were stored behind a marker
and shards that were stored before it read on from there together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from streams.agents.editions import Edition, Editions
from streams.core.registry import NEVER
from streams.core.results import WindowResults
from streams.core.rule_engine import RuleEngine
from streams.core.rule_pairs import Change
from streams.core.rule_state import Stands, standing_in

_NOT_HERE = NEVER - 1
"""Stamp of a shard that another engine has: every record is behind it."""
Told = list[tuple[Edition, Change]]


class Judges:
    """Shards, each judged by the rules of its edition.

    :param make: makes an engine for the rules of some settings.
    """

    def __init__(
        self, editions: Editions, make: Callable[[Edition], RuleEngine], shards: int
    ) -> None:
        self._editions = editions
        self._make = make
        self._engines: dict[str, RuleEngine] = {}
        self._of: list[Edition | None] = [None] * shards

    @property
    def engines(self) -> Mapping[str, RuleEngine]:
        """The engines by the ids of their editions."""
        self._settle()
        return self._engines

    def take(self, found: WindowResults, now_ms: int, offset: int) -> Told:
        """Take the results of one record."""
        return [
            (self._editions.of(identity), change)
            for identity, engine in self.engines.items()
            for change in engine.take(found, now_ms, offset)
        ]

    def pass_time(self, now_ms: int, offset: int) -> Told:
        """Let log time pass, before the record at *offset* is taken."""
        return [
            (self._editions.of(identity), change)
            for identity, engine in self.engines.items()
            for change in engine.pass_time(now_ms, offset)
        ]

    def change(self, after: Edition, offset: int) -> list[tuple[int, Edition, Stands]]:
        """Let shards that meet a marker follow another edition.

        :returns: of each alert that stands its shard, and the edition that it was told under.
        """
        standing = []
        for identity, engine in list(self.engines.items()):
            before = self._editions.of(identity)
            live = [
                s for s, of in enumerate(self._of) if of is before and engine.stamps[s] < offset
            ]
            if before.revision >= after.revision:
                continue
            for shard in live:
                stamp, state = int(engine.stamps[shard]), engine.snapshot(shard)
                standing += [(shard, before, one) for one in standing_in(state)]
                engine.stamps[shard] = _NOT_HERE
                self.restore(shard, stamp, state, after)
                self._engines[after.id].dirty_since[shard] = offset
            if all(of is not before for of in self._of):
                del self._engines[identity]
        return standing

    def restore(self, shard: int, stamp: int, state: dict[str, Any], edition: Edition) -> None:
        """Load a shard under its edition."""
        self._of[shard] = edition
        self._engine(edition).restore(shard, stamp, state)

    def snapshot(self, shard: int) -> tuple[str, dict[str, Any]]:
        """Return a shard's edition and its state, and mark it clean."""
        edition = self._of[shard]
        assert edition is not None
        return edition.id, self._engines[edition.id].snapshot(shard)

    def dirty(self) -> dict[str, int]:
        """Return the changed shards."""
        found: dict[str, int] = {}
        for engine in self._engines.values():
            since = engine.dirty_since
            found |= {str(s): int(since[s]) for s in np.flatnonzero(since != NEVER).tolist()}
        return found

    def count(self) -> dict[str, tuple[int, int]]:
        """Return of each rule how many alerts are pending, and how many fire."""
        found: dict[str, tuple[int, int]] = {}
        for engine in self._engines.values():
            for rule, (pending, firing) in engine.count().items():
                more = found.get(rule, (0, 0))
                found[rule] = (more[0] + pending, more[1] + firing)
        return found

    def refused(self) -> int:
        """Return what was refused for a limit since this was asked last."""
        found = sum(engine.refused for engine in self._engines.values())
        for engine in self._engines.values():
            engine.refused = 0
        return found

    def wants_time(self) -> bool:
        """Whether something waits for log time to pass."""
        return any(engine.wants_time() for engine in self._engines.values())

    def _engine(self, edition: Edition) -> RuleEngine:
        engine = self._engines.get(edition.id)
        if engine is None:
            engine = self._engines[edition.id] = self._make(edition)
            engine.stamps[:] = _NOT_HERE
        return engine

    def _settle(self) -> None:
        """Let shards without state follow the oldest edition that others do: nothing was read."""
        if None not in self._of:
            return
        known = [one for one in self._of if one is not None]
        first = min(known, key=lambda one: one.revision) if known else self._editions.newest()
        for shard in [s for s, one in enumerate(self._of) if one is None]:
            self._of[shard] = first
            self._engine(first).stamps[shard] = -1
