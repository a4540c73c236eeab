"""The agents of roll-ups: from devices to a partition's part of a group, and on to the group.

A group's devices lie in several partitions, so there are two stages of one logic. The first
folds the devices of a partition of ``aggregates`` into ``rollups.partial``, keyed by group; the
second folds what the partitions have told about a group into ``rollups``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
from prometheus_client import Counter

from streams.adapters import frames, results, shard_codec
from streams.adapters.config_log import Documents
from streams.adapters.rejected import rejected_from_log
from streams.agents.device_types import TypeOf
from streams.agents.rollup_course import RollupCourse
from streams.agents.window_definitions import definition_of
from streams.core.placement import group_key, group_partition
from streams.core.readings import Bool, Labels
from streams.core.registry import NEVER
from streams.core.results import CLOUD, RollupResults, WindowResults, standing
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
from streams.settings.generations import base_name
from streams.topics import AGGREGATES, ROLLUPS, ROLLUPS_PARTIAL
from streams.version import VERSION

PART_HEADER = "hw-part"
"""Partition of ``aggregates`` whose devices a record of ``rollups.partial`` stands for."""
EVERYTHING = "*"
"""Name of the group of a whole tenant."""
_CLOCK_KEY = "clock"
_TOLD = Counter("headwater_rollup_results", "Results of groups emitted.", ["topic", "reason"])
_REFUSED = Counter("headwater_rollup_refused_results", "Results not taken.", ["topic", "why"])

PartsOf = Callable[[RollupSettings], Parts]
"""The parts of a record that concern a roll-up."""
Read = Callable[[LogRecord, TypeOf], PartsOf]


@dataclass(frozen=True, slots=True)
class _Stage:
    """From which topic to which, and how parts are read."""

    source: str
    target: str
    read: Read
    has_devices: bool
    """Whether its parts are devices, whose groups follow from the settings."""
    max_members: int | None = None


def make_partials(settings: Settings, documents: Documents | None = None) -> LogicFactory:
    """Return the factory of the first stage: from devices to a partition's part.

    :param documents: what the topic ``config`` holds; more may come while the logic runs.
    """
    return _factory(settings, _Stage(AGGREGATES, ROLLUPS_PARTIAL, _devices, True), documents)


def make_groups(settings: Settings, documents: Documents | None = None) -> LogicFactory:
    """Return the factory of the second stage: from partitions' parts to groups."""
    most = settings.topics.partitions
    stage = _Stage(ROLLUPS_PARTIAL, ROLLUPS, _partitions, False, most)
    return _factory(settings, stage, documents)


def _factory(settings: Settings, stage: _Stage, documents: Documents | None) -> LogicFactory:
    known = Documents() if documents is None else documents

    def factory(partition: int, partitions: int) -> PartitionLogic:
        return RollupLogic(settings, stage, partition, known)

    return factory


class RollupLogic:
    """One stage of all roll-ups on one partition."""

    def __init__(
        self, settings: Settings, stage: _Stage, partition: int, documents: Documents
    ) -> None:
        self._stage = stage
        self._partition = partition
        self._partitions = settings.topics.partitions
        self._max_bytes = settings.gateway.max_rejected_bytes
        self._late_ms = settings.devices.disorder_ms + settings.devices.idle_final_ms
        self._course = RollupCourse(settings, documents)
        self._settings = {rollup.name: rollup for rollup in settings.rollups}
        self._rollups = {
            rollup.name: Rollup(
                RollupRules(
                    rollup.name,
                    CLOUD,
                    rollup.quiet_ms,
                    {},
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
        self._has_begun = False
        self._adopt()

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Take the next records of the stage's topic; see :class:`PartitionLogic`."""
        out: list[Produce] = []
        if records and not self._has_begun:
            self._has_begun = True
            if self._course.begin(records[0].offset):
                self._adopt()
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
            return shard_codec.encode(
                {"clock_ms": self._clock_ms, "course": self._course.snapshot()}
            )
        name, _, piece = key.partition("/")
        return shard_codec.encode(self._rollups[name].snapshot(piece))

    def restore(self, key: str, stamp: int, state: bytes) -> None:
        """Load a piece; what belongs to roll-ups that are gone is forgotten.

        :raises StateError: if it was written by another version, or follows settings that are gone.
        """
        loaded = shard_codec.decode(state)
        self._told_until = max(self._told_until, stamp)
        if key == _CLOCK_KEY:
            self._stored_clock_ms, self._clock_stamp = loaded["clock_ms"], stamp
            self._course.restore(loaded.get("course", ()))
            self._adopt()
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
        if is_time_marker(record):
            self._change(record)
        else:
            try:
                parts_of = self._stage.read(record, self._type_of)
            except DecodeError as error:
                out.append(self._reject(record, error))
            else:
                for name, rollup in self._rollups.items():
                    parts = parts_of(self._settings[name])
                    if self._never:
                        parts = parts.take(np.flatnonzero(~_are(parts.window, self._never)))
                    if len(parts):
                        told += rollup.take(parts, now_ms, record.offset)
        self._count()
        return [produce for part in told for produce in self._frames(part)] + out

    def _change(self, record: LogRecord) -> None:
        """Take the settings that a marker names: devices of another type change their group."""
        if not self._course.change(record):
            return
        self._adopt()
        for name, rollup in self._rollups.items():
            if self._stage.has_devices and self._settings[name].group == "type":
                rollup.regroup(self._type_of, self._clock_ms, record.offset)

    def _adopt(self) -> None:
        """Take what the settings in force say of types and windows."""
        settings, windows = self._course.settings(), self._course.windows()
        self._type_of = TypeOf(settings.types)
        self._fingerprint = settings.fingerprint("rollups", "types")
        keep_ms = {n: definition_of(w).reach_ms + self._late_ms for n, w in windows.items()}
        # Windows that end at a reading of one device are no other device's.
        self._never = {name for name, window in windows.items() if window.kind == "sliding"}
        for rollup in self._rollups.values():
            rollup.rules = replace(rollup.rules, keep_ms=keep_ms)

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
        return rejected_from_log(
            record,
            error,
            topic=self._stage.source,
            partition=self._partition,
            max_bytes=self._max_bytes,
        )


def _devices(record: LogRecord, type_of: TypeOf) -> PartsOf:
    """Read a frame of ``aggregates``: each device is a part."""
    found = results.decode_windows(record.value or b"")
    return lambda rollup: _devices_of(found, rollup, type_of)


def _groups_of(found: WindowResults, rollup: RollupSettings, type_of: TypeOf) -> Labels:
    if rollup.group == "site":
        return found.site
    if rollup.group == "tenant":
        return Labels.constant(EVERYTHING, len(found))
    columns = (found.tenant.to_list(), found.site.to_list(), found.device.to_list())
    return Labels.of(type_of(*names) for names in zip(*columns, strict=True))


def _devices_of(found: WindowResults, rollup: RollupSettings, type_of: TypeOf) -> Parts:
    # All generations of a window are rolled up, each for itself.
    window = Labels(found.window.codes, [base_name(name) for name in found.window.values])
    wanted = _matching(found.metric, rollup.metrics) & _matching(window, rollup.windows)
    sd = np.where(found.count > 1, found.sd, 0.0)
    told = found.count > 0
    parts = Parts(
        tenant=found.tenant,
        group=_groups_of(found, rollup, type_of),
        metric=found.metric,
        window=found.window,
        part=found.device,
        site=found.site,
        start_ms=found.start_ms,
        end_ms=found.end_ms,
        values={
            **{name: getattr(found, name) for name in VALUES if hasattr(WindowResults, name)},
            "rank": standing(found.rank, found.source),
            "revision": found.rank.astype(np.int64) + 1,
            "m2": sd * sd * np.maximum(found.count - 1, 0),
            "final": (told & (found.rank >= 0)).astype(np.int64),
            "provisional": (told & (found.rank < 0)).astype(np.int64),
            "missing": (~told).astype(np.int64),
        },
    )
    return parts.take(np.flatnonzero(wanted))


def _partitions(record: LogRecord, _: TypeOf) -> PartsOf:
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
        site=Labels.constant("", len(found)),
        start_ms=found.start_ms,
        end_ms=found.end_ms,
        values={name: getattr(found, name) for name in VALUES if name != "revision"}
        | {"revision": found.rank},
    )
    return parts.take(np.flatnonzero(_matching(found.rollup, [rollup.name])))


def _are(labels: Labels, names: Set[str]) -> Bool:
    return np.asarray([value in names for value in labels.values], np.bool_)[labels.codes]


def _matching(labels: Labels, globs: Sequence[str]) -> Bool:
    flags = [any(fnmatchcase(value, glob) for glob in globs) for value in labels.values]
    return np.asarray(flags, np.bool_)[labels.codes]
