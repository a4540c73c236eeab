"""The sides of comparisons: which metric of which device takes part in which rule.

A *board* is a rule on a device; what is compared on it are its *sides*, a metric each, one of them
the right one: that of the rule's ``with_metric``. Series are looked up once for a batch; what they
are to each rule (their *pairs*) is kept in columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.core.chains import Chains
from streams.core.columns import Columns
from streams.core.comparisons import Chosen, comparison_of
from streams.core.placement import shard_of
from streams.core.readings import Int32, Int64
from streams.core.results import WindowResults
from streams.core.selectors import Names, TraitsOf
from streams.core.series_rows import SeriesRows
from streams.core.texts import Texts
from streams.core.window_rules import WindowRule

NO_SIDE = -1
_BOARD: dict[str, tuple[Any, Any]] = {
    "rule": (np.int32, 0),
    "tenant": (np.int32, 0),
    "device": (np.int32, 0),
    "shard": (np.int32, 0),
    "end_ms": (np.int64, -1),
    "right": (np.int32, NO_SIDE),
}
_SIDE: dict[str, tuple[Any, Any]] = {"board": (np.int32, 0), "metric": (np.int32, 0)}
_PAIR: dict[str, tuple[Any, Any]] = {
    "rule": (np.int32, 0),
    "side": (np.int32, NO_SIDE),
    "site": (np.int32, 0),
    "chosen": (np.bool_, False),
}


class Sides:
    """All boards and sides of a partition.

    ``boards``: ``end_ms`` is the greatest end of a window (event time), ``right`` the right side.
    ``pairs``: of a series and a rule; ``chosen`` says that the rule looks at the series, so that
    it is a left side. ``side`` is ``NO_SIDE`` until the board is opened.

    :param rules: those that compare with a metric.
    """

    def __init__(self, rules: Sequence[WindowRule], traits_of: TraitsOf, *, shards: int) -> None:
        self._rules = rules
        self._shards = shards
        self._chosen = Chosen(rules, traits_of)
        self._against: dict[tuple[str, str], list[int]] = {}
        for i, rule in enumerate(rules):
            right = (rule.window, comparison_of(rule).metric or "")
            self._against.setdefault(right, []).append(i)
        self.texts = Texts()
        self.boards, self.sides = Columns(_BOARD), Columns(_SIDE)
        self._board_index: dict[tuple[int, str, str], int] = {}
        self._side_index: dict[tuple[int, str], int] = {}
        self._left = Chains()
        self._unlinked: list[tuple[int, int]] = []
        self._rows = SeriesRows(_PAIR, self._learn)

    def watches(self, found: WindowResults) -> Int64:
        """Return the closed results, as rows, of windows that any rule looks at."""
        return self._chosen.watches(found)

    @property
    def pairs(self) -> Columns:
        """See the class."""
        return self._rows.columns

    def pair(self, found: WindowResults) -> tuple[Int64, Int64]:
        """Return every pair of a result and a rule that it matters to.

        :returns: int64[m] rows of *found*, in order; int64[m] rows of ``pairs``.
        """
        return self._rows.pair(found, np.arange(len(found)))

    def board_of(self, rule: int, tenant: str, device: str) -> int | None:
        """Return a board, if it is open."""
        return self._board_index.get((rule, tenant, device))

    def open(self, rule: int, tenant: str, device: str) -> int:
        """Return a board, a new one if it is new."""
        key = (rule, tenant, device)
        board = self._board_index.setdefault(key, self.boards.n)
        if board == self.boards.n:
            self.boards.grow_to(board + 1)
            self.boards["rule"][board] = rule
            self.boards["tenant"][board] = self.texts.number(tenant)
            self.boards["device"][board] = self.texts.number(device)
            self.boards["shard"][board] = shard_of(tenant, device, self._shards)
        return board

    def side(self, board: int, metric: str) -> int:
        """Return a side of a board, a new one if it is new."""
        side = self._side_index.setdefault((board, metric), self.sides.n)
        if side == self.sides.n:
            self.sides.grow_to(side + 1)
            self.sides["board"][side] = board
            self.sides["metric"][side] = self.texts.number(metric)
            if metric == comparison_of(self._rules[int(self.boards["rule"][board])]).metric:
                self.boards["right"][board] = side
            else:
                self._unlinked.append((board, side))
        return side

    def left_of(self, boards: Int32) -> tuple[Int64, Int64]:
        """Return positions in *boards*, and with each a left side of the board there."""
        if self._unlinked:
            board, side = np.asarray(self._unlinked, np.int64).T
            self._left.insert(board, side)
            self._unlinked.clear()
        return self._left.walk(boards)

    def is_left(self, rule: int, names: Names) -> bool:
        """Whether a rule compares this series with another."""
        of = self._rules[rule]
        return names.metric != comparison_of(of).metric and rule in self._chosen.of(
            names, of.window
        )

    def _learn(self, names: Names, window: str) -> dict[str, NDArray[Any]]:
        right = self._against.get((window, names.metric), ())
        rules = sorted({*self._chosen.of(names, window), *right})
        return {
            "rule": np.asarray(rules, np.int32),
            "site": np.full(len(rules), self.texts.number(names.site), np.int32),
            "chosen": np.asarray([self.is_left(rule, names) for rule in rules], np.bool_),
        }
