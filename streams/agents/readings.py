"""The agent on ``readings``: windows, detection and verdicts, as one :class:`PartitionLogic`.

All of a device (series, watermark, numbering, panes, baseline, counters) lies in its shard,
so one snapshot of a shard is consistent by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
from prometheus_client import Counter

from streams.adapters import frames, results, shard_codec
from streams.adapters.config_log import Documents, marker_of
from streams.adapters.reading_records import RecordDecoder, Refused
from streams.adapters.rejected import rejected_from_log
from streams.agents.changing import (
    Course,
    Told,
    adapted,
    contradicts,
    since_now,
    since_return,
    united,
)
from streams.agents.derived import Derivations
from streams.agents.detection import Watch
from streams.agents.eviction import Eviction
from streams.agents.shelving import Shelving
from streams.agents.verdicts import explain_rows
from streams.agents.window_definitions import definition_of
from streams.core import snapshots
from streams.core.classes import Class
from streams.core.engine import DeviceRules, Folded, LogRows, StreamEngine
from streams.core.log_clock import LogClock
from streams.core.readings import Int64
from streams.core.registry import FREE, NEVER
from streams.core.results import Scores, WindowResults
from streams.errors import StateError
from streams.log import get_logger
from streams.ports import (
    LogicFactory,
    LogRecord,
    PartitionLogic,
    Produce,
    Segment,
    is_time_marker,
)
from streams.settings import Settings, Window
from streams.settings.applied import in_force, newest
from streams.topics import AGGREGATES, ANOMALIES, READINGS
from streams.version import VERSION

_log = get_logger(__name__)
PARTITION_KEY = "partition"
"""State key of what belongs to no device: the partition's clock."""

_READINGS = Counter("headwater_worker_readings", "Readings judged, by class.", ["verdict"])
_RESULTS = Counter("headwater_worker_window_results", "Window results emitted.", ["reason"])
_GIVEN_UP = Counter(
    "headwater_worker_window_readings_given_up",
    "Readings that a window definition did not take (refused), or kept no longer for corrections "
    "(dropped), because max_points was met.",
    ["window", "what"],
)
_SCORES = Counter("headwater_worker_scores_told", "Scores written to anomalies.")
_BEYOND = Counter("headwater_worker_readings_beyond_limit", "Readings refused by a cap.", ["limit"])
_EVICTED = Counter(
    "headwater_worker_evicted_devices", "Quiet devices whose state left memory for the table."
)
_RETURNED = Counter(
    "headwater_worker_returned_devices", "Devices that came back from the table when heard again."
)
_POISON = Counter("headwater_worker_poison_records", "Records of readings that were refused.")


def make_readings(settings: Settings, documents: Documents | None = None) -> LogicFactory:
    """Return the factory of the readings logic for these settings.

    :param documents: what the topic ``config`` holds; more may come while the logic runs.
    """
    known = Documents() if documents is None else documents

    def factory(partition: int, partitions: int) -> PartitionLogic:
        return ReadingsLogic(settings, partition, partitions, known)

    return factory


class ReadingsLogic:
    """``readings`` in, in any codec; ``aggregates``, ``anomalies`` and what was refused out."""

    def __init__(
        self, settings: Settings, partition: int, partitions: int, documents: Documents
    ) -> None:
        self._partition = partition
        self._headers = {
            "content-type": frames.CONTENT_TYPE,
            "hw-partitions": str(partitions).encode(),
        }
        self._documents = documents
        base = newest(documents.values())
        self._settings = in_force(settings, base)
        self._max_bytes = settings.gateway.max_rejected_bytes
        self.watch = Watch(settings.detection, settings.topics.shards)
        self._clock = LogClock()
        self._stamp = -1
        self._dirty_since = NEVER
        self._told = Told()
        self._course = Course(documents, base, settings.topics.shards)
        self._eviction = Eviction(settings.topics.shards, settings.worker.evict_ms)
        self._shelving = Shelving(settings.topics.shards, settings.worker.shelve_ms)
        self._build(self._settings.windows)

    def _build(self, windows: Sequence[Window]) -> None:
        """Begin with empty state and these windows."""
        settings = self._settings
        self._windows = list(windows)
        self._limits: dict[tuple[int, str], int] = {}
        self.engine = StreamEngine(
            [definition_of(window) for window in windows],
            DeviceRules(**settings.devices.model_dump()),
            settings.topics.shards,
        )
        self.engine.registry.away = self._eviction.cold.count
        self.engine.registry.recall = self._recall
        self._eviction.stay()
        self._shelving.attach(self.engine)
        self._derive = Derivations(windows)
        self.watch.clear()
        self._adopt(settings)

    def _adopt(self, settings: Settings) -> None:
        """Take the catalogue and the fingerprint of settings."""
        self._settings = settings
        self._adopted = self._course.partition_id
        self._fingerprint = settings.fingerprint()
        self._decoder = RecordDecoder(
            settings.metrics,
            settings.gateway.max_rows,
            self.engine.registry.concat,
            settings.codecs,
        )
        self._in_force = self._course.names(self._windows)

    # -- PartitionLogic -----------------------------------------------------------------

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Take the next records of ``readings``; see :class:`PartitionLogic`."""
        out: list[Produce] = []
        if records:
            self._dirty_since = min(self._dirty_since, records[0].offset)
        begin = 0
        headed = any(map(attrgetter("headers"), records))  # Most often none has any.
        for at in [i for i, r in enumerate(records) if is_time_marker(r)] if headed else ():
            out += self._fold_records(records[begin:at])
            self._read_clock(records[at : at + 1])
            out += self._emit(self.engine.advance(self._clock.now_ms, records[at].offset))
            self._change(records[at])
            self._label(records[at])
            begin = at + 1
        return out + self._fold_records(records[begin:] if begin else records)

    def dirty(self) -> Mapping[str, int]:
        """Return the dirty shards, and the partition's own entry."""
        since = self.engine.dirty_since
        dirty = {str(s): int(since[s]) for s in np.flatnonzero(since != NEVER).tolist()}
        if self._dirty_since != NEVER:
            dirty[PARTITION_KEY] = self._dirty_since
        return dirty

    def snapshot(self, key: str) -> bytes:
        """Return the state of a shard, or of the partition itself, and mark it clean."""
        if key == PARTITION_KEY:
            self._dirty_since = NEVER
            return shard_codec.encode(
                {"clock_ms": self._clock.now_ms, "config": self._course.partition_id}
            )
        return shard_codec.encode(self._state_of(int(key)))

    def _state_of(self, shard: int) -> dict[str, Any]:
        self.engine.dirty_since[shard] = NEVER
        state = self._take(np.flatnonzero(self.engine.registry.devices["shard"] == shard))
        state["clock_ms"] = self._clock.now_ms
        state["config"] = self._course.id_of(shard)
        state["shelves"] = self._shelving.shelves.state(shard)
        state["labels"] = self.watch.feedback.of_shard(shard)
        return state

    def _take(self, devices: Int64) -> dict[str, Any]:
        state = snapshots.take(self.engine, devices)
        series = snapshots.series_of(self.engine, devices)
        state |= self.watch.take(series)
        state["shelved_until_ms"] = self._shelving.until_ms(self.engine, series)
        state["since"] = self._told.of_devices(self.engine, devices)
        return state

    def restore(self, key: str, stamp: int, state: bytes) -> None:
        """Load a snapshot.

        :raises StateError: if it was written by another version or with other windows.
        """
        loaded = shard_codec.decode(state)
        self._clock.learn(stamp, loaded["clock_ms"])
        try:
            shard = None if key == PARTITION_KEY else int(key)
            more = self._course.join(shard, loaded)
            if contradicts(self._windows, more):
                raise StateError("a window has another definition than the topic config has")
            if len(windows := united(self._windows, more)) > len(self._windows):
                self._rebuild(windows)
            if shard is None:
                self._stamp = stamp
            else:
                if self._course.may_differ:
                    loaded = adapted(loaded, self._windows, self._settings.topics.shards)
                self._load(shard, loaded)
                self._shelving.shelves.restore(shard, loaded.get("shelves", []))
                self.engine.stamps[shard] = stamp
        except ValueError as error:
            raise StateError(f"readings, partition {self._partition}: {error}") from error
        if self._course.partition_id != self._adopted:
            self._adopt(in_force(self._settings, self._course.of_partition))

    def _load(self, shard: int, loaded: dict[str, Any]) -> None:
        self._told.restore(loaded.get("since", {}))
        if "labels" in loaded:  # Not in the state of devices that were away, nor in older ones.
            self.watch.feedback.restore(shard, loaded["labels"])
        series = snapshots.put(self.engine, shard, loaded)
        self.watch.put(series, loaded)
        if "shelved_until_ms" in loaded:
            self._shelving.learn(self.engine, series, loaded["shelved_until_ms"])

    # -- devices that are away (Evicting) --------------------------------------------------

    def connect(self, fetch: Callable[[str], bytes]) -> None:
        """See :class:`~streams.ports.Evicting`."""
        self._eviction.connect(fetch)
        self._shelving.connect(fetch)

    def leave(self) -> Sequence[Segment]:
        """See :class:`~streams.ports.Evicting`."""
        now_ms, shelving = self._clock.now_ms, self._shelving
        windows = shelving.leave(self.engine, now_ms)
        may = partial(shelving.may_leave, self.engine)
        return [*windows, *self._eviction.leave(self.engine, now_ms, may, self._take)]

    def left(self, segments: Iterable[str]) -> None:
        """See :class:`~streams.ports.Evicting`."""
        segments = list(segments)
        self._shelving.left(self.engine, segments)
        devices = self._eviction.left(self.engine, segments)
        if not len(devices):
            return
        self._told.forget(self.engine.registry.keys_of(devices))
        self._shelving.forget(devices)
        self.watch.forget(np.flatnonzero(self.engine.forget(devices)))
        _EVICTED.inc(len(devices))

    def segments(self, key: str) -> Sequence[str]:
        """See :class:`~streams.ports.Evicting`."""
        if key == PARTITION_KEY:
            return []
        shelves = self._shelving.shelves.of(int(key))
        return [*self._eviction.cold.segments(int(key)), *(shelf.id for shelf in shelves)]

    def shelved(self, key: str, segments: Sequence[str]) -> None:
        """See :class:`~streams.ports.Evicting`."""
        reg, shard = self.engine.registry, int(key)
        here = reg.keys_of(np.flatnonzero(reg.devices["shard"] == shard))
        windows = {shelf.id for shelf in self._shelving.shelves.of(shard)}
        devices = [name for name in segments if name not in windows]
        self._eviction.shelved(shard, devices, here)

    def _recall(self, named: Sequence[tuple[str, str]]) -> None:
        for shard, state in self._eviction.back(named, self.engine, self._fitting):
            self._load(shard, state)
            _RETURNED.inc(len(state["names"]))

    def _fitting(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the state of devices that were away as it fits the windows of now."""
        state = {**state, "since": {**state["since"], **since_return(state, self._windows)}}
        return adapted(state, self._windows, self._settings.topics.shards)

    # -- settings that change --------------------------------------------------------------

    def _change(self, record: LogRecord) -> None:
        """Take the settings that a marker names, for the shards that stand before it."""
        document = self._documents.get(marker_of(record) or "")
        if document is None or document.revision == 0:
            return
        stamps = self.engine.stamps
        live = [s for s in self._course.before(document) if stamps[s] < record.offset]
        if not live:
            return
        if contradicts(self._windows, document.windows()):
            _log.error("not taken: a window has another definition here", document=document.id)
            return
        for shards, added in self._course.added(live, document, self._windows):
            self._told.learn(since_now(self.engine, added, shards.__contains__))
        self._course.move(live, document)
        self._rebuild(united(*self._course.windows()))
        self._told.forget_all_but([window.name for window in self._windows])
        self._adopt(in_force(self._settings, document))
        # Every shard is stored with what it has now before the position may pass the marker.
        np.minimum(self.engine.dirty_since, record.offset, out=self.engine.dirty_since)
        self._dirty_since = min(self._dirty_since, record.offset)
        _log.info("settings changed", partition=self._partition, document=document.id)

    def _label(self, record: LogRecord) -> None:
        """Heed what an operator said of a series, unless its shard has done so before."""
        shard = self.watch.hear(record, self.engine.stamps)
        if shard is not None:
            self.engine.dirty_since[shard] = min(self.engine.dirty_since[shard], record.offset)

    def _rebuild(self, windows: Sequence[Window]) -> None:
        """Put all state into an engine with other windows."""
        old, n = self.engine, self._settings.topics.shards
        dirty, stamps = old.dirty_since.copy(), old.stamps.copy()
        shards = old.registry.devices["shard"]
        there = np.unique(shards[shards != FREE]).tolist()
        states = {shard: self._state_of(shard) for shard in there}
        self._build(windows)
        for shard, state in states.items():
            self._load(shard, adapted(state, windows, n))
        self.engine.dirty_since[:], self.engine.stamps[:] = dirty, stamps

    def wants_time(self) -> bool:
        """Whether a device has open windows that an idle rule will emit."""
        return self.engine.next_deadline_ms() != NEVER

    # -- records ------------------------------------------------------------------------

    def _fold_records(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Fold records between time markers."""
        if not records:
            return []
        decoded = self._decoder.decode(records)
        offset, clock_ms = self._read_clock(records)
        out = [made for refused in decoded.refused for made in self._reject(records, refused)]
        if len(decoded.at):
            at = decoded.at
            out += self._fold_rows(
                LogRows(decoded.readings, offset[at], decoded.row(), clock_ms[at])
            )
        return out

    def _read_clock(self, records: Sequence[LogRecord]) -> tuple[Int64, Int64]:
        """Return the offsets of some records, and the log's time at each."""
        n = len(records)
        first = records[0].offset
        if records[-1].offset - first == n - 1:  # Then there is no gap: offsets ascend.
            offset = np.arange(first, first + n)
        else:
            offset = np.fromiter(map(attrgetter("offset"), records), np.int64, n)
        log_ms = np.fromiter(map(attrgetter("timestamp"), records), np.int64, n)
        return offset, self._clock.read(offset, log_ms)

    def _fold_rows(self, rows: LogRows) -> list[Produce]:
        out: list[Produce] = []
        batch = self.engine.fold(rows)
        self._note_limits()
        for folded in batch:
            out += self._emit(folded.results)
            out += self._detect(folded)
            out += explain_rows(folded, self._partition, self._max_bytes)
            for limit in folded.beyond.values():
                _BEYOND.labels(limit).inc()
            counts = np.bincount(folded.verdict, minlength=len(Class))
            for kind in Class:
                if counts[kind]:
                    _READINGS.labels(kind.name.lower()).inc(int(counts[kind]))
        return out

    def _note_limits(self) -> None:
        """Show how often windows have met the limit of what they keep."""
        for w, definition in enumerate(self.engine.definitions):
            met = {
                "refused": int(self.engine.refused[w]),
                "dropped": self.engine.operators[w].given_up(),
            }
            for what, count in met.items():
                shown = self._limits.get((w, what), 0)
                if count > shown:
                    _GIVEN_UP.labels(definition.name, what).inc(count - shown)
                    self._limits[w, what] = count

    def _emit(self, emitted: list[WindowResults]) -> list[Produce]:
        told = [self._told.select(part, self.engine, self._in_force) for part in emitted]
        told = [part for part in told if len(part)]
        for part in told:
            _RESULTS.labels(part.reason[0]).inc(len(part))
        return [self._frame(AGGREGATES, self._derive(part)) for part in told]

    def _frame(self, topic: str, content: WindowResults | Scores) -> Produce:
        value = results.encode(content, code=VERSION, settings=self._fingerprint)
        return Produce(topic, value, None, self._partition, self._headers)

    def _reject(self, records: Sequence[LogRecord], refused: Refused) -> list[Produce]:
        record, source = records[refused.at], refused.source
        if record.offset <= self._stamp:
            return []
        _POISON.inc()
        return [
            rejected_from_log(
                record,
                refused.error,
                topic=READINGS,
                partition=self._partition,
                max_bytes=self._max_bytes,
                tenant=source.tenant if source else None,
                site=source.site if source else None,
                device=source.device if source else None,
            )
        ]

    def _detect(self, folded: Folded) -> list[Produce]:
        if not len(folded.rows):
            return []
        scores = self.watch.scores(folded, self.engine.registry, self._settings.metrics)
        if scores is None:
            return []
        _SCORES.inc(len(scores))
        return [self._frame(ANOMALIES, scores)]
