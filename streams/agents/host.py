"""Runs a :class:`PartitionLogic` against Kafka: fold, emit, checkpoint, commit.

For each assigned partition the host keeps one *run*: the logic, the position reached, and what
was produced since the last checkpoint. A checkpoint goes in this order, and a failure in it
stops the worker, so that nothing is ever committed that was not stored:

1. the broker's acknowledgement of every result produced up to offset X is awaited;
2. dirty pieces of state, each stamped X, are written to the Faust table;
3. the acknowledgement of each of these records is awaited;
4. the position is committed: the first offset that a piece still dirty has folded, or X + 1.

A checkpoint stores a slice of what is dirty at a time, each with its own offset, and folding goes
on while it waits for acknowledgements: so no checkpoint stalls the stream. Every assignment
discards the partition's memory and loads the stored pieces again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import faust
from aiokafka.errors import IllegalStateError
from faust.types import TP, EventT
from prometheus_client import Counter, Gauge, Histogram

from streams.adapters.record_batches import Begin, Consumer
from streams.adapters.shard_table import ShardStore, ShardTable, acknowledged
from streams.agents.continuity import Continuity, Step
from streams.errors import StateError
from streams.log import get_logger
from streams.ports import (
    TIME_MARKER_HEADER,
    Evicting,
    LogicFactory,
    LogRecord,
    PartitionLogic,
    Produce,
    Showing,
)

_log = get_logger(__name__)

_RECORDS = Counter("headwater_host_records", "Records folded.", ["topic"])
_LAG = Gauge("headwater_host_lag_records", "Records not yet folded.", ["topic", "partition"])
_CHECKPOINT_S = Histogram("headwater_host_checkpoint_seconds", "Duration of a checkpoint.")
_STATE_BYTES = Counter("headwater_host_state_bytes", "Bytes of state written.", ["topic"])
_REREAD = Counter("headwater_host_rereads", "Times a reader was sent back.", ["topic"])
_MISSING = Counter(
    "headwater_host_missing_offsets", "Offsets that the log no longer holds.", ["topic"]
)
_MARKERS = Counter("headwater_host_time_markers", "Time markers appended.", ["topic"])
BeforeFold = Callable[[Sequence[LogRecord]], Awaitable[None]]
Stored = tuple[bytes, Sequence[str]]
"""A snapshot, and the segments that belong with it."""
_EVICTIONS = 16
"""Most rounds of eviction behind one checkpoint."""
_MOST_OF_TIME = 0.1
"""Share of the time that snapshots of all partitions may take: beyond it they come less often."""


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True)
class Run:
    """One assignment of one partition."""

    tp: TP
    generation: int
    logic: PartitionLogic
    store: ShardStore
    position: Continuity
    pending: list[asyncio.Future[Any]] = field(default_factory=list)
    sent: asyncio.Event = field(default_factory=_set)
    """Not set while results of what was folded are on their way into *pending*."""
    checkpoint: asyncio.Task[None] | None = None
    due_at: float = 0.0
    heard_at: float = 0.0


@dataclass(frozen=True, slots=True)
class HostOptions:
    """Pace of a host; see ``Worker`` in the settings."""

    checkpoint_ms: int
    silent_ms: int
    slice_ms: int = 10
    """A checkpoint takes snapshots for so long, and lets the stream go on before it takes more."""
    stalled_ms: int = 2_000
    """A partition that is behind and brings nothing for so long is read again."""


class PartitionHost:
    """Owns the runs of one topic; made by :func:`streams.app.attach`."""

    def __init__(
        self,
        app: faust.App,
        topic: str,
        factory: LogicFactory,
        table: ShardTable,
        options: HostOptions,
        *,
        before_fold: BeforeFold | None = None,
    ) -> None:
        """Make a host.

        :param before_fold: awaited with what is about to be folded.
        """
        self._app = app
        self._topic = topic
        self._factory = factory
        self._table = table
        self._options = options
        self._before_fold = before_fold
        self._runs: dict[int, Run] = {}
        self._opening = asyncio.Lock()
        self._begin: tuple[int, Mapping[TP, Begin]] = (-1, {})
        self._closed = False

    async def take(self, event: EventT[Any]) -> None:
        """Fold one batch of records and produce what the logic makes of it.

        What comes while partitions are assigned and restored is let go: it is read again after.
        """
        if self._closed or self._app.rebalancing:
            return
        message = event.message
        run = await self._run_of(message.tp, message.generation_id or 0)
        records = cast(list[LogRecord], message.value)
        if run is None or not await self._follows(run, records[0].offset):
            return
        fresh = _from(records, run.position.expected)
        if not fresh:
            return
        if self._before_fold is not None:
            await self._before_fold(fresh)
            if self._runs.get(message.tp.partition) is not run:
                return
        made = run.logic.fold(fresh)
        run.position.advance(fresh[-1].offset + 1)
        run.heard_at = time.monotonic()
        run.sent.clear()
        for produce in made:
            run.pending.append(await self._send(produce))
        run.sent.set()
        _RECORDS.labels(self._topic).inc(len(fresh))
        self._maybe_checkpoint(run)

    async def tick(self) -> None:
        """Checkpoint what is due, and append time markers to silent partitions that need time."""
        if self._closed:
            return
        generation = self._app.consumer_generation_id
        now = time.monotonic()
        for tp in self._app.consumer.assignment():
            if tp.topic != self._topic:
                continue
            run = await self._run_of(tp, generation)
            if run is None or tp not in self._app.consumer.assignment():
                return  # It went to another worker meanwhile; the next tick sees what is left.
            behind = self._behind(run)
            _LAG.labels(self._topic, str(run.tp.partition)).set(behind)
            self._maybe_checkpoint(run)
            silent_ms = (now - run.heard_at) * 1000 if run.sent.is_set() else 0.0
            if behind and silent_ms >= self._options.stalled_ms:
                run.heard_at = now
                await self._catch_up(run, run.position.expected + behind)
            elif not behind and silent_ms >= self._options.silent_ms and run.logic.wants_time():
                run.heard_at = now
                _MARKERS.labels(self._topic).inc()
                marker = {TIME_MARKER_HEADER: b"1"}
                await self._send(Produce(self._topic, b"", None, run.tp.partition, marker))

    def forget(self) -> None:
        """Discard all memory: partitions were revoked or assigned anew."""
        for run in self._runs.values():
            if run.checkpoint is not None:
                run.checkpoint.cancel()
            if isinstance(run.logic, Showing):
                run.logic.forget_shown()
            # Another worker tells how far behind it is, from now on.
            _LAG.remove(self._topic, str(run.tp.partition))
        self._runs.clear()
        self._begin = (-1, {})

    def close(self) -> None:
        """End for good: a checkpoint under way would fail when its consumer stops."""
        self._closed = True
        self.forget()

    async def _follows(self, run: Run, first: int) -> bool:
        """Return whether a batch follows on what was folded; send the reader back if not."""
        expected = run.position.expected
        step = run.position.judge(first, time.monotonic())
        if step is Step.FOLD:
            if first > expected:
                _MISSING.labels(self._topic).inc(first - expected)
                _log.warning(
                    "the log has a gap: records were removed before they were read",
                    topic=self._topic,
                    partition=run.tp.partition,
                    expected=expected,
                    found=first,
                )
            return True
        if step is Step.SEEK:
            await self._read_again(run)
        return False

    async def _catch_up(self, run: Run, end: int) -> None:
        """Find out why nothing comes although the log goes on to *end*."""
        reached = cast(Consumer, self._app.consumer).reached(run.tp)
        if reached is None or reached <= run.position.expected:
            return  # It is still to be fetched.
        if reached >= end and run.position.ends_in_a_gap(end):
            # Markers of transactions: nothing comes behind them that would show the gap.
            run.position.advance(end)
        else:
            # Faust let the last batch fall: no later one comes that would show the gap.
            await self._read_again(run)

    async def _read_again(self, run: Run) -> None:
        _REREAD.labels(self._topic).inc()
        _log.info("reading again", tp=str(run.tp), expected=run.position.expected)
        try:
            await self._app.consumer.seek_wait({run.tp: run.position.expected})
        except IllegalStateError:
            _log.info("not ours any more", tp=str(run.tp))

    async def _run_of(self, tp: TP, generation: int) -> Run | None:
        """Return the run of a partition; ``None`` if its assignment is over or not yet restored."""
        async with self._opening:
            run = self._runs.get(tp.partition)
            if run is None or run.generation != generation:
                begin = await self._begin_of(tp, generation)
                # Asked behind the last wait: what is restored now stays so while it is loaded.
                if self._app.rebalancing or self._app.consumer_generation_id != generation:
                    return None
                if run is not None and run.checkpoint is not None:
                    run.checkpoint.cancel()
                run = self._runs[tp.partition] = self._open(tp, generation, begin)
            return run

    def _open(self, tp: TP, generation: int, begin: Begin) -> Run:
        """Load the stored pieces of a partition.

        :raises StateError: if they end before the committed position: a part of them is gone.
        """
        partitions = self._app.consumer.topic_partitions(self._topic) or tp.partition + 1
        logic = self._factory(tp.partition, partitions)
        store = ShardStore(self._table, tp.partition, os.urandom(8).hex().encode())
        pieces = store.load()
        newest = max((piece.stamp for piece in pieces), default=-1)
        # A position is committed after the pieces stamped just before it are in the changelog.
        if begin.committed and begin.offset > newest + 1:
            raise StateError(_lost(tp, begin.offset, newest, self._table.changelog_topic_name))
        if isinstance(logic, Evicting):
            logic.connect(store.segment)
        for piece in pieces:
            logic.restore(piece.key, piece.stamp, piece.state)
            if piece.segments and isinstance(logic, Evicting):
                logic.shelved(piece.key, piece.segments)
        _log.info(
            "partition opened",
            topic=tp.topic,
            partition=tp.partition,
            offset=begin.offset,
            pieces=len(pieces),
            newest_stamp=newest,
        )
        position = Continuity(begin.offset)
        return Run(tp, generation, logic, store, position, heard_at=time.monotonic())

    async def _begin_of(self, tp: TP, generation: int) -> Begin:
        """Return where *tp* begins; asked once per assignment, for all partitions of the topic."""
        if self._begin[0] != generation or tp not in self._begin[1]:
            consumer = cast(Consumer, self._app.consumer)
            mine = {other for other in consumer.assignment() if other.topic == tp.topic}
            self._begin = generation, await consumer.begin_offsets({tp, *mine})
        return self._begin[1][tp]

    async def _send(self, produce: Produce) -> asyncio.Future[Any]:
        headers: Mapping[str, bytes] = produce.headers
        sent = await self._app.producer.send(
            produce.topic,
            produce.key,
            produce.value,
            produce.partition,
            timestamp=None,
            headers=dict(headers),
        )
        return cast("asyncio.Future[Any]", sent)

    def _behind(self, run: Run) -> int:
        end = self._app.consumer.highwater(run.tp)
        return max(0, int(end) - run.position.expected) if end is not None else 1

    def _maybe_checkpoint(self, run: Run) -> None:
        now = time.monotonic()
        if run.checkpoint is not None and run.checkpoint.done():
            run.checkpoint = None
        if self._closed:
            return
        if run.checkpoint is None and now >= run.due_at and run.logic.dirty():
            run.checkpoint = asyncio.create_task(self._guarded(run), name=f"checkpoint {run.tp}")

    async def _guarded(self, run: Run) -> None:
        try:
            await self._checkpoint(run)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 any failure here must stop the worker
            if self._runs.get(run.tp.partition) is run:
                _log.error("checkpoint failed", partition=run.tp.partition, error=repr(error))
                await self._app.crash(error)

    async def _checkpoint(self, run: Run) -> None:
        """Store all that is dirty by now, the oldest first, slice by slice."""
        started, busy_s = time.monotonic(), 0.0
        oldest = sorted(run.logic.dirty().items(), key=lambda item: item[1])
        waiting = deque(key for key, _ in oldest)
        while waiting:
            while not run.sent.is_set():
                await run.sent.wait()
            # From here to the snapshots nothing is awaited: they belong to one offset.
            stamp = run.position.expected - 1
            pending, run.pending = run.pending, []
            states, took_s = self._snapshots(run, waiting)
            busy_s += took_s
            position = min(run.logic.dirty().values(), default=stamp + 1)
            await acknowledged(pending)
            if self._runs.get(run.tp.partition) is not run:
                return
            written = [run.store.write(k, stamp, *state) for k, state in states.items()]
            await acknowledged(future for w in written for future in w.futures)
            if not await cast(Consumer, self._app.consumer).commit_position(run.tp, position):
                return
            run.store.remove(raw for w in written for raw in w.stale)
            _STATE_BYTES.labels(self._topic).inc(sum(len(state) for state, _ in states.values()))
        busy_s += await self._evict(run)
        pause_s = max(self._options.checkpoint_ms / 1000, busy_s * len(self._runs) / _MOST_OF_TIME)
        run.due_at = started + pause_s
        _CHECKPOINT_S.observe(time.monotonic() - started)

    async def _evict(self, run: Run) -> float:
        """Let parts leave memory, once they are stored; return the CPU seconds that it took."""
        logic, stored, busy_s = run.logic, list[str](), 0.0
        if not isinstance(logic, Evicting):
            return busy_s
        for _ in range(_EVICTIONS):
            began_cpu = time.thread_time()
            leaving = logic.leave()
            busy_s += time.thread_time() - began_cpu
            if not leaving:
                break
            stamp = run.position.expected - 1
            futures = [
                future
                for part in leaving
                for future in run.store.write_segment(part.key, part.id, stamp, part.state)
            ]
            await acknowledged(futures)
            if self._runs.get(run.tp.partition) is not run:
                return busy_s
            stored += [part.id for part in leaving]
            _STATE_BYTES.labels(self._topic).inc(sum(len(part.state) for part in leaving))
        logic.left(stored)
        return busy_s

    def _snapshots(self, run: Run, waiting: deque[str]) -> tuple[dict[str, Stored], float]:
        """Take the snapshots of one slice; return them, and the CPU seconds that it took."""
        began, began_cpu = time.monotonic(), time.thread_time()
        states: dict[str, Stored] = {}
        while waiting and (time.monotonic() - began) * 1000 < self._options.slice_ms:
            key = waiting.popleft()
            state = run.logic.snapshot(key)
            named = run.logic.segments(key) if isinstance(run.logic, Evicting) else ()
            states[key] = state, named
        # Not by the clock: what others did in between must not put off the next checkpoint.
        return states, time.thread_time() - began_cpu


def _from(records: list[LogRecord], expected: int) -> list[LogRecord]:
    """Leave out what was folded already: after reading again, a batch may begin before it."""
    if records[0].offset >= expected:
        return records
    return [record for record in records if record.offset >= expected]


def _lost(tp: TP, position: int, newest: int, changelog: str) -> str:
    return (
        f"{tp.topic}, partition {tp.partition}: reading goes on at offset {position}, but the "
        f"stored state ends at {newest}: records of the changelog {changelog} are gone; bring them "
        "back, or take a new id for the process (worker.id, rollup.id), which reads the log again "
        "(docs/upgrading.md)"
    )
