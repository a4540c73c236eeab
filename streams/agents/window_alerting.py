"""The agent on ``aggregates``: from window results to alerts, and from alerts to the outbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from prometheus_client import Counter

from streams.adapters import results, shard_codec
from streams.adapters.rejected import rejected_from_log
from streams.agents.device_types import traits_by
from streams.agents.forwarding import Forwarder
from streams.agents.rule_definitions import kept_ms, window_rules
from streams.agents.stamps import number_of
from streams.agents.telling import StandingCounts, Teller
from streams.agents.window_alerts import alert_of
from streams.core.comparisons import split
from streams.core.log_clock import LogClock
from streams.core.readings import Labels
from streams.core.registry import NEVER
from streams.core.results import WindowResults
from streams.core.rule_engine import RuleEngine
from streams.core.rule_pairs import Change
from streams.errors import DecodeError
from streams.ports import LogicFactory, LogRecord, PartitionLogic, Produce, is_time_marker
from streams.settings import Settings
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


def make_window_alerting(settings: Settings) -> LogicFactory:
    """Return the factory of the rules on windows."""

    def factory(partition: int, partitions: int) -> PartitionLogic:
        return WindowAlertLogic(settings, partition)

    return factory


class WindowAlertLogic:
    """Frames of ``aggregates`` in; life cycles to ``alerts``, messages to ``deliveries`` out."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self._partition = partition
        self._max_bytes = settings.gateway.max_rejected_bytes
        self._clock = LogClock()
        self._teller = Teller(settings, partition)
        self._standing = StandingCounts(AGGREGATES, partition)
        self._shown_ms = -_SHOW_MS
        self._forward = Forwarder(settings)
        rules = window_rules(settings)
        self.engine = RuleEngine(
            [rule for rule in rules if rule not in split(rules)[1]],
            kept_ms(settings),
            shards=settings.topics.shards,
            max_series=settings.alerts.max_series,
            max_open=settings.alerts.max_open,
            max_compared=settings.alerts.max_compared,
            traits_of=traits_by(settings.types, settings.tags),
        )

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Take the next records of ``aggregates``; see :class:`PartitionLogic`."""
        out: list[Produce] = []
        offsets = np.asarray([record.offset for record in records], np.int64)
        times = np.asarray([record.timestamp for record in records], np.int64)
        for record, now_ms in zip(records, self._clock.read(offsets, times).tolist(), strict=True):
            out += self._tell(self.engine.pass_time(now_ms, record.offset))
            if is_time_marker(record):
                continue
            try:
                found = results.decode_windows(record.value or b"")
            except DecodeError as error:
                out.append(self._reject(record, error))
            else:
                named = as_named(found)
                out += self._tell(self.engine.take(named, now_ms, record.offset))
                out += self._forward.records(named)
        if self.engine.refused:
            REFUSED.inc(self.engine.refused)
            self.engine.refused = 0
        return out

    def dirty(self) -> Mapping[str, int]:
        """Return the changed shards."""
        since = self.engine.dirty_since
        return {str(shard): int(since[shard]) for shard in np.flatnonzero(since != NEVER)}

    def snapshot(self, key: str) -> bytes:
        """Return a shard's state and mark it clean."""
        state = self.engine.snapshot(int(key))
        if self._clock.now_ms - self._shown_ms >= _SHOW_MS:
            self._shown_ms = self._clock.now_ms
            self._standing.show(self.engine.count())
        return shard_codec.encode({"clock_ms": self._clock.now_ms, **state})

    def restore(self, key: str, stamp: int, state: bytes) -> None:
        """Load a shard; what belongs to rules that are gone is forgotten.

        :raises StateError: if it was written by another version, or with another number of shards.
        """
        loaded = shard_codec.decode(state)
        shard = number_of(key, len(self.engine.stamps), AGGREGATES, self._partition)
        self._clock.learn(stamp, loaded["clock_ms"])
        self.engine.restore(shard, stamp, loaded)

    def wants_time(self) -> bool:
        """Whether an alert, or a silence, waits for log time to pass."""
        return self.engine.wants_time()

    def _tell(self, changes: Sequence[Change]) -> list[Produce]:
        return [produce for change in changes for produce in self._teller.tell(alert_of(change))]

    def _reject(self, record: LogRecord, error: DecodeError) -> Produce:
        return rejected_from_log(
            record,
            error,
            topic=AGGREGATES,
            partition=self._partition,
            max_bytes=self._max_bytes,
        )


def as_named(found: WindowResults) -> WindowResults:
    """Return results under the names of their windows in the settings.

    A later generation of a window counts more than any revision of a former one.
    """
    generations = [generation_of(name) for name in found.window.values]
    if max(generations, default=1) == 1:
        return found
    codes = np.asarray(generations, np.int32)[found.window.codes]
    return replace(
        found,
        window=Labels(found.window.codes, [base_name(name) for name in found.window.values]),
        rank=np.where(found.rank < 0, found.rank, found.rank + (codes - 1) * _GENERATION),
    )
