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
from streams.core.comparisons import Chosen, Placed, comparison_of, split
from streams.core.group_comparisons import GroupComparisons
from streams.core.log_clock import LogClock
from streams.core.placement import shard_of
from streams.core.results import WindowResults
from streams.core.rule_engine import RuleEngine
from streams.core.rule_pairs import Change
from streams.core.rule_state import standing_in
from streams.core.window_rules import WindowRule
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
    """Some groups, which know nothing of others."""

    def __init__(self, edition: Edition) -> None:
        settings = edition.settings
        rules = split(window_rules(settings))[1]
        limits = settings.alerts
        self.edition = edition
        self.stamp = Stamp()
        self.comparisons = GroupComparisons(
            rules,
            kept_ms(settings),
            quiet_ms=limits.compare_quiet_ms,
            limit=limits.max_compared,
        )
        self.engine = RuleEngine(
            rules,
            kept_ms(settings),
            shards=1,
            max_series=limits.max_series,
            max_open=limits.max_open,
            traits_of=traits_by(settings.types, settings.tags),
        )

    def state(self) -> dict[str, Any]:
        return {"compared": self.comparisons.snapshot(), "engine": self.engine.snapshot(0)}

    def restore(self, stamp: int, state: Mapping[str, Any]) -> None:
        self.stamp.at = stamp
        self.comparisons.restore(state["compared"])
        self.engine.restore(0, stamp, state["engine"])

    def pass_time(self, now_ms: int, offset: int) -> list[Change]:
        changes: list[Change] = []
        for compared in self.comparisons.pass_time(now_ms):
            self.stamp.touch(offset)
            changes += self.engine.take(compared, now_ms, offset)
        changes += self.engine.pass_time(now_ms, offset)
        self.stamp.touch(int(self.engine.dirty_since[0]))
        return changes


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
        self._chosen: dict[str, tuple[list[WindowRule], Chosen]] = {}
        self._parts = [_Part(editions.newest()) for _ in range(settings.topics.shards)]

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Take the next records of ``alert.peers``; see :class:`PartitionLogic`."""
        out: list[Produce] = []
        offsets = np.asarray([record.offset for record in records], np.int64)
        times = np.asarray([record.timestamp for record in records], np.int64)
        for record, now_ms in zip(records, self._clock.read(offsets, times).tolist(), strict=True):
            for part in self._parts:
                if part.stamp.takes(record.offset):
                    out += self._tell(part, part.pass_time(now_ms, record.offset))
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

    def _take(self, found: WindowResults, among: str, now_ms: int, offset: int) -> None:
        for edition in {part.edition.id: part.edition for part in self._parts}.values():
            rules, chosen = self._chosen_by(edition)
            places: dict[tuple[str, str], int] = {}
            of_part: dict[int, list[Placed]] = {}
            for one in chosen.placed(found, chosen.watches(found)):
                _, number, tenant, group = one
                if comparison_of(rules[number]).among != among:
                    continue
                place = places.get((tenant, group))
                if place is None:
                    place = shard_of(tenant, f"{among}/{group}", len(self._parts))
                    places[tenant, group] = place
                of_part.setdefault(place, []).append(one)
            for place, placed in of_part.items():
                part = self._parts[place]
                if part.edition is edition and part.stamp.takes(offset):
                    part.stamp.touch(offset)
                    part.comparisons.take(found, placed, now_ms)

    def _chosen_by(self, edition: Edition) -> tuple[list[WindowRule], Chosen]:
        if edition.id not in self._chosen:
            settings = edition.settings
            rules = split(window_rules(settings))[1]
            traits_of = traits_by(settings.types, settings.tags)
            self._chosen[edition.id] = rules, Chosen(rules, traits_of)
        return self._chosen[edition.id]

    def _change(self, record: LogRecord, now_ms: int) -> list[Produce]:
        """Take the rules that a marker names, for the parts that stand before it."""
        after = self._editions.at(record)
        out: list[Produce] = []
        for number, part in enumerate(self._parts):
            if after is None or not part.stamp.takes(record.offset):
                continue
            if part.edition.revision >= after.revision:
                continue
            state = part.state()
            for one in standing_in(state["engine"]):
                identity = alert_id(one.rule.name, one.names, one.told.id_ms)
                self._teller.keep(identity, number, part.edition)
            new = self._parts[number] = _Part(after)
            new.restore(part.stamp.at, state)
            new.stamp.touch(record.offset)
            out += self._tell(new, new.pass_time(now_ms, record.offset))
        return out

    def _count_refused(self) -> None:
        for part in self._parts:
            if part.engine.refused or part.comparisons.refused:
                REFUSED.inc(part.engine.refused + part.comparisons.refused)
                part.engine.refused = part.comparisons.refused = 0

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
                **part.state(),
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
        self._parts[number] = _Part(self._editions.of(loaded["config"]))
        self._parts[number].restore(stamp, loaded)

    def forget_shown(self) -> None:
        """See :class:`~streams.ports.Showing`."""
        self._standing.forget()

    def wants_time(self) -> bool:
        """Whether a group waits to be quiet, or an alert for log time to pass."""
        return any(p.comparisons.wants_time() or p.engine.wants_time() for p in self._parts)

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
