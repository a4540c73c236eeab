"""The stream engine of one partition: readings in, window results and verdicts out.

Theory of operation. Rows come in log order, each with the offset and log time of its record.
For a batch the engine decides, column by column:

1. *identity*: a row seen before is a duplicate (by boot and seq, or by metric and time);
2. *plausibility*: a row too far in the future of its receipt is quarantined;
3. *time*: every row is judged against its device's watermark **just before that row**, which
   is the greatest event time the device has shown, less its allowed disorder;
4. *windows*: the operator of each window definition folds the rows that it still takes; into
   a window that has closed already it is a correction;
5. *emission*: windows whose close the watermark has passed, and corrected ones, are emitted.

The engine reads no clock. Log time moves only with the records, and the idle rules fire at
their exact deadline: what they tell is what was known of the device at that time. So the results
of a run, of its replay, and of any other batching of the same log are the same, to the bit.

Shards exist only for storage: a snapshot takes one shard's devices out, a restore adds them
under new indices, and rows at or below a shard's stamp are skipped for that shard alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from streams.core.aggregates import Rows
from streams.core.classes import COLUMNS, UNIDENTIFIED, Class
from streams.core.identities import Identities
from streams.core.index import ABSENT as NOWHERE
from streams.core.numbering import GIVEN_UP, SEEN
from streams.core.operators import operator_for
from streams.core.placement import shard_of
from streams.core.readings import (
    ABSENT,
    ELSEWHERE,
    TIME_OF_RECEIPT,
    Bool,
    Int32,
    Int64,
    Readings,
    UInt8,
)
from streams.core.registry import FREE, NEVER, Registry
from streams.core.results import WindowResults
from streams.core.segments import TIME_LIMIT_MS, distinct, running_max_before
from streams.core.sequences import Sequences
from streams.core.windows import Window

_NO_STAMP = -1
TOO_MANY_DEVICES = "too-many-devices"
TOO_MANY_METRICS = "too-many-metrics"


@dataclass(frozen=True, slots=True)
class DeviceRules:
    """How time and identity of devices are judged; all in milliseconds or counts."""

    disorder_ms: int
    skew_ms: int
    idle_ms: int
    idle_final_ms: int
    max_seq_holes: int
    max_identities: int
    max_devices: int
    """Per shard."""
    max_metrics: int
    """Per device."""


@dataclass(frozen=True, slots=True)
class LogRows:
    """Readings with their place in the log: ``offset``, ``row`` within the record, log time.

    ``kafka_ms`` is the running maximum of the partition's log times and never descends.
    """

    readings: Readings
    offset: Int64
    row: Int32
    kafka_ms: Int64

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, rows: Int64 | Bool) -> LogRows:
        """Select rows by index or mask."""
        return LogRows(
            self.readings.take(rows), self.offset[rows], self.row[rows], self.kafka_ms[rows]
        )


@dataclass(frozen=True, slots=True)
class Folded:
    """What became of a batch.

    ``rows`` are those that were judged (rows at or below a stamp are left out), ``verdict``
    uint8 their :class:`Class`, ``series`` int32 their dense series. ``results`` are in order of
    emission. ``beyond`` names the limit that refused a row, for those that one did. ``late`` is
    bool[n, definitions]: rows that came too late for a definition; None if none did.
    """

    rows: LogRows
    verdict: UInt8
    series: Int32
    results: list[WindowResults]
    beyond: dict[int, str] = field(default_factory=dict)
    late: Bool | None = None


class StreamEngine:
    """See the module's docstring. One instance per assigned partition."""

    def __init__(self, definitions: Sequence[Window], rules: DeviceRules, shards: int) -> None:
        self.definitions = tuple(definitions)
        self.rules = rules
        self.shards = shards
        self.registry = Registry(shards, self.definitions, rules.max_devices, rules.max_metrics)
        self.operators = [operator_for(d, self.registry) for d in self.definitions]
        self.sequences = Sequences(rules.max_seq_holes)
        self.identities = Identities(rules.max_identities)
        self.refused = np.zeros(len(self.definitions), np.int64)
        """Since the start: readings that a definition did not take because of its limit."""
        self.late_for = np.zeros((0, len(self.definitions)), np.int64)
        self.stamps = np.full(shards, _NO_STAMP, np.int64)
        self.dirty_since = np.full(shards, NEVER, np.int64)
        self._memory_ms = rules.disorder_ms + max((d.reach_ms for d in self.definitions), default=0)

    # -- time ---------------------------------------------------------------------------

    def next_deadline_ms(self) -> int:
        """Return the log time at which the next idle rule fires, ``NEVER`` if none waits."""
        deadlines = self.registry.devices["deadline_ms"]
        return int(deadlines.min()) if len(deadlines) else NEVER

    def advance(self, log_ms: int, offset: int) -> list[WindowResults]:
        """Fire the idle rules whose deadline lies before log time *log_ms*.

        :param offset: of the record that carries this time; shards stamped at or after it
            have fired already.
        """
        if self.next_deadline_ms() >= log_ms:
            return []
        devices = self.registry.devices
        live = self.stamps[devices["shard"]] < offset
        due = np.flatnonzero(live & (devices["deadline_ms"] < log_ms))
        self._touch(np.unique(devices["shard"][due]), offset)
        return self._fire(due, np.full(len(due), log_ms))

    def _fire(self, devices: Int64, log_ms: Int64) -> list[WindowResults]:
        """Fire the idle rules of some devices, each up to its own log time."""
        results: list[WindowResults] = []
        while True:
            due = self.registry.devices["deadline_ms"][devices] < log_ms
            if not due.any():
                return results
            devices, log_ms = devices[due], log_ms[due]
            results += self._idle(devices)

    def _idle(self, quiet: Int64) -> list[WindowResults]:
        """Emit open windows of quiet devices: provisional, then for good at the final deadline."""
        devices, rules = self.registry.devices, self.rules
        final_at = devices["log_ms"][quiet] + max(rules.idle_ms, rules.idle_final_ms)
        is_final = devices["deadline_ms"][quiet] >= final_at
        soft, final = quiet[~is_final], quiet[is_final]
        results: list[WindowResults] = []
        for operator in self.operators:
            results += operator.show(soft)
            results += operator.finish(final)
        devices["deadline_ms"][soft] = final_at[~is_final]
        devices["deadline_ms"][final] = NEVER
        return results

    # -- rows ---------------------------------------------------------------------------

    def fold(self, rows: LogRows) -> list[Folded]:
        """Take the next rows of the log.

        A device's idle rules fire before its first row whose log time passes their deadline, and
        for devices without rows at the end: only that much order can be told from the results, so
        quiet devices do not cut a batch into pieces.
        """
        folded: list[Folded] = []
        start = 0
        while start < len(rows):
            # No deadline that these rows set is passed by one of them.
            until = int(rows.kafka_ms[start]) + self.rules.idle_ms
            stop = int(np.searchsorted(rows.kafka_ms, until, side="right"))
            whole = start == 0 and stop == len(rows)
            piece = self._fold_piece(rows if whole else rows.take(np.arange(start, stop)))
            last = stop - 1
            piece[0].results.extend(self.advance(int(rows.kafka_ms[last]), int(rows.offset[last])))
            folded += piece
            start = stop
        return folded

    def _fold_piece(self, rows: LogRows) -> list[Folded]:
        device = self.registry.intern_devices(rows.readings)
        known = device != NOWHERE
        if known.all():
            return [self._fold_known(rows, device)]
        refused = self._turn_away(rows.take(~known))
        return [self._fold_known(rows.take(known), device[known]), refused]

    def _turn_away(self, rows: LogRows) -> Folded:
        """Refuse rows of devices for which their shard has no room."""
        tenant, device = rows.readings.tenant, rows.readings.device
        shard = [shard_of(tenant[i], device[i], self.shards) for i in range(len(rows))]
        rows = rows.take(rows.offset > self.stamps[shard])
        n = len(rows)
        verdict = np.full(n, Class.REJECTED, np.uint8)
        return Folded(
            rows, verdict, np.zeros(n, np.int32), [], dict.fromkeys(range(n), TOO_MANY_DEVICES)
        )

    def _fold_known(self, rows: LogRows, device: Int32) -> Folded:
        shard = self.registry.devices["shard"][device]
        live = rows.offset > self.stamps[shard]
        if not live.all():
            rows, device, shard = rows.take(live), device[live], shard[live]
        if not len(rows):
            return Folded(rows, np.empty(0, np.uint8), np.empty(0, np.int32), [])
        self._touch_rows(shard, rows.offset)
        idle = self._wake(device, rows.kafka_ms)
        series = self.registry.intern_series(device, rows.readings.metric)
        beyond = np.flatnonzero(series == NOWHERE)
        series[beyond] = 0  # Any: a rejected row changes no series.
        verdict = self._identify(rows, device, series)
        verdict[beyond] = Class.REJECTED
        before = self._watermark_before(rows, device, verdict)
        self._apply_identities(rows, series, before, verdict)
        told, late = self._fold_windows(rows, device, series, verdict, before)
        self._count(device, rows, verdict)
        self._set_deadlines(device, rows)
        self._sweep()
        return Folded(
            rows,
            verdict,
            series,
            [*idle, *told],
            dict.fromkeys(beyond.tolist(), TOO_MANY_METRICS),
            late,
        )

    def _wake(self, device: Int32, kafka_ms: Int64) -> list[WindowResults]:
        """Fire the idle rules of devices that are heard again after their deadline."""
        if not (self.registry.devices["deadline_ms"][device] < kafka_ms).any():
            return []
        heard, first = np.unique(device, return_index=True)
        return self._fire(heard.astype(np.int64), kafka_ms[first])

    def _identify(self, rows: LogRows, device: Int32, series: Int32) -> UInt8:
        """Class every row that identity or plausibility decides; the others are ACCEPTED so far."""
        r = rows.readings
        verdict = np.full(len(rows), Class.ACCEPTED, np.uint8)
        verdict[r.t_ms > r.received_ms + self.rules.skew_ms] = Class.QUARANTINED
        numbered = np.flatnonzero(r.seq != ABSENT)
        if len(numbered):
            judged = self._by_sequence(rows, device, series, numbered)
            verdict[numbered[judged == SEEN]] = Class.DUPLICATE
            verdict[numbered[judged == GIVEN_UP]] = Class.UNVERIFIABLE
        unusable = (r.t_ms < 0) | (r.t_ms >= TIME_LIMIT_MS) | ~np.isfinite(r.value)
        if r.text:
            unusable[list(r.text)] = (r.t_ms[list(r.text)] < 0) | (
                r.t_ms[list(r.text)] >= TIME_LIMIT_MS
            )
        verdict[unusable] = Class.REJECTED
        return verdict

    def _by_sequence(self, rows: LogRows, device: Int32, series: Int32, at: Int64) -> UInt8:
        """Judge numbered rows: a message is new as a whole, in the first record that brings it."""
        d, r = device[at], rows.readings
        boot, seq, offset = r.boot[at], r.seq[at], rows.offset[at]
        order = np.lexsort((seq, boot, d))
        first = np.empty(len(at), np.bool_)
        first[0] = True
        first[1:] = (
            (np.diff(d[order]) != 0) | (np.diff(boot[order]) != 0) | (np.diff(seq[order]) != 0)
        )
        heads = order[first]
        message = np.empty(len(at), np.int64)
        message[order] = np.cumsum(first) - 1
        arrival = np.argsort(heads, kind="stable")
        heads = heads[arrival]
        verdict = np.empty(len(arrival), np.uint8)
        verdict[arrival] = self.sequences.see(d[heads], boot[heads], seq[heads])
        judged = verdict[message]
        heads_offset = np.empty(len(arrival), np.int64)
        heads_offset[arrival] = offset[heads]
        judged[(offset != heads_offset[message]) & (judged != GIVEN_UP)] = SEEN
        # A message holds a metric and time once: a second one in its record is a redelivery
        # that the gateway has put into the same frame.
        several = np.flatnonzero(np.bincount(message)[message] > 1)
        of, kind, t_ms = message[several], series[at][several], r.t_ms[at][several]
        key = np.lexsort((t_ms, kind, of))
        same = np.zeros(len(at), np.bool_)
        same[several[key[1:]]] = (
            (np.diff(of[key]) == 0) & (np.diff(kind[key]) == 0) & (np.diff(t_ms[key]) == 0)
        )
        judged[same & (judged != GIVEN_UP)] = SEEN
        return judged

    def _watermark_before(self, rows: LogRows, device: Int32, verdict: UInt8) -> Int64:
        """Return each row's watermark just before it (negative: none), and raise the devices'."""
        devices, t_ms = self.registry.devices, rows.readings.t_ms
        eligible = verdict == Class.ACCEPTED
        greatest = running_max_before(device, t_ms, devices["max_t_ms"], eligible)
        np.maximum.at(devices["max_t_ms"], device[eligible], t_ms[eligible])
        return np.where(greatest < 0, np.int64(-1), greatest - self.rules.disorder_ms)

    def _apply_identities(
        self, rows: LogRows, series: Int32, before: Int64, verdict: UInt8
    ) -> None:
        """Find duplicates among rows without a seq that carry their own time.

        Looked up only within the memory (every horizon): older rows are late anyway, so it
        does not matter when exactly an old identity is forgotten.
        """
        r = rows.readings
        looked_up = (
            (r.seq == ABSENT)
            & (r.quality & TIME_OF_RECEIPT == 0)
            & (verdict != Class.REJECTED)
            & (r.t_ms > before - self._memory_ms)
        )
        at = np.flatnonzero(looked_up)
        if not len(at):
            return
        verdict[at[self.identities.see(series[at], r.t_ms[at])]] = Class.DUPLICATE
        if self.identities.is_due:
            oldest = self._watermark(self.registry.series["device"])
            self.identities.compact(oldest - self._memory_ms + 1)

    def _fold_windows(
        self, rows: LogRows, device: Int32, series: Int32, verdict: UInt8, before: Int64
    ) -> tuple[list[WindowResults], Bool | None]:
        """Fold accepted rows into windows, class LATE what no window takes, and emit.

        :returns: results, and which rows were late for which definition; None if none was.
        """
        r, reg = rows.readings, self.registry
        candidate = (verdict == Class.ACCEPTED) & np.isfinite(r.value)
        candidate &= r.quality & ELSEWHERE == 0
        member = reg.members(series) & candidate[:, None]
        late = np.zeros_like(member)
        for w, operator in enumerate(self.operators):
            late[:, w] = member[:, w] & ~operator.takes(r.t_ms, before)
        any_late = bool(late.any())
        if any_late:
            verdict[(late == member).all(axis=1) & member.any(axis=1)] = Class.LATE
            self._count_late(device, late)
        every = Rows(
            series,
            device,
            reg.intern_sites(r.site),
            r.t_ms,
            before,
            r.received_ms,
            rows.kafka_ms,
            # 0.0 for -0.0: which of the two a least value is, numpy leaves to the machine.
            r.value + 0.0,
        )
        moved = distinct(device, reg.devices.n)
        watermark = self._watermark(moved)
        results: list[WindowResults] = []
        for w, operator in enumerate(self.operators):
            taken = member[:, w] & ~late[:, w]
            if taken.any():
                refused = operator.add(every if taken.all() else every.take(taken))
                if len(refused):
                    self._count_refused(device, np.flatnonzero(taken)[refused], w)
            results += operator.emit(moved, watermark)
        return results, late if any_late else None

    # -- devices that are quiet for long -------------------------------------------------

    def quiet(self, before_ms: int) -> Int64:
        """Return the devices with nothing open that were last heard before a log time."""
        devices = self.registry.devices
        heard_ms = devices["log_ms"]
        done = (devices["deadline_ms"] == NEVER) & (devices["shard"] != FREE)
        return np.flatnonzero(done & (heard_ms >= 0) & (heard_ms < before_ms))

    def forget(self, devices: Int64) -> Bool:
        """Drop devices with nothing open, of which the caller keeps a snapshot.

        :returns: bool[series]: those whose indices others may get now.
        """
        series = self.registry.forget(devices)
        for operator in self.operators:
            operator.forget(series, devices)
        self.sequences.forget(devices)
        self.identities.forget(series)
        self.late_for[devices[devices < len(self.late_for)]] = 0
        return series

    # -- bookkeeping --------------------------------------------------------------------

    def _count(self, device: Int32, rows: LogRows, verdict: UInt8) -> None:
        r, reg = rows.readings, self.registry
        for kind in Class:
            hit = verdict == kind
            if hit.any():
                reg.count(COLUMNS[kind], device[hit])
        nameless = (
            (verdict == Class.ACCEPTED) & (r.seq == ABSENT) & (r.quality & TIME_OF_RECEIPT != 0)
        )
        reg.count(COLUMNS[UNIDENTIFIED], device[nameless])

    def _count_refused(self, device: Int32, rows: Int64, definition: int) -> None:
        """Count rows that a limit of one definition kept out as late for it."""
        self.refused[definition] += len(rows)
        late = np.zeros((len(rows), len(self.definitions)), np.bool_)
        late[:, definition] = True
        self._count_late(device[rows], late)

    def _count_late(self, device: Int32, late: Bool) -> None:
        n = self.registry.devices.n
        if len(self.late_for) < n:
            grown = np.zeros((max(64, 2 * n), late.shape[1]), np.int64)
            grown[: len(self.late_for)] = self.late_for
            self.late_for = grown
        np.add.at(self.late_for, device, late)

    def _set_deadlines(self, device: Int32, rows: LogRows) -> None:
        devices = self.registry.devices
        np.maximum.at(devices["log_ms"], device, rows.kafka_ms)
        touched = distinct(device, devices.n)
        waiting = np.zeros(len(touched), np.bool_)
        for operator in self.operators:
            waiting |= operator.has_open(touched)
        devices["deadline_ms"][touched] = np.where(
            waiting, devices["log_ms"][touched] + self.rules.idle_ms, NEVER
        )

    def _sweep(self) -> None:
        for operator in self.operators:
            operator.sweep(self._watermark)

    def _watermark(self, devices: Int32 | Int64) -> Int64:
        watermark: Int64 = self.registry.devices["max_t_ms"][devices] - self.rules.disorder_ms
        return watermark

    def _touch_rows(self, shard: Int32, offset: Int64) -> None:
        np.minimum.at(self.dirty_since, shard, offset)

    def _touch(self, shards: Int32, offset: int) -> None:
        self.dirty_since[shards] = np.minimum(self.dirty_since[shards], offset)
