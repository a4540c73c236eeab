"""Which rules apply to which series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

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
    tenants: tuple[str, ...] = ("*",)
    sites: tuple[str, ...] = ("*",)
    devices: tuple[str, ...] = ("*",)
    metrics: tuple[str, ...] = ("*",)
    condition: Condition | None = None
    """In place of the bound."""

    def applies_to(self, series: Series) -> bool:
        """Whether every selector matches (shell globs, any of a list)."""
        return (
            _any(self.tenants, series.tenant)
            and _any(self.sites, series.site)
            and _any(self.devices, series.device)
            and _any(self.metrics, series.metric)
        )


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

    def __init__(self, rules: Sequence[AnomalyRule], *, limit: int = 100_000) -> None:
        self._rules = tuple(rules)
        self._limit = limit
        self._known: dict[Series, tuple[AnomalyRule, ...]] = {}

    def rules_for(self, series: Series) -> tuple[AnomalyRule, ...]:
        """Return the rules that apply to a series, in the order of the settings."""
        found = self._known.get(series)
        if found is None:
            if len(self._known) >= self._limit:
                self._known.clear()
            found = tuple(rule for rule in self._rules if rule.applies_to(series))
            self._known[series] = found
        return found


def _any(globs: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
