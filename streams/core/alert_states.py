"""The life of an alert: inactive, pending, firing, resolved.

::

    score  ____/‾‾‾‾‾‾‾‾‾‾‾‾‾‾\\______________
               |<- hold ->|   |<- resolve ->|
    state  .....PPPPPPPPPPFFFFFFFFFFFFFFFFFFR

Its clock is event time: hold and resolve are measured between readings. Only where a series
falls silent after it went below, log time stands in, so that an alert does not stay for ever.
Nothing reads a wall clock, so a replay of the log gives the same alerts with the same ids.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any

from streams.core.registry import NEVER
from streams.core.rules import AnomalyRule, Series
from streams.core.selectors import Names

PENDING, FIRING, RESOLVED = "pending", "firing", "resolved"
TOLD_BY_EDGE = "told_by_edge"
"""Of an alert as JSON: the endpoints that its edge delivers to itself; nobody is told twice."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One scored reading. Times in ms; ``log_ms`` is the log time of the score's record."""

    t_ms: int
    received_ms: int
    kafka_ms: int
    log_ms: int
    value: float
    score: float
    expected: float
    spread: float
    why: str = ""
    """What was strange about it, in the detector's words."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert of one rule on one series, as of its last change."""

    id: str
    rule: str
    severity: str
    tenant: str
    site: str
    device: str
    metric: str
    state: str
    began_ms: int
    """Event time of the first reading over the bound."""
    fired_ms: int | None
    resolved_ms: int | None
    sample: Sample
    """The reading that caused the state."""

    def as_json(self) -> dict[str, Any]:
        """Return plain values, with the reason in words."""
        found = asdict(self)
        del found["sample"]["why"]  # It is part of the alert's own.
        return {**found, "why": why(self)}


@dataclass(frozen=True, slots=True)
class Standing:
    """What is remembered of a rule on a series while it is pending or firing."""

    alert: Alert
    below_ms: int | None = None
    """Event time since which the score has been below."""
    below_log_ms: int = NEVER


def alert_id(rule: str, series: Series | Names, began_ms: int) -> str:
    """Return the id of an alert: the same in every replay."""
    parts = "\x00".join([rule, series.tenant, series.device, series.metric, str(began_ms)])
    return "alt_" + hashlib.sha256(parts.encode()).hexdigest()[:24]


def message_id(alert: str, state: str, endpoint: str, turn: int = 0) -> str:
    """Return the id of telling one state of an alert to one endpoint.

    :param turn: how often a correction has made it fire again.
    """
    parts = "\x00".join([alert, state, endpoint, *([str(turn)] if turn else [])])
    return "msg_" + hashlib.sha256(parts.encode()).hexdigest()[:32]


def observe(
    rule: AnomalyRule, series: Series, standing: Standing | None, sample: Sample
) -> tuple[Standing | None, list[Alert]]:
    """Take the next scored reading of a series.

    :returns: what to remember, and the alerts whose state changed (firing or resolved).
    """
    over = _is_over(rule, series, sample)
    if standing is None:
        return _begin(rule, series, sample) if over else (None, [])
    if standing.alert.state == PENDING:
        if not over:
            return None, []
        return _maybe_fire(rule, standing.alert, sample)
    return _while_firing(rule, series, standing, sample, over=over)


def _is_over(rule: AnomalyRule, series: Series, sample: Sample) -> bool:
    if rule.condition is None:
        return sample.score >= rule.score_over
    known = {**asdict(series), **asdict(sample)}
    given = {name: known[name] for name in rule.condition.uses}
    return rule.condition.holds(given) is True


def pass_time(
    rule: AnomalyRule, standing: Standing, log_ms: int
) -> tuple[Standing | None, list[Alert]]:
    """Let log time pass: a firing alert whose series fell silent below the bound resolves."""
    if log_ms < deadline_ms(rule, standing) or standing.below_ms is None:
        return standing, []
    return None, [_resolved(standing.alert, standing.below_ms + rule.resolve_ms)]


def deadline_ms(rule: AnomalyRule, standing: Standing) -> int:
    """Return the log time at which :func:`pass_time` would resolve; NEVER if it would not."""
    return NEVER if standing.below_ms is None else standing.below_log_ms + rule.resolve_ms


def _begin(
    rule: AnomalyRule, series: Series, sample: Sample
) -> tuple[Standing | None, list[Alert]]:
    alert = Alert(
        id=alert_id(rule.name, series, sample.t_ms),
        rule=rule.name,
        severity=rule.severity,
        tenant=series.tenant,
        site=series.site,
        device=series.device,
        metric=series.metric,
        state=PENDING,
        began_ms=sample.t_ms,
        fired_ms=None,
        resolved_ms=None,
        sample=sample,
    )
    return _maybe_fire(rule, alert, sample)


def _maybe_fire(
    rule: AnomalyRule, alert: Alert, sample: Sample
) -> tuple[Standing | None, list[Alert]]:
    if sample.t_ms - alert.began_ms < rule.hold_ms:
        return Standing(alert), []
    fired = replace(alert, state=FIRING, fired_ms=sample.t_ms, sample=sample)
    return Standing(fired), [fired]


def _while_firing(
    rule: AnomalyRule, series: Series, standing: Standing, sample: Sample, *, over: bool
) -> tuple[Standing | None, list[Alert]]:
    below_ms = standing.below_ms
    if below_ms is None and not over:
        below_ms = sample.t_ms
        standing = Standing(standing.alert, below_ms, sample.log_ms)
    if below_ms is not None and sample.t_ms - below_ms >= rule.resolve_ms:
        ended = _resolved(standing.alert, below_ms + rule.resolve_ms)
        after, news = _begin(rule, series, sample) if over else (None, [])
        return after, [ended, *news]
    if over and below_ms is not None:
        return Standing(standing.alert), []
    return standing, []


def _resolved(alert: Alert, at_ms: int) -> Alert:
    return replace(alert, state=RESOLVED, resolved_ms=at_ms)


def why(alert: Alert) -> str:
    """Say in a sentence why an alert is in its state."""
    s = alert.sample
    usual = f"{s.expected:.4g} ± {s.spread:.2g}"
    if alert.state == RESOLVED:
        return f"{alert.metric} of {alert.device} is as usual again ({usual})"
    what = f"{alert.metric} of {alert.device} was {s.value:.4g}"
    if s.why:
        return f"{what}: {s.why}"
    return f"{what} where {usual} is usual: {s.score:.1f} robust standard deviations away"
