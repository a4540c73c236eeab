"""From the settings of a rule to its definition in the core."""

from __future__ import annotations

from collections.abc import Sequence

from streams.agents.device_types import traits_by
from streams.agents.window_definitions import definition_of
from streams.core.comparisons import split
from streams.core.rule_engine import RuleEngine
from streams.core.rules import AnomalyRule
from streams.core.selectors import Selector
from streams.core.window_rules import (
    Absence,
    Comparison,
    Composition,
    Condition,
    Test,
    Threshold,
    WindowRule,
)
from streams.settings import Rule, Settings
from streams.settings.generations import base_name


def anomaly_rules(settings: Settings, *, at_edge: bool = False) -> list[AnomalyRule]:
    """Return the rules on ``anomalies``, in the order of the settings.

    :param at_edge: those that edges judge, in place of those that the cloud does.
    """
    return [
        AnomalyRule(
            rule.name,
            rule.severity,
            rule.score_over,
            rule.hold_ms,
            rule.resolve_ms,
            _selector(rule),
            None if rule.expression is None else _condition(rule.expression),
        )
        for rule in settings.rules
        if rule.on_scores and (rule.at_edge if at_edge else rule.in_cloud)
    ]


def window_rules(settings: Settings, *, at_edge: bool = False) -> list[WindowRule]:
    """Return the rules on ``aggregates``, in the order of the settings.

    :param at_edge: as of :func:`anomaly_rules`.
    """
    return [
        WindowRule(
            name=rule.name,
            severity=rule.severity,
            window=rule.window or "",
            test=_test(rule),
            selector=_selector(rule),
            hold_ms=rule.hold_ms,
            resolve_ms=0 if rule.of is not None else rule.resolve_ms,
            tells=rule.alerts,
            comparison=_comparison(rule),
        )
        for rule in settings.rules
        if not rule.on_scores and (rule.at_edge if at_edge else rule.in_cloud)
    ]


def kept_ms(settings: Settings) -> dict[str, int]:
    """Return of each window, by its name in rules, how long after its end it may be corrected."""
    late_ms = settings.devices.disorder_ms + settings.devices.idle_final_ms
    return {base_name(w.name): definition_of(w).reach_ms + late_ms for w in settings.windows}


def rule_engine(settings: Settings, rules: Sequence[WindowRule]) -> RuleEngine:
    """Return an engine for rules on windows; those that compare devices are judged elsewhere."""
    among = split(rules)[1]
    return RuleEngine(
        [rule for rule in rules if rule not in among],
        kept_ms(settings),
        shards=settings.topics.shards,
        max_series=settings.alerts.max_series,
        max_open=settings.alerts.max_open,
        max_compared=settings.alerts.max_compared,
        traits_of=traits_by(settings.types, settings.tags),
    )


def _selector(rule: Rule) -> Selector:
    labels = (rule.tenants, rule.sites, rule.devices, rule.metrics, rule.types, rule.tags)
    return Selector(*(tuple(globs) for globs in labels))


def _test(rule: Rule) -> Test:
    if rule.of is not None:
        return Composition(tuple(rule.of), rule.kind == "all", rule.within_ms or 0)
    if rule.silent_ms is not None:
        return Absence(rule.silent_ms)
    if rule.expression is not None:
        return _condition(rule.expression)
    bound = rule.over if rule.over is not None else rule.under
    assert bound is not None
    columns = {"rate": "rate", "forecast": "trend_last", "compare": "mean"}
    return Threshold(
        column=columns.get(rule.kind, rule.aggregate),
        bound=bound,
        clear=bound if rule.clear is None else rule.clear,
        above=rule.over is not None,
        scale=rule.per_ms / 1000 if rule.kind == "rate" else 1.0,
        ahead_ms=(rule.within_ms or 0) if rule.kind == "forecast" else 0,
    )


def _comparison(rule: Rule) -> Comparison | None:
    if rule.kind != "compare":
        return None
    return Comparison(rule.aggregate, rule.by, rule.with_metric, rule.among, rule.least)


def _condition(expression: str) -> Condition:
    # Its library takes half a second to import: only for those who use it.
    from streams.adapters.expressions import condition

    return condition(expression)
