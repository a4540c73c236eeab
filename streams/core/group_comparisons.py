"""Devices compared with the median of their group, window by window."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streams.core.comparisons import (
    NOTHING,
    Board,
    Placed,
    Value,
    comparison_of,
    measured,
    said_of,
    values_of,
)
from streams.core.readings import Labels
from streams.core.registry import NEVER
from streams.core.results import WindowResults
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
        self._columns = list(dict.fromkeys(comparison_of(rule).column for rule in rules))
        column = [self._columns.index(comparison_of(rule).column) for rule in rules]
        self._column_of = np.asarray(column, np.int64)
        self._keep_ms = keep_ms
        self._quiet_ms, self._limit = quiet_ms, limit
        self._boards: dict[Key, Board] = {}
        self._turns: dict[Key, dict[int, Turn]] = {}
        self._due: dict[Key, set[int]] = {}
        self._next_ms = NEVER
        self._values = 0
        self.refused = 0
        """Values not held because the limit was met, since somebody set it to 0."""

    def take(self, found: WindowResults, placed: Sequence[Placed], now_ms: int) -> None:
        """Take results into the comparisons of their groups."""
        row = np.asarray([one[0] for one in placed], np.int64)
        rule = np.asarray([one[1] for one in placed], np.int64)
        found = found.take(row)
        value = values_of(found, self._columns)[self._column_of[rule], np.arange(len(row))]
        columns = (found.rank, value, found.end_ms, found.last_received_ms, found.kafka_ms)
        values = zip(*(column.tolist() for column in columns), found.site.to_list(), strict=True)
        names = zip(found.metric.to_list(), found.device.to_list(), strict=True)
        rows = zip(placed, names, found.start_ms.tolist(), values, strict=True)
        for (_, number, tenant, group), (metric, device), start_ms, of in rows:
            self._put((number, tenant, group, metric), start_ms, device, Value(*of), now_ms)

    def _put(self, key: Key, start_ms: int, device: str, value: Value, now_ms: int) -> None:
        board = self._boards.get(key)
        if board is None or device not in board.windows.get(start_ms, ()):
            if self._values >= self._limit:
                self.refused += 1
                return
            if board is None:
                board = self._boards[key] = Board(0)
        keep_ms = self._keep_ms.get(self._rules[key[0]].window, 0)
        grown = board.put(start_ms, device, value, keep_ms)
        if grown is None:
            return
        self._values += grown
        turns = self._turns.setdefault(key, {})
        if not turns.keys() <= board.windows.keys():
            for old in turns.keys() - board.windows.keys():
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
            quiet: list[int] = []
            for start_ms in sorted(starts):
                turn = self._turns[key][start_ms]
                if turn.changed_ms + self._quiet_ms > now_ms:
                    self._next_ms = min(self._next_ms, turn.changed_ms + self._quiet_ms)
                    continue
                starts.remove(start_ms)
                quiet.append(start_ms)
            if not starts:
                del self._due[key]
            if quiet:
                out.append(self._compare(key, quiet))
        return out

    def wants_time(self) -> bool:
        """Whether a group waits to be quiet."""
        return bool(self._due)

    def _compare(self, key: Key, starts: Sequence[int]) -> WindowResults:
        """Return what there is to say of a group's windows, and count that it was told."""
        number, tenant, _, metric = key
        rule = self._rules[number]
        devices: list[str] = []
        members: list[Value] = []
        median, told, n = [], [], []
        for start_ms in starts:
            of = self._boards[key].windows[start_ms]
            devices += of.keys()
            members += of.values()
            values = np.asarray([one.value for one in of.values()])
            known = values[~np.isnan(values)]
            enough = len(known) >= comparison_of(rule).least
            median.append(float(np.median(known)) if enough else NOTHING)
            turn = self._turns[key][start_ms]
            told.append(turn.told)
            turn.told += 1
            n.append(len(of))
        _, left, end_ms, received_ms, kafka_ms, sites = zip(*members, strict=True)
        value = measured(comparison_of(rule), np.asarray(left, np.float64), np.repeat(median, n))
        return WindowResults(
            tenant=Labels.constant(tenant, len(members)),
            site=Labels.of(sites),
            device=Labels.of(devices),
            metric=Labels.constant(metric, len(members)),
            start_ms=np.repeat(np.asarray(starts, np.int64), n),
            end_ms=np.asarray(end_ms, np.int64),
            rank=np.repeat(np.asarray(told, np.int32), n),
            last_received_ms=np.asarray(received_ms, np.int64),
            kafka_ms=np.asarray(kafka_ms, np.int64),
            **said_of(rule, value),
        )

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
