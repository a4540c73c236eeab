"""What goes into ``alerts`` of a rule on windows, with its reason in words."""

from __future__ import annotations

import math
from typing import Any

from streams.core.alert_states import alert_id
from streams.core.rule_pairs import Change
from streams.core.window_rules import Absence, Composition, Condition, Threshold


def alert_of(change: Change) -> dict[str, Any]:
    """Return what goes into ``alerts``: as of an anomaly, and the window that changed it."""
    rule, told, cause = change.rule, change.told, change.cause
    bound = rule.test.bound if isinstance(rule.test, Threshold) else None
    window = {"window": rule.window, "start_ms": cause.start_ms, "end_ms": cause.end_ms}
    return {
        "id": alert_id(rule.name, change.names, told.id_ms),
        "rule": rule.name,
        "severity": rule.severity,
        **change.names._asdict(),
        "state": told.state,
        "began_ms": told.began_ms,
        "fired_ms": told.fired_ms,
        "resolved_ms": told.resolved_ms,
        "sample": {
            "t_ms": cause.end_ms,
            "received_ms": cause.received_ms,
            "kafka_ms": cause.kafka_ms,
            "log_ms": cause.log_ms,
            "value": None if math.isnan(cause.value) else cause.value,
            "score": None,
            "expected": bound,
            "spread": None,
        },
        **(window if isinstance(rule.test, Threshold | Condition) else {}),
        **({"turn": told.turn} if told.turn else {}),
        "why": why(change),
    }


def why(change: Change) -> str:
    """Say in a sentence why an alert is in its state."""
    if change.gone:
        return change.gone
    test, names = change.rule.test, change.names
    what = f"{names.metric} of {names.device}"
    if isinstance(test, Absence):
        return _why_absent(test, what, change.told.state)
    if isinstance(test, Threshold):
        return _why_beyond(test, what, change)
    if isinstance(test, Composition):
        holds = (" and " if test.every else " or ").join(test.members)
        return f"{holds} {_HOLDS[change.told.state]} on {names.device}"
    return f"{test.text} {_HOLDS[change.told.state]} for {what} in {change.rule.window}"


_HOLDS = {"firing": "holds", "resolved": "holds no more", "retracted": "never held"}


def _why_absent(test: Absence, what: str, state: str) -> str:
    if state == "resolved":
        return f"{what} is heard of again"
    return f"{what} has had no reading for {test.silent_ms / 1000:g} s"


def _value(change: Change, test: Threshold, what: str) -> str:
    compared = change.rule.comparison
    if compared is None:
        return f"{test.column} of {what}"
    less = "less" if compared.by == "difference" else "divided by"
    other = (
        f"that of {compared.metric}"
        if compared.metric is not None
        else f"the median of its {compared.among}"
    )
    return f"{compared.column} of {what}, {less} {other},"


def _span(ms: int) -> str:
    units = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"))
    size_ms, unit = next(((size, unit) for size, unit in units if ms >= size), (1_000, "s"))
    return f"{ms / size_ms:g} {unit}"


def _why_beyond(test: Threshold, what: str, change: Change) -> str:
    side = "over" if test.above else "under"
    was, bound, clear = (f"{x:.4g}" for x in (change.cause.value, test.bound, test.clear))
    if test.ahead_ms:
        ahead = f"in {_span(test.ahead_ms)}, as it goes in {change.rule.window}"
        if change.told.state == "firing":
            return f"{what} will be {was} {ahead}: {side} {bound}"
        return f"{what} will not be {side} {clear} {ahead}"
    value = f"{_value(change, test, what)} in {change.rule.window}"
    if change.told.state == "retracted":
        return f"a correction shows that {value} was {was}, not {side} {bound}"
    if math.isnan(change.cause.value):
        return f"{value} is not {side} {clear} any more, and came no more"
    if change.told.state == "resolved":
        return f"{value} is {was} again, not {side} {clear}"
    return f"{value} was {was}, {side} {bound}"
