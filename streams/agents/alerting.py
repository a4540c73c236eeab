"""The agent on ``anomalies``: from scores to alerts, and from alerts to the outbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from streams.adapters import results, shard_codec
from streams.adapters.rejected import rejected_from_log
from streams.agents.device_types import traits_by
from streams.agents.editions import Edition, Editions
from streams.agents.rule_definitions import anomaly_rules
from streams.agents.stamps import Stamp
from streams.agents.telling import StandingCounts, Teller
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
from streams.core.rules import RuleBook, Series
from streams.errors import DecodeError
from streams.ports import LogicFactory, LogRecord, PartitionLogic, Produce, is_time_marker
from streams.settings import Settings
from streams.settings.applied import Document
from streams.topics import ANOMALIES

STATE_KEY = "rules"
_ALL = 0
"""The only shard."""


def make_alerting(
    settings: Settings, documents: Mapping[str, Document] | None = None
) -> LogicFactory:
    """Return the factory of the alert logic for these settings.

    :param documents: what the topic ``config`` holds; more may come while the logic runs.
    """

    def factory(partition: int, partitions: int) -> PartitionLogic:
        return AlertLogic(settings, partition, Editions(settings, documents))

    return factory


class AlertLogic:
    """Frames of ``anomalies`` in; life cycles to ``alerts``, messages to ``deliveries`` out."""

    def __init__(self, settings: Settings, partition: int, editions: Editions) -> None:
        self._partition = partition
        self._max_bytes = settings.gateway.max_rejected_bytes
        self._editions = editions
        self._adopt(editions.newest())
        self._teller = Teller(settings, partition, editions)
        self._shown = StandingCounts(ANOMALIES, partition)
        self._standing: dict[tuple[str, Series], Standing] = {}
        self._clock_ms = 0
        self._next_deadline_ms = NEVER
        self._stamp = Stamp()
        self._has_gone = False
        """Whether alerts may stand that no rule looks at any more."""

    def _adopt(self, edition: Edition) -> None:
        settings = edition.settings
        self._edition = edition
        rules = anomaly_rules(settings)
        self._rules = {rule.name: rule for rule in rules}
        self._book = RuleBook(rules, traits_by(settings.types, settings.tags))

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Take the next records of ``anomalies``; see :class:`PartitionLogic`."""
        out: list[Produce] = []
        for record in records:
            if not self._stamp.takes(record.offset):
                continue
            self._stamp.touch(record.offset)
            self._clock_ms = max(self._clock_ms, record.timestamp)
            out += self._resolve_gone()
            out += self._tell(self._pass_time())
            if is_time_marker(record):
                out += self._change(record)
                continue
            try:
                scores = results.decode_scores(record.value or b"")
            except DecodeError as error:
                out.append(self._reject(record, error))
            else:
                out += self._tell(self._observe(scores))
        return out

    def dirty(self) -> Mapping[str, int]:
        """Return the one key, if it changed."""
        return {STATE_KEY: self._stamp.dirty_since} if self._stamp.is_dirty else {}

    def snapshot(self, key: str) -> bytes:
        """Return what is pending and firing."""
        self._stamp.stored()
        self._show()
        rows = [
            [rule, asdict(series), asdict(standing)]
            for (rule, series), standing in self._standing.items()
        ]
        return shard_codec.encode(
            {
                "clock_ms": self._clock_ms,
                "config": self._edition.id,
                "kept": self._teller.kept(_ALL),
                "standing": rows,
            }
        )

    def restore(self, key: str, stamp: int, state: bytes) -> None:
        """Load a snapshot; alerts of rules that are gone resolve with the next record."""
        loaded = shard_codec.decode(state)
        self._clock_ms, self._stamp.at = loaded["clock_ms"], stamp
        if "config" in loaded:
            self._adopt(self._editions.of(loaded["config"]))
        self._teller.restore(_ALL, loaded.get("kept", {}))
        for rule, series, standing in loaded["standing"]:
            self._standing[rule, Series(**series)] = _standing_from(standing)
        self._has_gone = True
        self._next_deadline_ms = 0 if self._standing else NEVER

    def forget_shown(self) -> None:
        """See :class:`~streams.ports.Showing`."""
        self._shown.forget()

    def wants_time(self) -> bool:
        """Whether a firing alert waits for a silent series."""
        return self._next_deadline_ms != NEVER

    def _change(self, record: LogRecord) -> list[Produce]:
        """Take the rules that a marker names."""
        after = self._editions.at(record)
        if after is None or after.revision <= self._edition.revision:
            return []
        for standing in self._standing.values():
            if standing.alert.state == FIRING:
                self._teller.keep(standing.alert.id, _ALL, self._edition)
        self._adopt(after)
        self._has_gone = True
        return self._resolve_gone()

    def _resolve_gone(self) -> list[Produce]:
        if not self._has_gone:
            return []
        self._has_gone = False
        out: list[Produce] = []
        for (name, series), standing in list(self._standing.items()):
            if any(rule.name == name for rule in self._book.rules_for(series)):
                continue
            del self._standing[name, series]
            if standing.alert.state == FIRING:
                over = replace(standing.alert, state=RESOLVED, resolved_ms=self._clock_ms)
                is_there = name in self._rules
                gone = "does not look at it" if is_there else "is not in the settings"
                why = {"why": f"the rule {name} {gone} any more"}
                out += self._teller.tell({**over.as_json(), **why}, self._edition)
        return out

    def _show(self) -> None:
        counts = {name: [0, 0] for name in self._rules}
        for (rule, _), standing in self._standing.items():
            counts[rule][standing.alert.state == FIRING] += 1
        self._shown.show({rule: (pending, fires) for rule, (pending, fires) in counts.items()})

    def _pass_time(self) -> list[Alert]:
        changed: list[Alert] = []
        if self._clock_ms < self._next_deadline_ms:
            return changed
        self._next_deadline_ms = NEVER
        for (rule_name, series), standing in list(self._standing.items()):
            after, news = pass_time(self._rules[rule_name], standing, self._clock_ms)
            self._remember(rule_name, series, after)
            changed += news
        return changed

    def _observe(self, scores: Scores) -> list[Alert]:
        changed: list[Alert] = []
        for i in range(len(scores)):
            series = Series(scores.tenant[i], scores.site[i], scores.device[i], scores.metric[i])
            sample = Sample(
                t_ms=int(scores.t_ms[i]),
                received_ms=int(scores.received_ms[i]),
                kafka_ms=int(scores.kafka_ms[i]),
                log_ms=self._clock_ms,
                value=float(scores.value[i]),
                score=float(scores.score[i]),
                expected=float(scores.expected[i]),
                spread=float(scores.spread[i]),
                why=scores.why[i],
            )
            for rule in self._book.rules_for(series):
                before = self._standing.get((rule.name, series))
                after, news = observe(rule, series, before, sample)
                self._remember(rule.name, series, after)
                changed += news
        return changed

    def _remember(self, rule: str, series: Series, standing: Standing | None) -> None:
        if standing is None:
            self._standing.pop((rule, series), None)
        else:
            self._standing[rule, series] = standing
            deadline = deadline_ms(self._rules[rule], standing)
            self._next_deadline_ms = min(self._next_deadline_ms, deadline)

    def _tell(self, changed: list[Alert]) -> list[Produce]:
        return [
            produce
            for alert in changed
            for produce in self._teller.tell(alert.as_json(), self._edition)
        ]

    def _reject(self, record: LogRecord, error: DecodeError) -> Produce:
        return rejected_from_log(
            record,
            error,
            topic=ANOMALIES,
            partition=self._partition,
            max_bytes=self._max_bytes,
        )


def _standing_from(fields: dict[str, Any]) -> Standing:
    alert = dict(fields["alert"])
    alert["sample"] = Sample(**alert["sample"])
    return Standing(Alert(**alert), fields["below_ms"], fields["below_log_ms"])
