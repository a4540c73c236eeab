"""The agent on ``alert.peers``: devices compared with the median of their group.

The devices of a group lie in all partitions. What rules compare among devices goes, in frames
like those of ``aggregates``, by way of ``alert.peers`` into the partition of its group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from streams.adapters import results, shard_codec
from streams.adapters.rejected import rejected_from_log
from streams.agents.device_types import traits_by
from streams.agents.editions import Edition, Editions
from streams.agents.forwarding import AMONG_HEADER
from streams.agents.rule_definitions import kept_ms, window_rules
from streams.agents.stamps import Stamp, dirty, number_of
from streams.agents.telling import StandingCounts, Teller
from streams.agents.window_alerting import REFUSED
from streams.agents.window_alerts import alert_of
from streams.core.alert_states import alert_id
from streams.core.comparisons import split
from streams.core.group_comparisons import GroupComparisons
from streams.core.log_clock import LogClock
from streams.core.placement import shard_of
from streams.core.readings import Bool
from streams.core.results import WindowResults
from streams.core.rule_engine import RuleEngine
from streams.core.rule_pairs import Change
from streams.core.rule_state import standing_in
from streams.errors import DecodeError
from streams.ports import (
    LogicFactory,
    LogRecord,
    PartitionLogic,
    Produce,
    header,
    is_time_marker,
)
from streams.settings import Settings
from streams.settings.applied import Document
from streams.topics import ALERT_PEERS

_KINDS = ("site", "type", "tenant")


class _Part:
    """Some groups, which know nothing of others; what is compared is held for all of an edition."""

    def __init__(self, edition: Edition) -> None:
        settings = edition.settings
        limits = settings.alerts
        self.edition = edition
        self.stamp = Stamp()
        self.engine = RuleEngine(
            split(window_rules(settings))[1],
            kept_ms(settings),
            shards=1,
            max_series=limits.max_series,
            max_open=limits.max_open,
            traits_of=traits_by(settings.types, settings.tags),
        )


def _comparisons(edition: Edition) -> GroupComparisons:
    settings = edition.settings
    parts = settings.topics.shards
    return GroupComparisons(
        split(window_rules(settings))[1],
        kept_ms(settings),
        traits_by(settings.types, settings.tags),
        lambda tenant, among, group: shard_of(tenant, f"{among}/{group}", parts),
        quiet_ms=settings.alerts.compare_quiet_ms,
        limit=settings.alerts.max_compared,
    )


def make_peers(settings: Settings, documents: Mapping[str, Document] | None = None) -> LogicFactory:
    """Return the factory of the comparisons among devices.

    :param documents: what the topic ``config`` holds; more may come while the logic runs.
    """

    def factory(partition: int, partitions: int) -> PartitionLogic:
        return PeerLogic(settings, partition, Editions(settings, documents))

    return factory


class PeerLogic:
    """Results of the devices of some groups in; life cycles and messages of alerts out."""

    def __init__(self, settings: Settings, partition: int, editions: Editions) -> None:
        self._partition = partition
        self._max_bytes = settings.gateway.max_rejected_bytes
        self._clock = LogClock()
        self._editions = editions
        self._teller = Teller(settings, partition, editions)
        self._standing = StandingCounts(ALERT_PEERS, partition)
        self._parts = [_Part(editions.newest()) for _ in range(settings.topics.shards)]
        self._compared: dict[str, GroupComparisons] = {}
        """Edition -> what is compared under it, of the parts that stand there."""

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Take the next records of ``alert.peers``; see :class:`PartitionLogic`."""
        out: list[Produce] = []
        offsets = np.asarray([record.offset for record in records], np.int64)
        times = np.asarray([record.timestamp for record in records], np.int64)
        for record, now_ms in zip(records, self._clock.read(offsets, times).tolist(), strict=True):
            out += self._pass_time(now_ms, record.offset)
            if is_time_marker(record):
                out += self._change(record, now_ms)
                continue
            try:
                found = results.decode_windows(record.value or b"")
                self._take(found, _among(record), now_ms, record.offset)
            except DecodeError as error:
                out.append(self._reject(record, error))
        self._count_refused()
        return out

    def _pass_time(self, now_ms: int, offset: int) -> list[Produce]:
        said: dict[int, list[WindowResults]] = {}
        for edition in self._editions_in_use():
            takes = self._takes(edition, offset)
            for number, found in self._compared_by(edition).pass_time(now_ms, takes):
                said.setdefault(number, []).append(found)
        out: list[Produce] = []
        for number, part in enumerate(self._parts):
            if not part.stamp.takes(offset):
                continue
            changes: list[Change] = []
            for found in said.get(number, ()):
                part.stamp.touch(offset)
                changes += part.engine.take(found, now_ms, offset)
            changes += part.engine.pass_time(now_ms, offset)
            part.stamp.touch(int(part.engine.dirty_since[0]))
            out += self._tell(part, changes)
        return out

    def _take(self, found: WindowResults, among: str, now_ms: int, offset: int) -> None:
        for edition in self._editions_in_use():
            takes = self._takes(edition, offset)
            took = self._compared_by(edition).take(found, among, now_ms, takes)
            for number in took.tolist():
                self._parts[number].stamp.touch(offset)

    def _editions_in_use(self) -> list[Edition]:
        return list({part.edition.id: part.edition for part in self._parts}.values())

    def _compared_by(self, edition: Edition) -> GroupComparisons:
        if edition.id not in self._compared:
            self._compared[edition.id] = _comparisons(edition)
        return self._compared[edition.id]

    def _takes(self, edition: Edition, offset: int) -> Bool:
        """Return of each part whether it stands at an edition, and a record is new to it."""
        flags = [p.edition.id == edition.id and p.stamp.takes(offset) for p in self._parts]
        return np.asarray(flags, np.bool_)

    def _state(self, number: int) -> dict[str, Any]:
        part = self._parts[number]
        compared = self._compared_by(part.edition).snapshot(number)
        return {"compared": compared, "engine": part.engine.snapshot(0)}

    def _load(self, number: int, edition: Edition, stamp: int, state: Mapping[str, Any]) -> None:
        """Put a part in the place of another."""
        self._compared_by(self._parts[number].edition).leave(number)
        part = self._parts[number] = _Part(edition)
        part.stamp.at = stamp
        self._compared_by(edition).restore(number, state["compared"])
        part.engine.restore(0, stamp, state["engine"])
        used = {one.id for one in self._editions_in_use()}
        self._compared = {name: one for name, one in self._compared.items() if name in used}

    def _change(self, record: LogRecord, now_ms: int) -> list[Produce]:
        """Take the rules that a marker names, for the parts that stand before it."""
        after = self._editions.at(record)
        changed = False
        for number, part in enumerate(self._parts):
            if after is None or not part.stamp.takes(record.offset):
                continue
            if part.edition.revision >= after.revision:
                continue
            state = self._state(number)
            for one in standing_in(state["engine"]):
                identity = alert_id(one.rule.name, one.names, one.told.id_ms)
                self._teller.keep(identity, number, part.edition)
            self._load(number, after, part.stamp.at, state)
            self._parts[number].stamp.touch(record.offset)
            changed = True
        return self._pass_time(now_ms, record.offset) if changed else []

    def _count_refused(self) -> None:
        for one in self._compared.values():
            REFUSED.inc(one.refused)
            one.refused = 0
        for part in self._parts:
            REFUSED.inc(part.engine.refused)
            part.engine.refused = 0

    def dirty(self) -> Mapping[str, int]:
        """Return the changed parts."""
        return dirty([part.stamp for part in self._parts])

    def snapshot(self, key: str) -> bytes:
        """Return a part's state and mark it clean."""
        part = self._parts[int(key)]
        part.stamp.stored()
        self._standing.show(_summed([part.engine.count() for part in self._parts]))
        return shard_codec.encode(
            {
                "clock_ms": self._clock.now_ms,
                "config": part.edition.id,
                "kept": self._teller.kept(int(key)),
                **self._state(int(key)),
            }
        )

    def restore(self, key: str, stamp: int, state: bytes) -> None:
        """Load a part; alerts of rules that are gone resolve with the next record.

        :raises StateError: if it was written by another version, or with another number of shards.
        """
        loaded = shard_codec.decode(state)
        number = number_of(key, len(self._parts), ALERT_PEERS, self._partition)
        self._clock.learn(stamp, loaded["clock_ms"])
        self._teller.restore(number, loaded["kept"])
        self._load(number, self._editions.of(loaded["config"]), stamp, loaded)

    def forget_shown(self) -> None:
        """See :class:`~streams.ports.Showing`."""
        self._standing.forget()

    def wants_time(self) -> bool:
        """Whether a group waits to be quiet, or an alert for log time to pass."""
        compared = any(one.wants_time() for one in self._compared.values())
        return compared or any(part.engine.wants_time() for part in self._parts)

    def _tell(self, part: _Part, changes: Sequence[Change]) -> list[Produce]:
        return [
            produce
            for change in changes
            for produce in self._teller.tell(alert_of(change), part.edition)
        ]

    def _reject(self, record: LogRecord, error: DecodeError) -> Produce:
        return rejected_from_log(
            record,
            error,
            topic=ALERT_PEERS,
            partition=self._partition,
            max_bytes=self._max_bytes,
        )


def _among(record: LogRecord) -> str:
    """Return what kind of groups a frame is for.

    :raises DecodeError: if it does not say.
    """
    among = (header(record, AMONG_HEADER) or b"").decode(errors="replace")
    if among not in _KINDS:
        raise DecodeError(
            "alert-peers", f"the header {AMONG_HEADER} is {among!r}, expected one of {_KINDS}"
        )
    return among


def _summed(counts: Sequence[Mapping[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    rules = dict.fromkeys(rule for one in counts for rule in one)
    none = (0, 0)
    return {
        rule: (
            sum(one.get(rule, none)[0] for one in counts),
            sum(one.get(rule, none)[1] for one in counts),
        )
        for rule in rules
    }
