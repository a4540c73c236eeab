"""Windows compared with others: of another metric of the device, or of the devices of a group.

What a comparison says of a window is a window result itself, with the difference (or the ratio)
as its value, under a name of its own: rules judge it as any other. It is said anew when either side
is corrected, and its rank grows with theirs, so the greatest rank counts here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from streams.core.readings import Bool, Float64, Int64, Labels
from streams.core.results import WindowResults
from streams.core.selectors import Names, Selection, TraitsOf
from streams.core.window_rules import PLAIN, Comparison, WindowRule

_REMEMBERED = 100_000
NOTHING = float("nan")


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

    def group(self, number: int, names: Names) -> str:
        """Return the group of a device for a rule that compares among devices."""
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


def measured(ratio: Bool | bool, left: Float64, right: Float64) -> Float64:
    """Return the differences of values, or ratios; NaN where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value: Float64 = np.where(ratio, left / right, left - right)
    value[~np.isfinite(value)] = NOTHING
    return value


def said_of(window: Labels, value: Float64) -> dict[str, Any]:
    """Return the columns of results that say these values, and nothing else of a window.

    :param window: what rules look at; see :attr:`WindowRule.looks_at`.
    """
    n = len(value)
    return {
        "window": window,
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
