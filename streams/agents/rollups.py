"""The agents of roll-ups: from devices to a partition's part of a group, and on to the group.

A group's devices lie in several partitions, so there are two stages of one logic. The first
folds the devices of a partition of ``aggregates`` into ``rollups.partial``, keyed by group; the
second folds what the partitions have told about a group into ``rollups``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from prometheus_client import Counter

from streams.adapters import frames, results, shard_codec
from streams.adapters.rejected import rejected_record
from streams.agents.window_definitions import definition_of
from streams.core.placement import group_key, group_partition
from streams.core.readings import Bool, Labels
from streams.core.registry import NEVER
from streams.core.results import RollupResults, WindowResults
from streams.core.rollup_parts import VALUES, Parts
from streams.core.rollups import Rollup, RollupRules
from streams.errors import DecodeError, StateError
from streams.ports import (
    LogicFactory,
    LogRecord,
    PartitionLogic,
    Produce,
    header,
    is_time_marker,
)
from streams.settings import Rollup as RollupSettings
from streams.settings import Settings
from streams.topics import AGGREGATES, ROLLUPS, ROLLUPS_PARTIAL
from streams.version import VERSION

PART_HEADER = "hw-part"
"""Partition of ``aggregates`` whose devices a record of ``rollups.partial`` stands for."""
EVERYTHING = "*"
"""Name of the group of a whole tenant."""
SOURCE = "cloud"
_CLOCK_KEY = "clock"
_TOLD = Counter("headwater_rollup_results", "Results of groups emitted.", ["topic", "reason"])
_REFUSED = Counter("headwater_rollup_refused_results", "Results not taken.", ["topic", "why"])

PartsOf = Callable[[RollupSettings], Parts]
"""The parts of a record that concern a roll-up."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """From which topic to which, and how parts are read."""

    source: str
    target: str
    read: Callable[[LogRecord], PartsOf]
    max_members: int | None = None


def make_partials(settings: Settings) -> LogicFactory:
    """Return the factory of the first stage: from devices to a partition's part."""
    stage = _Stage(AGGREGATES, ROLLUPS_PARTIAL, _devices)

    def factory(partition: int, partitions: int) -> PartitionLogic:
        return RollupLogic(settings, stage, partition)

    return factory


def make_groups(settings: Settings) -> LogicFactory:
    """Return the factory of the second stage: from partitions' parts to groups."""
    stage = _Stage(ROLLUPS_PARTIAL, ROLLUPS, _partitions, settings.topics.partitions)

    def factory(partition: int, partitions: int) -> PartitionLogic:
        return RollupLogic(settings, stage, partition)

    return factory


class RollupLogic:
    """One stage of all roll-ups on one partition."""

    def __init__(self, settings: Settings, stage: _Stage, partition: int) -> None:
        self._stage = stage
        self._partition = partition
        self._partitions = settings.topics.partitions
        self._fingerprint = settings.fingerprint("rollups")
        self._max_bytes = settings.gateway.max_rejected_bytes
        late_ms = settings.devices.disorder_ms + settings.devices.idle_final_ms
        keep_ms = {w.name: definition_of(w).reach_ms + late_ms for w in settings.windows}
        # Windows that end at a reading of one device are no other device's.
        self._never = [w.name for w in settings.windows if w.kind == "sliding"]
        self._settings = {rollup.name: rollup for rollup in settings.rollups}
        self._rollups = {
            rollup.name: Rollup(
                RollupRules(
                    rollup.name,
                    SOURCE,
                    rollup.quiet_ms,
                    keep_ms,
                    stage.max_members or rollup.max_members,
                    rollup.max_results,
                )
            )
            for rollup in settings.rollups
        }
        self._clock_ms = 0
        self._stored_clock_ms = 0
        self._clock_stamp = -1
        self._told_until = -1
        """What belongs to records up to this offset was told, and acknowledged, before a crash."""
        self._dirty_since = NEVER

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Take the next records of the stage's topic; see :class:`PartitionLogic`."""
        out: list[Produce] = []
        for record in records:
            made = self._fold_one(record)
            if record.offset > self._told_until:
                out += made
        return out

    def dirty(self) -> Mapping[str, int]:
        """Return the changed pieces of every roll-up, and the clock."""
        dirty = {
            f"{name}/{key}": at
            for name, rollup in self._rollups.items()
            for key, at in rollup.dirty().items()
        }
        if self._dirty_since != NEVER:
            dirty[_CLOCK_KEY] = self._dirty_since
        return dirty

    def snapshot(self, key: str) -> bytes:
        """Return a piece's state and mark it clean."""
        if key == _CLOCK_KEY:
            self._dirty_since = NEVER
            return shard_codec.encode({"clock_ms": self._clock_ms})
        name, _, piece = key.partition("/")
        return shard_codec.encode(self._rollups[name].snapshot(piece))

    def restore(self, key: str, stamp: int, state: bytes) -> None:
        """Load a piece; what belongs to roll-ups that are gone is forgotten.

        :raises StateError: if it was written by another version.
        """
        loaded = shard_codec.decode(state)
        self._told_until = max(self._told_until, stamp)
        if key == _CLOCK_KEY:
            self._stored_clock_ms, self._clock_stamp = loaded["clock_ms"], stamp
            return
        name, _, piece = key.partition("/")
        if name in self._rollups:
            try:
                self._rollups[name].restore(piece, stamp, loaded)
            except (ValueError, KeyError) as error:
                where = f"{self._stage.source}, partition {self._partition}"
                raise StateError(f"roll-up {name!r} of {where}: {error}") from error

    def wants_time(self) -> bool:
        """Whether a changed result waits to be told."""
        return any(rollup.waits() for rollup in self._rollups.values())

    def _fold_one(self, record: LogRecord) -> list[Produce]:
        self._dirty_since = min(self._dirty_since, record.offset)
        # A replay goes through the same times again; the stored clock may be further on.
        before_ms = self._stored_clock_ms if record.offset > self._clock_stamp else 0
        self._clock_ms = now_ms = max(self._clock_ms, record.timestamp, before_ms)
        told = [
            part
            for rollup in self._rollups.values()
            for part in rollup.advance(now_ms, record.offset)
        ]
        out: list[Produce] = []
        if not is_time_marker(record):
            try:
                parts_of = self._stage.read(record)
            except DecodeError as error:
                out.append(self._reject(record, error))
            else:
                for name, rollup in self._rollups.items():
                    parts = parts_of(self._settings[name])
                    if self._never:
                        parts = parts.take(np.flatnonzero(~_matching(parts.window, self._never)))
                    if len(parts):
                        told += rollup.take(parts, now_ms, record.offset)
        self._count()
        return [produce for part in told for produce in self._frames(part)] + out

    def _frames(self, told: RollupResults) -> Iterable[Produce]:
        """One record per group: it is the record's key."""
        places: dict[bytes, list[int]] = {}
        for i in range(len(told)):
            key = group_key(told.tenant[i], told.rollup[i], told.group[i])
            places.setdefault(key, []).append(i)
        headers = {
            "content-type": frames.CONTENT_TYPE,
            "hw-partitions": str(self._partitions).encode(),
        }
        if self._stage.target == ROLLUPS_PARTIAL:
            headers[PART_HEADER] = str(self._partition).encode()
        for key, rows in places.items():
            one = told.take(np.asarray(rows, np.int64))
            value = results.encode(one, code=VERSION, settings=self._fingerprint)
            partition = group_partition(key, self._partitions)
            for reason in one.reason.to_list():
                _TOLD.labels(self._stage.target, reason).inc()
            yield Produce(self._stage.target, value, key, partition, headers)

    def _count(self) -> None:
        for rollup in self._rollups.values():
            said = rollup.said
            for why, n in (
                ("late", said.late),
                ("members", said.over_limit),
                ("evicted", rollup.evicted),
            ):
                if n:
                    _REFUSED.labels(self._stage.source, why).inc(n)
            said.late = said.over_limit = rollup.evicted = 0

    def _reject(self, record: LogRecord, error: DecodeError) -> Produce:
        return rejected_record(
            record.value or b"",
            error,
            source=f"kafka:{self._stage.source}/{self._partition}/{record.offset}",
            received_ms=record.timestamp,
            max_bytes=self._max_bytes,
            partition=self._partition,
        )


def _devices(record: LogRecord) -> PartsOf:
    """Read a frame of ``aggregates``: each device is a part."""
    found = results.decode_windows(record.value or b"")
    return lambda rollup: _devices_of(found, rollup)


def _devices_of(found: WindowResults, rollup: RollupSettings) -> Parts:
    wanted = _matching(found.metric, rollup.metrics) & _matching(found.window, rollup.windows)
    everything = Labels.constant(EVERYTHING, len(found))
    sd = np.where(found.count > 1, found.sd, 0.0)
    told = found.count > 0
    parts = Parts(
        tenant=found.tenant,
        group=found.site if rollup.group == "site" else everything,
        metric=found.metric,
        window=found.window,
        part=found.device,
        start_ms=found.start_ms,
        end_ms=found.end_ms,
        values={
            **{name: getattr(found, name) for name in VALUES if hasattr(WindowResults, name)},
            "rank": found.rank.astype(np.int64),
            "revision": found.rank.astype(np.int64) + 1,
            "m2": sd * sd * np.maximum(found.count - 1, 0),
            "final": (told & (found.rank >= 0)).astype(np.int64),
            "provisional": (told & (found.rank < 0)).astype(np.int64),
            "missing": (~told).astype(np.int64),
        },
    )
    return parts.take(np.flatnonzero(wanted))


def _partitions(record: LogRecord) -> PartsOf:
    """Read a frame of ``rollups.partial``: the partition that it comes from is the part."""
    number = header(record, PART_HEADER) or b""
    if not number.isdigit():
        raise DecodeError("bad-header", f"{PART_HEADER} is {number!r}, expected a partition number")
    found, partition = results.decode_rollups(record.value or b""), int(number)
    return lambda rollup: _partitions_of(found, partition, rollup)


def _partitions_of(found: RollupResults, partition: int, rollup: RollupSettings) -> Parts:
    # A device is in one group at a time, a partition in all of them.
    names = tuple(f"{partition:05d}/{group}" for group in found.group.values)
    parts = Parts(
        tenant=found.tenant,
        group=found.group,
        metric=found.metric,
        window=found.window,
        part=Labels(found.group.codes, names),
        start_ms=found.start_ms,
        end_ms=found.end_ms,
        values={name: getattr(found, name) for name in VALUES if name != "revision"}
        | {"revision": found.rank},
    )
    return parts.take(np.flatnonzero(_matching(found.rollup, [rollup.name])))


def _matching(labels: Labels, globs: Sequence[str]) -> Bool:
    flags = [any(fnmatchcase(value, glob) for glob in globs) for value in labels.values]
    return np.asarray(flags, np.bool_)[labels.codes]
