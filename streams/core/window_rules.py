"""Rules on window results, and what each says of one: on, between, off, or nothing.

A threshold with hysteresis has two bounds. At or beyond the first the rule is *on*; on the good
side of the second it is *off*; *between* the two it stays what it was. A result without a value
(NaN, a retracted window) says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streams.core.readings import Float64, Int64
from streams.core.results import WindowResults
from streams.core.selectors import Selector

PLAIN = ("count", "sum", "min", "max", "mean", "sd")
"""Columns that every window has."""
Int8 = NDArray[np.int8]


class Verdict(IntEnum):
    """What a rule says of a window."""

    NOTHING = -1
    OFF = 0
    BETWEEN = 1
    ON = 2


@dataclass(frozen=True, slots=True)
class Threshold:
    """Compares a column with bounds; ``scale`` multiplies the column first.

    With ``ahead_ms`` the column is the last value of a line, whose slope per second is the column
    ``trend``: what counts is the worst that it comes to within that time.
    """

    column: str
    bound: float
    clear: float
    above: bool
    scale: float = 1.0
    ahead_ms: int = 0


@dataclass(frozen=True, slots=True)
class Condition:
    """An expression over the columns and names of a result.

    ``holds`` gets what ``uses`` names; it returns whether the rule is on, ``None`` if it cannot be
    said.
    """

    text: str
    uses: tuple[str, ...]
    holds: Callable[[Mapping[str, float | str]], bool | None]


@dataclass(frozen=True, slots=True)
class Absence:
    """On where a series has had no reading for so long, in log time."""

    silent_ms: int


@dataclass(frozen=True, slots=True)
class Composition:
    """On where every (or any) of the members is on, on the same device.

    A member counts as on for ``within_ms`` beyond the end of the window in which it was.
    """

    members: tuple[str, ...]
    every: bool
    within_ms: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What of a window is compared: with another ``metric`` of the device, or ``among`` devices.

    ``among`` is ``site``, ``type`` or ``tenant``: with the median of those that the rule looks at,
    if there are ``least`` of them.
    """

    column: str
    by: Literal["difference", "ratio"]
    metric: str | None = None
    among: str | None = None
    least: int = 1


Test = Threshold | Condition | Absence | Composition


@dataclass(frozen=True, slots=True)
class WindowRule:
    """A rule on the results of one window definition.

    ``hold_ms`` and ``resolve_ms`` are event time: how long it must be on before the alert fires,
    and off before it resolves. ``tells`` is false for what only serves compositions.
    """

    name: str
    severity: str
    window: str
    test: Test
    selector: Selector
    hold_ms: int = 0
    resolve_ms: int = 0
    tells: bool = True
    comparison: Comparison | None = None
    """Then the test looks at what that says, and not at the window's own results."""

    @property
    def looks_at(self) -> str:
        """The window of the results that it is judged on; that of a comparison has its name."""
        return self.window if self.comparison is None else f"{self.window}/{self.name}"


class Tests:
    """The tests of many rules, applied to pairs of a result and a rule at once.

    :param rules: with a threshold or a condition each.
    """

    def __init__(self, rules: Sequence[WindowRule]) -> None:
        bounds = [r.test if isinstance(r.test, Threshold) else None for r in rules]
        self._columns = list(dict.fromkeys(b.column for b in bounds if b is not None))
        place = {name: i for i, name in enumerate(self._columns)}
        self._column = np.asarray([place[b.column] if b else 0 for b in bounds], np.int64)
        # Turned so that more is always worse.
        self._sign = np.asarray([(1 if b.above else -1) if b else 1 for b in bounds], np.float64)
        self._ahead_s = np.asarray([(b.ahead_ms if b else 0) / 1000 for b in bounds], np.float64)
        self._scale = np.asarray([b.scale if b else 1 for b in bounds], np.float64)
        self._bound = self._sign * np.asarray([b.bound if b else 0 for b in bounds], np.float64)
        self._clear = self._sign * np.asarray([b.clear if b else 0 for b in bounds], np.float64)
        self._conditions = {
            i: rule.test for i, rule in enumerate(rules) if isinstance(rule.test, Condition)
        }

    def judge(self, found: WindowResults, row: Int64, rule: Int64) -> tuple[Int8, Float64]:
        """Return what each rule says of each result.

        :param row: int64[m], indices into *found*.
        :param rule: int64[m], indices into the rules.
        :returns: int8[m] of :class:`Verdict`; float64[m], the value that was compared.
        """
        value = self._values(found, row, rule)
        if self._ahead_s.any():
            value = value + self._to_come(found, row, rule)
        turned = value * self._sign[rule]
        verdict = np.where(
            turned >= self._bound[rule],
            Verdict.ON,
            np.where(turned >= self._clear[rule], Verdict.BETWEEN, Verdict.OFF),
        ).astype(np.int8)
        verdict[np.isnan(value)] = Verdict.NOTHING
        if self._conditions:
            wanted = np.isin(rule, np.fromiter(self._conditions, np.int64))
            for i in np.flatnonzero(wanted).tolist():
                verdict[i] = _said(self._conditions[int(rule[i])], found, int(row[i]))
                value[i] = found.mean[row[i]]
        verdict[found.count[row] == 0] = Verdict.NOTHING
        return verdict, value

    def _to_come(self, found: WindowResults, row: Int64, rule: Int64) -> Float64:
        """Return how much worse the line of each result becomes; 0 if it becomes better."""
        trend = found.extra.get("trend", np.full(len(found), np.nan))[row]
        worse = self._sign[rule] * np.maximum(self._sign[rule] * trend, 0.0)
        return np.where(self._ahead_s[rule] > 0, worse * self._ahead_s[rule], 0.0)

    def _values(self, found: WindowResults, row: Int64, rule: Int64) -> Float64:
        if not self._columns:
            return np.full(len(row), np.nan)
        nothing = np.full(len(found), np.nan)
        columns = np.stack(
            [
                np.asarray(getattr(found, name), np.float64)
                if name in PLAIN
                else found.extra.get(name, nothing)
                for name in self._columns
            ]
        )
        value: Float64 = columns[self._column[rule], row] * self._scale[rule]
        return value


def _said(condition: Condition, found: WindowResults, row: int) -> Verdict:
    given = {name: _variable(found, name, row) for name in condition.uses}
    if any(value != value for value in given.values()):  # noqa: PLR0124 NaN
        return Verdict.NOTHING
    holds = condition.holds(given)
    return Verdict.NOTHING if holds is None else Verdict.ON if holds else Verdict.OFF


def _variable(found: WindowResults, name: str, row: int) -> float | str:
    if name in ("tenant", "site", "device", "metric", "window"):
        label: str = getattr(found, name)[row]
        return label
    if name in PLAIN or name in ("start_ms", "end_ms"):
        return float(getattr(found, name)[row])
    column = found.extra.get(name)
    return float("nan") if column is None else float(column[row])
