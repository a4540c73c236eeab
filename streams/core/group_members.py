"""Who is compared with whom among devices.

A *board* is a rule on a metric of a group; the devices on it are its *members*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.core.columns import Columns
from streams.core.comparisons import Chosen, comparison_of
from streams.core.readings import Int64
from streams.core.results import WindowResults
from streams.core.selectors import Names, TraitsOf
from streams.core.series_rows import SeriesRows
from streams.core.texts import Texts
from streams.core.window_rules import WindowRule

NO_MEMBER = -1
_MOST = 1 << 21
"""As many as keys of (member, time) tell apart."""
_BOARD: dict[str, tuple[Any, Any]] = {
    "rule": (np.int32, 0),
    "tenant": (np.int32, 0),
    "group": (np.int32, 0),
    "metric": (np.int32, 0),
    "shard": (np.int32, 0),
    "end_ms": (np.int64, -1),
}
_MEMBER: dict[str, tuple[Any, Any]] = {"board": (np.int32, 0), "device": (np.int32, 0)}
_PAIR: dict[str, tuple[Any, Any]] = {
    "rule": (np.int32, 0),
    "member": (np.int32, NO_MEMBER),
    "site": (np.int32, 0),
}
ShardOf = Callable[[str, str, str], int]
"""Of a group by its tenant, its kind and its name."""


class Members:
    """All boards and members. ``boards``: ``end_ms`` is the greatest end of a window (event time).

    ``pairs``: of a series and a rule that looks at it; ``member`` is ``NO_MEMBER`` where there are
    too many.

    :param rules: those that compare among devices.
    """

    def __init__(self, rules: Sequence[WindowRule], traits_of: TraitsOf, shard_of: ShardOf) -> None:
        self._rules = rules
        self._chosen = Chosen(rules, traits_of)
        self._shard_of = shard_of
        self.texts = Texts()
        self.boards, self.members = Columns(_BOARD), Columns(_MEMBER)
        self.names: list[tuple[str, str, str]] = []
        """Of each board: tenant, group and metric."""
        self._board_index: dict[tuple[int, str, str, str], int] = {}
        self._member_index: dict[tuple[int, str], int] = {}
        self._rows = SeriesRows(_PAIR, self._learn)

    @property
    def pairs(self) -> Columns:
        """See the class."""
        return self._rows.columns

    def pair(self, found: WindowResults) -> tuple[Int64, Int64]:
        """Return every pair of a closed result and a rule that looks at it.

        :returns: int64[m] rows of *found*, in order; int64[m] rows of ``pairs``.
        """
        return self._rows.pair(found, self._chosen.watches(found))

    def board(self, rule: int, tenant: str, group: str, metric: str) -> int:
        """Return a board, a new one if it is new."""
        key = (rule, tenant, group, metric)
        board = self._board_index.setdefault(key, self.boards.n)
        if board == self.boards.n:
            self.boards.grow_to(board + 1)
            self.names.append((tenant, group, metric))
            numbers = {
                "rule": rule,
                "tenant": self.texts.number(tenant),
                "group": self.texts.number(group),
                "metric": self.texts.number(metric),
                "shard": self._shard_of(
                    tenant, comparison_of(self._rules[rule]).among or "", group
                ),
            }
            for name, number in numbers.items():
                self.boards[name][board] = number
        return board

    def member(self, board: int, device: str) -> int:
        """Return a member of a board, a new one if it is new and there is room."""
        found = self._member_index.get((board, device))
        if found is not None:
            return found
        if self.members.n >= _MOST:
            return NO_MEMBER
        member = self._member_index[board, device] = self.members.n
        self.members.grow_to(member + 1)
        self.members["board"][member] = board
        self.members["device"][member] = self.texts.number(device)
        return member

    def _learn(self, names: Names, window: str) -> dict[str, NDArray[Any]]:
        rules = self._chosen.of(names, window)
        boards = [
            self.board(rule, names.tenant, self._chosen.group(rule, names), names.metric)
            for rule in rules
        ]
        members = [self.member(board, names.device) for board in boards]
        return {
            "rule": np.asarray(rules, np.int32),
            "member": np.asarray(members, np.int32),
            "site": np.full(len(rules), self.texts.number(names.site), np.int32),
        }
