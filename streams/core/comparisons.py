"""Windows compared with others: of another metric of the device, or of the devices of a group.

What a comparison says of a window is a window result itself, with the difference (or the ratio)
as its value, under a name of its own: rules judge it as any other. It is said anew when either side
is corrected, and its rank grows with theirs, so the greatest rank counts here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from streams.core.readings import Float64, Int64, Labels
from streams.core.results import WindowResults
from streams.core.selectors import Names, Selection, TraitsOf
from streams.core.window_rules import PLAIN, Comparison, WindowRule

_REMEMBERED = 100_000
_FORGOTTEN_AT_ONCE = 16
NOTHING = float("nan")
Placed = tuple[int, int, str, str]
"""Row of a result, rule, tenant, group."""


class Value(NamedTuple):
    """One side of a comparison: what a window said last. NaN: nothing."""

    rank: int
    value: float
    end_ms: int
    received_ms: int
    kafka_ms: int
    site: str


@dataclass(slots=True)
class Board:
    """The windows of which something may still come: start -> name -> value."""

    shard: int
    end_ms: int = -1
    windows: dict[int, dict[str, Value]] = field(default_factory=dict)

    def put(self, start_ms: int, name: str, value: Value, keep_ms: int) -> int | None:
        """Take a window; return how many values more there are, None if it changes nothing.

        :param keep_ms: windows that end so long before the last one are forgotten.
        """
        if value.end_ms < self.end_ms - keep_ms:
            return None
        of = self.windows.setdefault(start_ms, {})
        known = of.get(name)
        if known is not None and known.rank >= value.rank:
            return None
        of[name] = value
        grown = int(known is None)
        if value.end_ms > self.end_ms:
            self.end_ms = value.end_ms
            grown -= self._forget(value.end_ms - keep_ms)
        return grown

    def _forget(self, before_ms: int) -> int:
        """Drop old windows, from the first that was met on up to one that is not old."""
        gone = 0
        for start_ms, of in list(islice(self.windows.items(), _FORGOTTEN_AT_ONCE)):
            if next(iter(of.values())).end_ms >= before_ms:
                break
            del self.windows[start_ms]
            gone += len(of)
        return gone

    def state(self) -> list[Any]:
        """Return what :meth:`of` takes."""
        rows = [[s, n, *v] for s, of in self.windows.items() for n, v in of.items()]
        return [self.end_ms, rows]

    @staticmethod
    def of(shard: int, state: Sequence[Any]) -> Board:
        """Return a board as it was."""
        board = Board(shard, state[0])
        for start_ms, name, *value in state[1]:
            board.windows.setdefault(start_ms, {})[name] = Value(*value)
        return board


class Chosen:
    """Which comparing rules look at a series.

    :param rules: each with a comparison.
    """

    def __init__(self, rules: Sequence[WindowRule], traits_of: TraitsOf) -> None:
        self._rules = rules
        self._traits_of = traits_of
        self._selection = Selection([rule.selector for rule in rules], traits_of)
        self._known: dict[tuple[Names, str], list[int]] = {}
        self._groups: dict[tuple[str, ...], list[tuple[int, str]]] = {}

    def watches(self, found: WindowResults) -> Int64:
        """Return the closed results, as rows, of windows that any rule looks at."""
        names = {rule.window for rule in self._rules}
        flags = np.asarray([name in names for name in found.window.values], np.bool_)
        return np.flatnonzero(flags[found.window.codes] & (found.rank >= 0))

    def of(self, names: Names, window: str) -> list[int]:
        """Return the rules that look at a series in a window."""
        found = self._known.get((names, window))
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            chosen = self._selection.of(names).tolist()
            found = [i for i in chosen if self._rules[i].window == window]
            self._known[names, window] = found
        return found

    def placed(self, found: WindowResults, rows: Int64) -> Iterator[Placed]:
        """Yield some results with each rule that looks at them, and the group for it."""
        columns = (found.tenant, found.site, found.device, found.metric, found.window)
        keys = zip(*(column.take(rows).to_list() for column in columns), strict=True)
        for row, key in zip(rows.tolist(), keys, strict=True):
            groups = self._groups.get(key)
            if groups is None:
                if len(self._groups) >= _REMEMBERED:
                    self._groups.clear()
                names = Names(*key[:4])
                groups = [(i, self._group(i, names)) for i in self.of(names, key[4])]
                self._groups[key] = groups
            for number, group in groups:
                yield row, number, key[0], group

    def _group(self, number: int, names: Names) -> str:
        among = comparison_of(self._rules[number]).among
        if among == "type":
            return self._traits_of(names.tenant, names.site, names.device).type
        return names.site if among == "site" else "*"


def comparison_of(rule: WindowRule) -> Comparison:
    """Return the comparison of a rule that has one."""
    assert rule.comparison is not None
    return rule.comparison


def values_of(found: WindowResults, columns: Sequence[str]) -> Float64:
    """Return float64[columns, n]: what results say; NaN where that is nothing."""
    out = np.full((len(columns), len(found)), NOTHING)
    for place, name in enumerate(columns):
        values = getattr(found, name) if name in PLAIN else found.extra.get(name)
        if values is not None:
            out[place] = values
    out[:, found.count == 0] = NOTHING
    return out


def measured(how: Comparison, left: Float64, right: Float64) -> Float64:
    """Return the differences or ratios of values; NaN where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value: Float64 = left - right if how.by == "difference" else left / right
    value[~np.isfinite(value)] = NOTHING
    return value


def said_of(rule: WindowRule, value: Float64) -> dict[str, Any]:
    """Return the columns of results that say these values, and nothing else of a window."""
    n = len(value)
    return {
        "window": Labels.constant(rule.looks_at, n),
        "source": Labels.constant("", n),
        "reason": Labels.constant("compared", n),
        "count": np.isfinite(value).astype(np.int64),
        **dict.fromkeys(("sum", "min", "max", "mean"), value),
        "sd": np.full(n, np.nan),
    }


def split(rules: Sequence[WindowRule]) -> tuple[list[WindowRule], list[WindowRule]]:
    """Return the rules that compare with a metric, and those that compare among devices."""
    having = [rule for rule in rules if rule.comparison is not None]
    return (
        [rule for rule in having if comparison_of(rule).metric is not None],
        [rule for rule in having if comparison_of(rule).among is not None],
    )
