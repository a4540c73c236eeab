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

    def groups(self, found: WindowResults, row: int) -> Iterator[tuple[int, str, str]]:
        """Yield rule, tenant and group of each rule that looks at a result."""
        names = names_of(found, row)
        for number in self.of(names, found.window[row]):
            yield number, names.tenant, self._group(number, names)

    def _group(self, number: int, names: Names) -> str:
        among = comparison_of(self._rules[number]).among
        if among == "type":
            return self._traits_of(names.tenant, names.site, names.device).type
        return names.site if among == "site" else "*"


class Said(NamedTuple):
    """What a comparison says of a window: of the left side, against a value of the right."""

    names: Names
    start_ms: int
    rank: int
    left: Value
    against: float
    right: Value


def names_of(found: WindowResults, row: int) -> Names:
    """Return what names the series of a result."""
    return Names(found.tenant[row], found.site[row], found.device[row], found.metric[row])


def comparison_of(rule: WindowRule) -> Comparison:
    """Return the comparison of a rule that has one."""
    assert rule.comparison is not None
    return rule.comparison


def value_of(found: WindowResults, row: int, column: str) -> Value:
    """Return what a result says; a retracted one nothing."""
    values: Float64 | None = getattr(found, column) if column in PLAIN else found.extra.get(column)
    gone = found.count[row] == 0 or values is None
    return Value(
        int(found.rank[row]),
        NOTHING if gone or values is None else float(values[row]),
        int(found.end_ms[row]),
        int(found.last_received_ms[row]),
        int(found.kafka_ms[row]),
        found.site[row],
    )


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


def results_of(rule: WindowRule, said: Sequence[Said]) -> WindowResults:
    """Return comparisons as results of the window that the rule looks at."""
    n = len(said)
    left = np.asarray([one.left.value for one in said], np.float64)
    right = np.asarray([one.against for one in said], np.float64)
    value = measured(comparison_of(rule), left, right)
    latest = [
        (max(o.left.received_ms, o.right.received_ms), max(o.left.kafka_ms, o.right.kafka_ms))
        for o in said
    ]
    return WindowResults(
        tenant=Labels.of(one.names.tenant for one in said),
        site=Labels.of(one.names.site for one in said),
        device=Labels.of(one.names.device for one in said),
        metric=Labels.of(one.names.metric for one in said),
        window=Labels.constant(rule.looks_at, n),
        source=Labels.constant("", n),
        reason=Labels.constant("compared", n),
        start_ms=np.asarray([one.start_ms for one in said], np.int64),
        end_ms=np.asarray([one.left.end_ms for one in said], np.int64),
        rank=np.asarray([one.rank for one in said], np.int32),
        count=np.isfinite(value).astype(np.int64),
        sum=value,
        min=value,
        max=value,
        mean=value,
        sd=np.full(n, np.nan),
        last_received_ms=np.asarray([one for one, _ in latest], np.int64),
        kafka_ms=np.asarray([one for _, one in latest], np.int64),
    )


def split(rules: Sequence[WindowRule]) -> tuple[list[WindowRule], list[WindowRule]]:
    """Return the rules that compare with a metric, and those that compare among devices."""
    having = [rule for rule in rules if rule.comparison is not None]
    return (
        [rule for rule in having if comparison_of(rule).metric is not None],
        [rule for rule in having if comparison_of(rule).among is not None],
    )
