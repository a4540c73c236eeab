"""The agent on ``aggregates``: from window results to alerts, and from alerts to the outbox."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from prometheus_client import Counter

from streams.adapters import results, shard_codec
from streams.adapters.rejected import rejected_from_log
from streams.agents.device_types import traits_by
from streams.agents.rule_definitions import kept_ms, window_rules
from streams.agents.telling import StandingCounts, Teller
from streams.core.alert_states import alert_id
from streams.core.log_clock import LogClock
from streams.core.readings import Labels
from streams.core.registry import NEVER
from streams.core.results import WindowResults
from streams.core.rule_engine import RuleEngine
from streams.core.rule_pairs import Change
from streams.core.window_rules import Absence, Composition, Condition, Threshold
from streams.errors import DecodeError, StateError
from streams.ports import LogicFactory, LogRecord, PartitionLogic, Produce, is_time_marker
from streams.settings import Settings
from streams.settings.generations import base_name, generation_of
from streams.topics import AGGREGATES

_REFUSED = Counter(
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
        self.engine = RuleEngine(
            window_rules(settings),
            kept_ms(settings),
            shards=settings.topics.shards,
            max_series=settings.alerts.max_series,
            max_open=settings.alerts.max_open,
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
                out += self._tell(self.engine.take(_as_named(found), now_ms, record.offset))
        if self.engine.refused:
            _REFUSED.inc(self.engine.refused)
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
        if int(key) >= len(self.engine.stamps):
            raise StateError(
                f"{AGGREGATES}, partition {self._partition}: stored state has a shard {key}, but "
                f"topics.shards is {len(self.engine.stamps)}; it may not change while state is kept"
            )
        self._clock.learn(stamp, loaded["clock_ms"])
        self.engine.restore(int(key), stamp, loaded)

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


def _as_named(found: WindowResults) -> WindowResults:
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
    value = f"{test.column} of {what} in {change.rule.window}"
    if change.told.state == "retracted":
        return f"a correction shows that {value} was {was}, not {side} {bound}"
    if math.isnan(change.cause.value):
        return f"{value} is not {side} {clear} any more, and came no more"
    if change.told.state == "resolved":
        return f"{value} is {was} again, not {side} {clear}"
    return f"{value} was {was}, {side} {bound}"
