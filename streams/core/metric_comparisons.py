"""Metrics of a device compared with each other, window by window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from streams.core.comparisons import (
    Board,
    Chosen,
    Said,
    comparison_of,
    names_of,
    results_of,
    value_of,
)
from streams.core.placement import shard_of
from streams.core.readings import Int64
from streams.core.results import WindowResults
from streams.core.selectors import Names, TraitsOf
from streams.core.window_rules import WindowRule


class MetricComparisons:
    """Compares metrics of a device, as soon as both are known.

    :param rules: those that compare with a metric.
    :param keep_ms: window -> how long after its end a correction of it may come.
    :param limit: values that are held.
    """

    def __init__(
        self,
        rules: Sequence[WindowRule],
        keep_ms: Mapping[str, int],
        traits_of: TraitsOf,
        *,
        shards: int,
        limit: int,
    ) -> None:
        self._rules = rules
        self._number = {rule.name: i for i, rule in enumerate(rules)}
        self._chosen = Chosen(rules, traits_of)
        self._right: dict[tuple[str, str], list[int]] = {}
        for i, rule in enumerate(rules):
            right = (rule.window, comparison_of(rule).metric or "")
            self._right.setdefault(right, []).append(i)
        self._keep_ms = keep_ms
        self._shards, self._limit = shards, limit
        self._boards: dict[tuple[int, str, str], Board] = {}
        self._values = 0
        self.refused = 0
        """Values not held because the limit was met, since somebody set it to 0."""

    def watched(self, found: WindowResults) -> Int64:
        """Return the rows that some comparison may look at."""
        return self._chosen.watches(found) if self._rules else np.empty(0, np.int64)

    def take(self, found: WindowResults, rows: Int64) -> list[WindowResults]:
        """Take some watched rows of results; return what can be compared now."""
        said: dict[int, list[Said]] = {}
        for i in rows.tolist():
            names = names_of(found, i)
            window = found.window[i]
            left = self._chosen.of(names, window)
            right = self._right.get((window, names.metric), ())
            for number in sorted({*left, *right}) if right else left:
                said.setdefault(number, []).extend(self._put(number, names, found, i))
        return [results_of(self._rules[number], rows) for number, rows in said.items() if rows]

    def _put(self, number: int, names: Names, found: WindowResults, row: int) -> Iterator[Said]:
        rule, key = self._rules[number], (number, names.tenant, names.device)
        other = comparison_of(rule).metric
        board = self._boards.get(key)
        if board is None:
            if self._values >= self._limit:
                self.refused += 1
                return
            shard = shard_of(names.tenant, names.device, self._shards)
            board = self._boards[key] = Board(shard)
        start_ms = int(found.start_ms[row])
        value = value_of(found, row, comparison_of(rule).column)
        grown = board.put(start_ms, names.metric, value, self._keep_ms.get(rule.window, 0))
        if grown is None:
            return
        self._values += grown
        of = board.windows.get(start_ms, {})
        right = of.get(other or "")
        if right is None:
            return
        for metric in [*of] if names.metric == other else [names.metric]:
            left = of[metric]
            mine = Names(names.tenant, left.site, names.device, metric)
            if metric != other and number in self._chosen.of(mine, rule.window):
                yield Said(mine, start_ms, left.rank + right.rank, left, right.value, right)

    def snapshot(self, shard: int) -> list[Any]:
        """Return what a shard holds."""
        return [
            [self._rules[number].name, tenant, device, board.state()]
            for (number, tenant, device), board in self._boards.items()
            if board.shard == shard
        ]

    def restore(self, shard: int, state: Iterable[Sequence[Any]]) -> None:
        """Load a shard; what belongs to rules that are gone is forgotten."""
        for name, tenant, device, kept in state:
            if name in self._number:
                board = Board.of(shard, kept)
                self._boards[self._number[name], tenant, device] = board
                self._values += sum(len(of) for of in board.windows.values())
