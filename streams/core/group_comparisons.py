"""Devices compared with the median of their group, window by window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streams.core.comparisons import NOTHING, Board, Said, comparison_of, results_of, value_of
from streams.core.registry import NEVER
from streams.core.results import WindowResults
from streams.core.selectors import Names
from streams.core.window_rules import WindowRule

Key = tuple[int, str, str, str]
"""Rule, tenant, group, metric."""


@dataclass(slots=True)
class Turn:
    """When a group's window changed last, and how often it was told."""

    changed_ms: int
    told: int = 0


class GroupComparisons:
    """Compares devices with the median of their group, once it has been quiet for a while.

    :param rules: those that compare among devices.
    :param keep_ms: window -> how long after its end a correction of it may come.
    :param quiet_ms: log time without a change.
    :param limit: values that are held.
    """

    def __init__(
        self,
        rules: Sequence[WindowRule],
        keep_ms: Mapping[str, int],
        *,
        quiet_ms: int,
        limit: int,
    ) -> None:
        self._rules = rules
        self._number = {rule.name: i for i, rule in enumerate(rules)}
        self._keep_ms = keep_ms
        self._quiet_ms, self._limit = quiet_ms, limit
        self._boards: dict[Key, Board] = {}
        self._turns: dict[Key, dict[int, Turn]] = {}
        self._due: dict[Key, set[int]] = {}
        self._next_ms = NEVER
        self._values = 0
        self.refused = 0
        """Values not held because the limit was met, since somebody set it to 0."""

    def take(self, found: WindowResults, row: int, number: int, group: str, now_ms: int) -> None:
        """Take a result into a comparison."""
        rule = self._rules[number]
        key = (number, found.tenant[row], group, found.metric[row])
        board = self._boards.get(key)
        if board is None or found.device[row] not in board.windows.get(
            int(found.start_ms[row]), ()
        ):
            if self._values >= self._limit:
                self.refused += 1
                return
            board = self._boards.setdefault(key, Board(0))
        start_ms = int(found.start_ms[row])
        value = value_of(found, row, comparison_of(rule).column)
        grown = board.put(start_ms, found.device[row], value, self._keep_ms.get(rule.window, 0))
        if grown is None:
            return
        self._values += grown
        turns = self._turns.setdefault(key, {})
        for old in [s for s in turns if s not in board.windows]:
            del turns[old]
            self._due.get(key, set()).discard(old)
        if start_ms in board.windows:
            turns.setdefault(start_ms, Turn(now_ms)).changed_ms = now_ms
            self._due.setdefault(key, set()).add(start_ms)
            self._next_ms = min(self._next_ms, now_ms + self._quiet_ms)

    def pass_time(self, now_ms: int) -> list[WindowResults]:
        """Return the comparisons in groups that have been quiet for long enough."""
        if now_ms < self._next_ms:
            return []
        out: list[WindowResults] = []
        self._next_ms = NEVER
        # In an order that stored state has, too.
        for key, starts in sorted(self._due.items()):
            said: list[Said] = []
            for start_ms in sorted(starts):
                turn = self._turns[key][start_ms]
                if turn.changed_ms + self._quiet_ms > now_ms:
                    self._next_ms = min(self._next_ms, turn.changed_ms + self._quiet_ms)
                    continue
                starts.remove(start_ms)
                said += self._compare(key, start_ms, turn)
            if not starts:
                del self._due[key]
            if said:
                out.append(results_of(self._rules[key[0]], said))
        return out

    def wants_time(self) -> bool:
        """Whether a group waits to be quiet."""
        return bool(self._due)

    def _compare(self, key: Key, start_ms: int, turn: Turn) -> Iterator[Said]:
        number, tenant, _, metric = key
        members = self._boards[key].windows[start_ms]
        values = np.asarray([value.value for value in members.values()])
        known = values[~np.isnan(values)]
        enough = len(known) >= comparison_of(self._rules[number]).least
        median = float(np.median(known)) if enough else NOTHING
        for device, value in members.items():
            yield Said(
                Names(tenant, value.site, device, metric), start_ms, turn.told, value, median, value
            )
        turn.told += 1

    def snapshot(self) -> list[Any]:
        """Return all that is held."""
        return [
            [
                self._rules[key[0]].name,
                *key[1:],
                board.state(),
                [
                    [start_ms, turn.changed_ms, turn.told, start_ms in self._due.get(key, ())]
                    for start_ms, turn in self._turns.get(key, {}).items()
                ],
            ]
            for key, board in self._boards.items()
        ]

    def restore(self, state: Iterable[Sequence[Any]]) -> None:
        """Load what was held; what belongs to rules that are gone is forgotten."""
        for name, tenant, group, metric, kept, turns in state:
            if name not in self._number:
                continue
            key = (self._number[name], tenant, group, metric)
            board = self._boards[key] = Board.of(0, kept)
            self._values += sum(len(of) for of in board.windows.values())
            self._turns[key] = {start: Turn(changed, told) for start, changed, told, _ in turns}
            due = {start for start, *_, is_due in turns if is_due}
            if due:
                self._due[key] = due
                self._next_ms = 0
