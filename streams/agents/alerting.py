"""The agent on ``anomalies``: from scores to alerts, and from alerts to the outbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streams.adapters import results, shard_codec
from streams.adapters.rejected import rejected_from_log
from streams.agents.device_types import traits_by
from streams.agents.editions import Edition, Editions
from streams.agents.rule_definitions import anomaly_rules
from streams.agents.stamps import Stamp
from streams.agents.telling import StandingCounts, Teller
from streams.core.alert_states import Alert
from streams.core.registry import NEVER
from streams.core.rules import AnomalyRule
from streams.core.score_judge import ScoreJudge
from streams.core.selectors import TraitsOf
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
        self._edition = editions.newest()
        self._judge = ScoreJudge(*_rules_of(self._edition))
        self._teller = Teller(settings, partition, editions)
        self._shown = StandingCounts(ANOMALIES, partition)
        self._clock_ms = 0
        self._stamp = Stamp()

    def _adopt(self, edition: Edition) -> None:
        self._edition = edition
        self._judge.adopt(*_rules_of(edition))

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Take the next records of ``anomalies``; see :class:`PartitionLogic`."""
        out: list[Produce] = []
        for record in records:
            if not self._stamp.takes(record.offset):
                continue
            self._stamp.touch(record.offset)
            self._clock_ms = max(self._clock_ms, record.timestamp)
            out += self._resolve_gone()
            out += self._tell(self._judge.pass_time(self._clock_ms))
            if is_time_marker(record):
                out += self._change(record)
                continue
            try:
                scores = results.decode_scores(record.value or b"")
            except DecodeError as error:
                out.append(self._reject(record, error))
            else:
                out += self._tell(self._judge.observe(scores, self._clock_ms))
        return out

    def dirty(self) -> Mapping[str, int]:
        """Return the one key, if it changed."""
        return {STATE_KEY: self._stamp.dirty_since} if self._stamp.is_dirty else {}

    def snapshot(self, key: str) -> bytes:
        """Return what is pending and firing."""
        self._stamp.stored()
        self._shown.show(self._judge.count())
        return shard_codec.encode(
            {
                "clock_ms": self._clock_ms,
                "config": self._edition.id,
                "kept": self._teller.kept(_ALL),
                "standing": self._judge.state(),
            }
        )

    def restore(self, key: str, stamp: int, state: bytes) -> None:
        """Load a snapshot; alerts of rules that are gone resolve with the next record."""
        loaded = shard_codec.decode(state)
        self._clock_ms, self._stamp.at = loaded["clock_ms"], stamp
        if "config" in loaded:
            self._adopt(self._editions.of(loaded["config"]))
        self._teller.restore(_ALL, loaded.get("kept", {}))
        self._judge.restore(loaded["standing"])

    def forget_shown(self) -> None:
        """See :class:`~streams.ports.Showing`."""
        self._shown.forget()

    def wants_time(self) -> bool:
        """Whether a firing alert waits for a silent series."""
        return self._judge.next_deadline_ms != NEVER

    def _change(self, record: LogRecord) -> list[Produce]:
        """Take the rules that a marker names."""
        after = self._editions.at(record)
        if after is None or after.revision <= self._edition.revision:
            return []
        for alert in self._judge.firing():
            self._teller.keep(alert.id, _ALL, self._edition)
        self._adopt(after)
        return self._resolve_gone()

    def _resolve_gone(self) -> list[Produce]:
        return [
            produce
            for alert, why in self._judge.resolve_gone(self._clock_ms)
            for produce in self._teller.tell({**alert.as_json(), "why": why}, self._edition)
        ]

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


def _rules_of(edition: Edition) -> tuple[list[AnomalyRule], TraitsOf]:
    settings = edition.settings
    return anomaly_rules(settings), traits_by(settings.types, settings.tags)
