"""Rules on anomaly scores, applied to many series: from scores to alerts that change.

Nothing reads a clock: silence is measured in the log time that the caller hands in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from streams.core.alert_states import (
    FIRING,
    RESOLVED,
    Alert,
    Sample,
    Standing,
    deadline_ms,
    observe,
    pass_time,
)
from streams.core.registry import NEVER
from streams.core.results import Scores
from streams.core.rules import AnomalyRule, RuleBook, Series
from streams.core.selectors import TraitsOf, without_traits


class ScoreJudge:
    """What is pending and firing of some rules, and which alerts a batch of scores changes."""

    def __init__(self, rules: Sequence[AnomalyRule], traits_of: TraitsOf = without_traits) -> None:
        self._standing: dict[tuple[str, Series], Standing] = {}
        self.next_deadline_ms = NEVER
        """Log time at which :meth:`pass_time` does something next; NEVER if nothing waits."""
        self._has_gone = False
        self.adopt(rules, traits_of)

    def adopt(self, rules: Sequence[AnomalyRule], traits_of: TraitsOf) -> None:
        """Judge by other rules from now on; :meth:`resolve_gone` ends what they do not look at."""
        self._rules = {rule.name: rule for rule in rules}
        self._book = RuleBook(rules, traits_of)
        self._has_gone = bool(self._standing)

    def observe(self, scores: Scores, now_ms: int) -> list[Alert]:
        """Take scored readings; return the alerts whose state changed.

        :param now_ms: log time.
        """
        changed: list[Alert] = []
        for i in range(len(scores)):
            series = Series(scores.tenant[i], scores.site[i], scores.device[i], scores.metric[i])
            for rule in self._book.rules_for(series):
                before = self._standing.get((rule.name, series))
                after, news = observe(rule, series, before, _sample(scores, i, now_ms))
                self._remember(rule.name, series, after)
                changed += news
        return changed

    def pass_time(self, now_ms: int) -> list[Alert]:
        """Let log time pass: what fell silent below its bound resolves."""
        changed: list[Alert] = []
        if now_ms < self.next_deadline_ms:
            return changed
        self.next_deadline_ms = NEVER
        for (name, series), standing in list(self._standing.items()):
            # Of a rule that is gone nothing resolves by time: resolve_gone ends it.
            if name not in self._rules:
                continue
            after, news = pass_time(self._rules[name], standing, now_ms)
            self._remember(name, series, after)
            changed += news
        return changed

    def resolve_gone(self, now_ms: int) -> list[tuple[Alert, str]]:
        """End alerts that no rule looks at any more; return those that fired, each with why."""
        if not self._has_gone:
            return []
        self._has_gone = False
        ended: list[tuple[Alert, str]] = []
        for (name, series), standing in list(self._standing.items()):
            if any(rule.name == name for rule in self._book.rules_for(series)):
                continue
            del self._standing[name, series]
            if standing.alert.state == FIRING:
                over = replace(standing.alert, state=RESOLVED, resolved_ms=now_ms)
                is_there = name in self._rules
                gone = "does not look at it" if is_there else "is not in the settings"
                ended.append((over, f"the rule {name} {gone} any more"))
        return ended

    def firing(self) -> list[Alert]:
        """Return the alerts that fire."""
        return [one.alert for one in self._standing.values() if one.alert.state == FIRING]

    def count(self) -> dict[str, tuple[int, int]]:
        """Return of each rule how many alerts are pending, and how many fire."""
        counts = {name: [0, 0] for name in self._rules}
        for (rule, _), standing in self._standing.items():
            counts[rule][standing.alert.state == FIRING] += 1
        return {rule: (pending, fires) for rule, (pending, fires) in counts.items()}

    def state(self) -> list[list[Any]]:
        """Return what :meth:`restore` takes."""
        return [
            [rule, _fields(series), _stored(standing)]
            for (rule, series), standing in self._standing.items()
        ]

    def restore(self, rows: Iterable[tuple[str, Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Take back what was stored; what no rule looks at any more is to be ended."""
        for rule, series, standing in rows:
            self._standing[rule, Series(**series)] = _standing_from(standing)
        self._has_gone = True
        self.next_deadline_ms = 0 if self._standing else NEVER

    def _remember(self, rule: str, series: Series, standing: Standing | None) -> None:
        if standing is None:
            self._standing.pop((rule, series), None)
        else:
            self._standing[rule, series] = standing
            deadline = deadline_ms(self._rules[rule], standing)
            self.next_deadline_ms = min(self.next_deadline_ms, deadline)


def _sample(scores: Scores, row: int, now_ms: int) -> Sample:
    return Sample(
        t_ms=int(scores.t_ms[row]),
        received_ms=int(scores.received_ms[row]),
        kafka_ms=int(scores.kafka_ms[row]),
        log_ms=now_ms,
        value=float(scores.value[row]),
        score=float(scores.score[row]),
        expected=float(scores.expected[row]),
        spread=float(scores.spread[row]),
        why=scores.why[row],
    )


def _stored(standing: Standing) -> dict[str, Any]:
    # asdict copies deeply: of thousands of alerts it held up the stream at every checkpoint.
    alert = _fields(standing.alert)
    return {**_fields(standing), "alert": {**alert, "sample": _fields(standing.alert.sample)}}


def _fields(one: Series | Standing | Alert | Sample) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__slots__}


def _standing_from(fields: Mapping[str, Any]) -> Standing:
    alert = dict(fields["alert"])
    alert["sample"] = Sample(**alert["sample"])
    return Standing(Alert(**alert), fields["below_ms"], fields["below_log_ms"])
