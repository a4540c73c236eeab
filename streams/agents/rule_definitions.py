"""From the settings of a rule to its definition in the core."""

from __future__ import annotations

from streams.agents.window_definitions import definition_of
from streams.core.rules import AnomalyRule
from streams.core.selectors import Selector
from streams.core.window_rules import (
    Absence,
    Composition,
    Condition,
    Test,
    Threshold,
    WindowRule,
)
from streams.settings import Rule, Settings
from streams.settings.generations import base_name


def anomaly_rules(settings: Settings) -> list[AnomalyRule]:
    """Return the rules on ``anomalies``, in the order of the settings."""
    return [
        AnomalyRule(
            rule.name,
            rule.severity,
            rule.score_over,
            rule.hold_ms,
            rule.resolve_ms,
            tuple(rule.tenants),
            tuple(rule.sites),
            tuple(rule.devices),
            tuple(rule.metrics),
            None if rule.expression is None else _condition(rule.expression),
        )
        for rule in settings.rules
        if rule.on_scores
    ]


def window_rules(settings: Settings) -> list[WindowRule]:
    """Return the rules on ``aggregates``, in the order of the settings."""
    return [
        WindowRule(
            name=rule.name,
            severity=rule.severity,
            window=rule.window or "",
            test=_test(rule),
            selector=Selector(
                tuple(rule.tenants), tuple(rule.sites), tuple(rule.devices), tuple(rule.metrics)
            ),
            hold_ms=rule.hold_ms,
            resolve_ms=0 if rule.of is not None else rule.resolve_ms,
            tells=rule.alerts,
        )
        for rule in settings.rules
        if not rule.on_scores
    ]


def kept_ms(settings: Settings) -> dict[str, int]:
    """Return of each window, by its name in rules, how long after its end it may be corrected."""
    late_ms = settings.devices.disorder_ms + settings.devices.idle_final_ms
    return {base_name(w.name): definition_of(w).reach_ms + late_ms for w in settings.windows}


def _test(rule: Rule) -> Test:
    if rule.of is not None:
        return Composition(tuple(rule.of), rule.kind == "all", rule.within_ms)
    if rule.silent_ms is not None:
        return Absence(rule.silent_ms)
    if rule.expression is not None:
        return _condition(rule.expression)
    bound = rule.over if rule.over is not None else rule.under
    assert bound is not None
    is_rate = rule.kind == "rate"
    return Threshold(
        column="rate" if is_rate else rule.aggregate,
        bound=bound,
        clear=bound if rule.clear is None else rule.clear,
        above=rule.over is not None,
        scale=rule.per_ms / 1000 if is_rate else 1.0,
    )


def _condition(expression: str) -> Condition:
    # Its library takes half a second to import: only for those who use it.
    from streams.adapters.expressions import condition

    return condition(expression)
