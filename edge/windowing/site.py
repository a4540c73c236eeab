"""The windows of a site, by the cloud's engine and detector, from the records of its ring. Pure.

All readings of a device that has such windows go through the engine, so that numbers, watermarks
and late readings are as the cloud would see them; windows are made of the series whose filter says
so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from prometheus_client import Counter

from edge.filters import RELEASED, Filters, raw_of
from edge.windowing.account import Account
from edge.windowing.near import Near, Series, were_sent
from streams.adapters import shard_codec
from streams.agents.changing import adapted
from streams.agents.derived import Derivations
from streams.agents.detection import Watch
from streams.agents.window_definitions import definition_of
from streams.core import snapshots
from streams.core.classes import Class
from streams.core.engine import DeviceRules, Folded, LogRows, StreamEngine
from streams.core.readings import ELSEWHERE, Bool, Labels, Readings, concat_readings
from streams.core.registry import NEVER
from streams.core.results import EDGE, WindowResults
from streams.errors import StateError
from streams.log import get_logger
from streams.settings import Filter, Settings, Window

_log = get_logger(__name__)
CLOCK_KEY = "clock"
_NOT_TAKEN = (Class.LATE, Class.QUARANTINED, Class.UNVERIFIABLE, Class.REJECTED)
_READINGS = Counter(
    "headwater_edge_windowed_readings",
    "Readings whose windows the edge computes, by class; all but accepted and duplicate go up.",
    ["verdict"],
)


@dataclass(slots=True)
class Outcome:
    """What comes of some records, or of time."""

    windows: list[WindowResults] = field(default_factory=list)
    """To go up, of ``source`` edge."""
    up: list[Readings] = field(default_factory=list)
    """Raw readings that go up after all: near anomalies, or in no window."""


class SiteWindows:
    """See the module. Used from one thread."""

    def __init__(self, settings: Settings, filters: Filters) -> None:
        """Begin with no readings."""
        self._settings, self._filters = settings, filters
        self._shards = settings.topics.shards
        self._engine = StreamEngine(
            [definition_of(window) for window in settings.windows],
            DeviceRules(**settings.devices.model_dump()),
            self._shards,
        )
        self.account = Account(self._engine)
        """What went into the windows, for the ledger."""
        self._derive = Derivations(settings.windows)
        flagging = [one for one in settings.filters if one.mode == "windows-and-anomalies"]
        self._watch = Watch(settings.detection, self._shards) if flagging else None
        disorder_ms = settings.devices.disorder_ms
        keep_ms = max((one.around_ms for one in flagging), default=0) + disorder_ms
        self.near = Near(settings.edge.windows.max_around_rows, keep_ms, disorder_ms)
        self.keep_ms = keep_ms
        """How long before its place a start looks for readings near anomalies."""
        self._now_ms = 0
        self._offset = -1
        self._sent: dict[Series, set[int]] = {}
        """What went up before this start and may be found again, by event time."""

    def fold(self, records: Sequence[tuple[int, Readings]]) -> Outcome:
        """Take the next records of the ring: the time of each, and its rows."""
        out = Outcome()
        parts: list[Readings] = []
        offsets: list[int] = []
        times: list[int] = []
        for at_ms, ring in records:
            self._now_ms = max(self._now_ms, at_ms)
            self._offset += 1
            mine = self._chosen(ring)
            if len(mine):
                parts.append(mine)
                offsets.append(self._offset)
                times.append(self._now_ms)
        if not parts:
            return out
        sizes = [len(part) for part in parts]
        rows = LogRows(
            concat_readings(parts),
            np.repeat(np.asarray(offsets, np.int64), sizes),
            np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
            np.repeat(np.asarray(times, np.int64), sizes),
        )
        for folded in self._engine.fold(rows):
            self.account.count(folded)
            self._tell(folded.results, out)
            self._judge(folded, out)
        return out

    def pass_time(self, now_ms: int) -> Outcome:
        """Let the time of the ring pass: windows of quiet devices are told."""
        out = Outcome()
        self._now_ms = max(self._now_ms, now_ms)
        self._offset += 1
        self._tell(self._engine.advance(self._now_ms, self._offset), out)
        return out

    def remember(self, ring: Readings, at_ms: int) -> None:
        """Look at a record from before the place at which folding goes on: near anomalies of later
        ones its readings go up."""
        mine = self._chosen(ring)
        self.near.add(mine.take(self._flagged_with_others(mine)), at_ms)

    def note_sent(self, rings: Iterable[Readings]) -> None:
        """Note, before folding goes on, which readings the ring says have gone up after all."""
        for ring in rings:
            gone = ring.take((ring.quality & RELEASED).astype(np.bool_))
            columns = (gone.device.to_list(), gone.metric.to_list(), gone.t_ms.tolist())
            for device, metric, t_ms in zip(*columns, strict=True):
                self._sent.setdefault((device, metric), set()).add(t_ms)
        self.near.forget(self._sent)

    def is_up_to_date(self) -> None:
        """Note that what follows was not folded before."""
        self._sent = {}

    # -- state -----------------------------------------------------------------------------------

    def take_state(self) -> dict[str, bytes]:
        """Return what changed since this was called last, by key."""
        dirty = np.flatnonzero(self._engine.dirty_since != NEVER).tolist()
        state = {str(shard): shard_codec.encode(self._state(shard)) for shard in dirty}
        return state | {CLOCK_KEY: shard_codec.encode(self._clock_state())}

    def give_back(self, keys: Iterable[str]) -> None:
        """Note that state of these keys was not stored."""
        for key in keys:
            if key != CLOCK_KEY:
                self._engine.dirty_since[int(key)] = 0

    def restore(self, state: Mapping[str, bytes]) -> Outcome:
        """Load what was stored, before anything is folded.

        :returns: what is left to tell of windows that are no longer defined.
        :raises StateError: if it is damaged, of another version, or of another ``topics.shards``.
        """
        loaded = {key: shard_codec.decode(data) for key, data in state.items()}
        clock = loaded.pop(CLOCK_KEY)
        if clock["shards"] != self._shards:
            raise StateError(
                f"the windows of this edge were stored with topics.shards = {clock['shards']}, "
                f"and it is {self._shards}; it may not change while state is kept"
            )
        self._now_ms, self._offset = int(clock["now_ms"]), int(clock["offset"])
        self.near.restore(clock["spans"])
        self.account.restore(clock.get("account", []))
        out = Outcome()
        try:
            stored = [Window(**window) for window in clock["windows"]]
        except ValueError as error:
            _log.error("open windows are not told: not defined here", error=str(error))
            stored = []
        if stored and stored != list(self._settings.windows):
            settings = self._settings.model_copy(update={"windows": stored})
            self._tell_rest(SiteWindows(settings, self._filters), loaded, out)
        for key, shard in loaded.items():
            fitting = adapted(shard, self._settings.windows, self._shards)
            self._load(int(key), fitting)
        return out

    def _tell_rest(
        self, former: SiteWindows, loaded: Mapping[str, dict[str, Any]], out: Outcome
    ) -> None:
        """Tell the open windows of definitions that are gone."""
        for key, shard in loaded.items():
            former._load(int(key), shard)
        kept = {definition.written for definition in self._engine.definitions}
        devices = np.arange(former._engine.registry.devices.n)
        operators = zip(former._engine.definitions, former._engine.operators, strict=True)
        for definition, operator in operators:
            if definition.written not in kept:
                former._tell(operator.finish(devices), out)

    def _load(self, shard: int, state: dict[str, Any]) -> None:
        try:
            series = snapshots.restore(self._engine, shard, self._offset, state)
        except ValueError as error:
            raise StateError(f"the windows of this edge: {error}") from error
        if self._watch is not None and "detector" in state:
            self._watch.put(series, state)

    def _state(self, shard: int) -> dict[str, Any]:
        engine = self._engine
        devices = np.flatnonzero(engine.registry.devices["shard"] == shard)
        state = snapshots.snapshot(engine, shard)
        if self._watch is not None:
            state |= self._watch.take(snapshots.series_of(engine, devices))
        return state

    def _clock_state(self) -> dict[str, Any]:
        return {
            "now_ms": self._now_ms,
            "offset": self._offset,
            "shards": self._shards,
            "spans": self.near.state(),
            "account": self.account.state(),
            "windows": [window.model_dump(mode="json") for window in self._settings.windows],
        }

    # -- inside ----------------------------------------------------------------------------------

    def _chosen(self, ring: Readings) -> Readings:
        """Return the rows of devices that have windows here; those of their other series marked."""
        names = [self._filters.has_windows(name) for name in ring.device.values]
        raw = raw_of(ring)
        mine = raw.take(np.asarray(names, np.bool_)[raw.device.codes])
        if not len(mine):
            return mine
        plain = mine.quality & ~np.uint8(ELSEWHERE)
        quality = np.where(self._filters.windowed(mine), plain, plain | ELSEWHERE)
        return replace(mine, quality=quality.astype(np.uint8))

    def _tell(self, results: Iterable[WindowResults], out: Outcome) -> None:
        for part in results:
            if len(part):
                derived = self._derive(part)
                # There is no log of Kafka here: the latest receipt says when it was heard of last.
                source = Labels.constant(EDGE, len(part))
                told = replace(derived, source=source, kafka_ms=derived.last_received_ms)
                out.windows.append(told)

    def _judge(self, folded: Folded, out: Outcome) -> None:
        readings, verdict = folded.rows.readings, folded.verdict
        if not len(readings):
            return
        windowed = readings.quality & ELSEWHERE == 0
        for kind in Class:
            if n := int(np.count_nonzero(windowed & (verdict == kind))):
                _READINGS.labels(kind.name.lower()).inc(n)
        # What a limit refused has no windows here, so the cloud is to make them.
        refused = verdict == Class.REJECTED
        self._send(readings, windowed & refused, 0, out)
        self._send(readings, windowed & np.isin(verdict, _NOT_TAKEN) & ~refused, ELSEWHERE, out)
        if self._watch is None:
            return
        accepted = verdict == Class.ACCEPTED
        near = readings.take(self._flagged_with_others(readings) & accepted)
        for part in self.near.add(near, int(folded.rows.kafka_ms[-1])):
            self._send(part, np.ones(len(part), np.bool_), ELSEWHERE, out)
        self._flag(folded, out)

    def _flag(self, folded: Folded, out: Outcome) -> None:
        assert self._watch is not None
        scores = self._watch.scores(folded, self._engine.registry, self._settings.metrics)
        if scores is None:
            return
        flagged: dict[Series, list[int]] = {}
        columns = (scores.device.to_list(), scores.metric.to_list(), scores.t_ms.tolist())
        least = self._settings.detection.emit_score
        for device, metric, t_ms, score in zip(*columns, scores.score.tolist(), strict=True):
            spec = self._flagging(device, metric)
            if spec is not None and score >= (spec.score_over or least):
                flagged.setdefault((device, metric), []).append(t_ms)
        for (device, metric), times in flagged.items():
            spec = self._flagging(device, metric)
            assert spec is not None
            found = self.near.flag((device, metric), np.asarray(times, np.int64), spec.around_ms)
            for part in found:
                self._send(part, np.ones(len(part), np.bool_), ELSEWHERE, out)

    def _flagging(self, device: str, metric: str) -> Filter | None:
        spec = self._filters.first(device, metric)
        return spec if spec is not None and spec.mode == "windows-and-anomalies" else None

    def _flagged_with_others(self, readings: Readings) -> Bool:
        """Return which rows are of series whose anomalies go up with what is around them."""
        pairs = readings.device.codes.astype(np.int64) * len(readings.metric.values)
        unique, inverse = np.unique(pairs + readings.metric.codes, return_inverse=True)
        width = len(readings.metric.values)
        flags = [
            self._flagging(readings.device.values[p // width], readings.metric.values[p % width])
            is not None
            for p in unique.tolist()
        ]
        found: Bool = np.asarray(flags, np.bool_)[inverse] & (readings.quality & ELSEWHERE == 0)
        return found

    def _send(self, readings: Readings, rows: Bool, mark: int, out: Outcome) -> None:
        if rows.any():
            chosen = readings.take(rows)
            chosen = chosen.take(~were_sent(chosen, self._sent))
            if len(chosen):
                quality = (chosen.quality | mark).astype(np.uint8)
                out.up.append(replace(chosen, quality=quality))
