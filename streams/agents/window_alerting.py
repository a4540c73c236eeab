"""The agent on ``aggregates``: from window results to alerts, and from alerts to the outbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from prometheus_client import Counter

from streams.adapters import results, shard_codec
from streams.adapters.rejected import rejected_from_log
from streams.agents.editions import Edition, Editions
from streams.agents.forwarding import Forwarder
from streams.agents.judges import Judges, Told
from streams.agents.rule_definitions import rule_engine, window_rules
from streams.agents.stamps import number_of
from streams.agents.telling import StandingCounts, Teller
from streams.agents.window_alerts import alert_of
from streams.core.alert_states import alert_id
from streams.core.log_clock import LogClock
from streams.core.readings import Labels
from streams.core.results import WindowResults, standing
from streams.core.rule_engine import RuleEngine
from streams.errors import DecodeError
from streams.ports import LogicFactory, LogRecord, PartitionLogic, Produce, is_time_marker
from streams.settings import Settings
from streams.settings.applied import Document
from streams.settings.generations import base_name, generation_of
from streams.topics import AGGREGATES

REFUSED = Counter(
    "headwater_rules_refused",
    "Results not judged and alerts not begun: alerts.max_series or alerts.max_open is met.",
)
_GENERATION = 1 << 20
"""More than the revisions of one window."""
_SHOW_MS = 1_000
"""Log time between two counts of what stands."""


def make_window_alerting(
    settings: Settings, documents: Mapping[str, Document] | None = None
) -> LogicFactory:
    """Return the factory of the rules on windows.

    :param documents: what the topic ``config`` holds; more may come while the logic runs.
    """

    def factory(partition: int, partitions: int) -> PartitionLogic:
        return WindowAlertLogic(settings, partition, Editions(settings, documents))

    return factory


class WindowAlertLogic:
    """Frames of ``aggregates`` in; life cycles to ``alerts``, messages to ``deliveries`` out."""

    def __init__(self, settings: Settings, partition: int, editions: Editions) -> None:
        self._partition = partition
        self._max_bytes = settings.gateway.max_rejected_bytes
        self._clock = LogClock()
        self._editions = editions
        self._teller = Teller(settings, partition, editions)
        self._standing = StandingCounts(AGGREGATES, partition)
        self._shown_ms = -_SHOW_MS
        self._shards = settings.topics.shards
        self.judges = Judges(editions, _engine_of, self._shards)
        self._forward: dict[str, Forwarder] = {}

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Take the next records of ``aggregates``; see :class:`PartitionLogic`."""
        out: list[Produce] = []
        offsets = np.asarray([record.offset for record in records], np.int64)
        times = np.asarray([record.timestamp for record in records], np.int64)
        for record, now_ms in zip(records, self._clock.read(offsets, times).tolist(), strict=True):
            out += self._tell(self.judges.pass_time(now_ms, record.offset))
            if is_time_marker(record):
                out += self._change(record, now_ms)
                continue
            if not any(self._looks(identity) for identity in self.judges.engines):
                continue
            try:
                found = results.decode_windows(record.value or b"")
            except DecodeError as error:
                out.append(self._reject(record, error))
            else:
                named = as_named(found)
                out += self._tell(self.judges.take(named, now_ms, record.offset))
                for identity in self.judges.engines:
                    out += self._forwarder(identity).records(named)
        REFUSED.inc(self.judges.refused())
        return out

    def dirty(self) -> Mapping[str, int]:
        """Return the changed shards."""
        return self.judges.dirty()

    def snapshot(self, key: str) -> bytes:
        """Return a shard's state and mark it clean."""
        edition, state = self.judges.snapshot(int(key))
        if self._clock.now_ms - self._shown_ms >= _SHOW_MS:
            self._shown_ms = self._clock.now_ms
            self._standing.show(self.judges.count())
        kept = self._teller.kept(int(key))
        return shard_codec.encode(
            {"clock_ms": self._clock.now_ms, "config": edition, "kept": kept, **state}
        )

    def restore(self, key: str, stamp: int, state: bytes) -> None:
        """Load a shard; alerts of rules that are gone resolve with the next record.

        :raises StateError: if it was written by another version, or with another number of shards.
        """
        loaded = shard_codec.decode(state)
        shard = number_of(key, self._shards, AGGREGATES, self._partition)
        self._clock.learn(stamp, loaded["clock_ms"])
        edition = self._editions.newest()
        if "config" in loaded:
            edition = self._editions.of(loaded["config"])
        self._teller.restore(shard, loaded.get("kept", {}))
        self.judges.restore(shard, stamp, loaded, edition)

    def forget_shown(self) -> None:
        """See :class:`~streams.ports.Showing`."""
        self._standing.forget()

    def wants_time(self) -> bool:
        """Whether an alert, or a silence, waits for log time to pass."""
        return self.judges.wants_time()

    def _change(self, record: LogRecord, now_ms: int) -> list[Produce]:
        """Take the rules that a marker names, for the shards that stand before it."""
        after = self._editions.at(record)
        if after is None:
            return []
        for shard, before, one in self.judges.change(after, record.offset):
            identity = alert_id(one.rule.name, one.names, one.told.id_ms)
            self._teller.keep(identity, shard, before)
        return self._tell(self.judges.pass_time(now_ms, record.offset))

    def _looks(self, edition: str) -> bool:
        """Whether there are rules on windows: without, frames are not even read."""
        rules = self._editions.of(edition).settings.rules
        return any(rule.in_cloud and not rule.on_scores for rule in rules)

    def _forwarder(self, edition: str) -> Forwarder:
        if edition not in self._forward:
            self._forward[edition] = Forwarder(self._editions.of(edition).settings)
        return self._forward[edition]

    def _tell(self, told: Told) -> list[Produce]:
        return [
            produce
            for edition, change in told
            for produce in self._teller.tell(alert_of(change), edition)
        ]

    def _reject(self, record: LogRecord, error: DecodeError) -> Produce:
        return rejected_from_log(
            record,
            error,
            topic=AGGREGATES,
            partition=self._partition,
            max_bytes=self._max_bytes,
        )


def _engine_of(edition: Edition) -> RuleEngine:
    return rule_engine(edition.settings, window_rules(edition.settings))


def as_named(found: WindowResults) -> WindowResults:
    """Return results under the names of their windows in the settings, ranked as they count.

    A later generation of a window counts more than any revision of a former one, and an edge's
    result more than the cloud's.
    """
    generations = [generation_of(name) for name in found.window.values]
    rank = standing(found.rank, found.source)
    if max(generations, default=1) == 1:
        return replace(found, rank=rank.astype(np.int32))
    codes = np.asarray(generations, np.int64)[found.window.codes]
    rank = np.where(rank < 0, rank, rank + (codes - 1) * _GENERATION)
    return replace(
        found,
        window=Labels(found.window.codes, [base_name(name) for name in found.window.values]),
        rank=rank.astype(np.int32),
    )
