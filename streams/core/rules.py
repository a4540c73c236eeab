"""Rules on anomaly scores, and which of them apply to which series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streams.core.selectors import (
    EVERYTHING,
    Names,
    Selection,
    Selector,
    TraitsOf,
    without_traits,
)
from streams.core.window_rules import Condition


@dataclass(frozen=True, slots=True)
class AnomalyRule:
    """Fires while a series' anomaly score is at or over a bound, or a condition holds.

    ``hold_ms`` and ``resolve_ms`` are event time: how long the score must stay over before the
    alert fires, and below before it resolves.
    """

    name: str
    severity: str
    score_over: float
    hold_ms: int
    resolve_ms: int
    selector: Selector = EVERYTHING
    condition: Condition | None = None
    """In place of the bound."""


@dataclass(frozen=True, slots=True)
class Series:
    """What a rule selects on."""

    tenant: str
    site: str
    device: str
    metric: str


class RuleBook:
    """Rules by series, looked up once per series and kept up to a bound.

    :param limit: series whose rules are remembered; beyond it the memory starts anew.
    """

    def __init__(
        self,
        rules: Sequence[AnomalyRule],
        traits_of: TraitsOf = without_traits,
        *,
        limit: int = 100_000,
    ) -> None:
        self._rules = tuple(rules)
        self._selection = Selection([rule.selector for rule in rules], traits_of)
        self._limit = limit
        self._known: dict[Series, tuple[AnomalyRule, ...]] = {}

    def rules_for(self, series: Series) -> tuple[AnomalyRule, ...]:
        """Return the rules that apply to a series, in the order of the settings."""
        found = self._known.get(series)
        if found is None:
            if len(self._known) >= self._limit:
                self._known.clear()
            names = Names(series.tenant, series.site, series.device, series.metric)
            found = tuple(self._rules[i] for i in self._selection.of(names).tolist())
            self._known[series] = found
        return found
