"""Record-batch transport for Faust: one event per fetched partition batch.

Faust's own path costs one event per record: about 4,300 records/s on one core. This driver
(URL scheme ``headwater://``, registered under the entry point ``faust.transports``) hands an
agent everything that one fetch brought for one partition as *one* event: its value is the
list of records, its offset the last one's. Changelogs and all other topics keep Faust's path.

Acknowledgement is by position, not by message. Faust's bookkeeping takes every skipped offset
for acknowledged as soon as a later one is, which is wrong while two batches are in flight; so
for batch topics it is switched off, and the one that checkpoints state commits the position
that its checkpoint has reached, through :meth:`Consumer.commit_position`.

Nor does Faust's memory of the last offset read apply to them: it would drop the first batches
after a seek if one from before the seek was still under way. Who folds the batches knows which
offset comes next (:mod:`streams.agents.continuity`).

Commits are only ever sent for partitions in the current assignment, and flow control,
pausing under back-pressure and seeking are the base driver's.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import dropwhile, islice
from typing import Any, ClassVar, cast

from aiokafka.consumer.fetcher import FetchResult
from faust.transport.drivers import aiokafka as base
from faust.types import TP, Message
from faust.types.transports import ConsumerT, ProducerT
from faust.types.tuples import ConsumerMessage, RecordMetadata

from streams.adapters.patience import patiently

_NEITHER_LOST_NOR_REPEATED: dict[str, Any] = {"acks": "all", "enable_idempotence": True}


_FETCH_WAIT_MS = 50
"""How long the broker may hold a fetch that finds nothing.

aiokafka has one fetch under way per broker. One that asks only for partitions that are silent
(all others have records waiting here) holds up those that are drained meanwhile: with Faust's
1,500 ms a worker that read frames of 50 rows from a long backlog stood still for three quarters
of the time.
"""


class _ReadOffsets(defaultdict[TP, int | None]):
    """Last offset read by partition; none for batch topics, so that no batch is dropped by it."""

    def __init__(self, batch_topics: frozenset[str]) -> None:
        super().__init__(lambda: None)
        self._batch_topics = batch_topics

    def __getitem__(self, tp: TP) -> int | None:
        return None if tp.topic in self._batch_topics else super().__getitem__(tp)


class _AsRead(dict[Any, Any]):
    """Fetch results by partition; those of batch topics give their records as they were read.

    aiokafka makes an object of eleven fields of each record, which costs more than reading it.
    What it reads has all that :class:`streams.ports.LogRecord` asks for.
    """

    def __init__(self, fetched: Mapping[Any, Any], batch_topics: frozenset[str]) -> None:
        super().__init__()
        self._batch_topics = batch_topics
        for tp, result in fetched.items():
            self[tp] = result

    def __setitem__(self, tp: Any, result: Any) -> None:
        if tp.topic in self._batch_topics and isinstance(result, FetchResult):
            result.getall = _ByBatch(result).getall
        super().__setitem__(tp, result)


class _ByBatch:
    """Takes the records out of a fetch result a record batch at a time.

    aiokafka goes through a generator and looks at an offset for each record, which costs more than
    to read it. Here it is given batches in the place of records: so it checks sums, transactions
    and markers as ever, but once a batch.
    """

    def __init__(self, result: Any) -> None:
        self._result = result
        self._rest: Iterator[Any] = iter(())
        records = result._partition_records
        records._records = _Batches(records._records)
        records._consumer_record = _as_read

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Return the next records; see ``FetchResult.getall``."""
        result = self._result
        if not result.check_assignment(result._topic_partition) or not result.has_more():
            return []
        most = sys.maxsize if max_records is None else max_records
        batches = result._partition_records
        found = list(islice(self._rest, most))
        while len(found) < most:
            begin = batches.next_fetch_offset
            batch = next(batches, None)
            if batch is None:
                result._update_position()
                result._partition_records, self._rest = None, iter(())
                return found
            self._rest = batch.since(begin)
            found += islice(self._rest, most - len(found))
        batches.next_fetch_offset = found[-1].offset + 1
        result._update_position()
        return found


@dataclass(frozen=True, slots=True)
class _Batches:
    """Record batches, as aiokafka reads them, each in the place of its records."""

    records: Any

    def has_next(self) -> bool:
        return bool(self.records.has_next())

    def next_batch(self) -> _Batch:
        return _Batch(self.records.next_batch())


class _Batch:
    """A record batch that is its own only record, at the offset of the last one."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self.offset = batch.next_offset - 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[_Batch]:
        return iter((self,))

    def __next__(self) -> Any:
        """Return the first record: what a batch of control marks."""
        return next(self._batch)

    def since(self, offset: int) -> Iterator[Any]:
        """Return the records from an offset on: a batch may begin before what was asked for."""
        return dropwhile(lambda record: record.offset < offset, self._batch)


def _as_read(tp: Any, record: Any) -> Any:
    return record


@dataclass(frozen=True, slots=True)
class _Only:
    """The partitions to take records of, as they are at any time, and never all.

    aiokafka takes an empty set for all partitions. In a rebalance all are paused: a fetch still
    under way took everything then, also what the changelogs were just sent back for, and dropped
    it; the recovery waited for it forever.
    """

    active: Container[TP]

    def __contains__(self, tp: TP) -> bool:
        return tp in self.active


class _Thread(base.AIOKafkaConsumerThread):
    """The thread that fetches."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust has no setting for it; the fetcher takes it when the consumer starts.
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS
        return consumer

    async def _fetch_records(
        self, consumer: Any, active_partitions: Any, *args: Any, **options: Any
    ) -> Any:
        fetcher = consumer._fetcher
        if not isinstance(fetcher._records, _AsRead):
            batch_topics = cast(Consumer, self.consumer)._batch_topics
            fetcher._records = _AsRead(fetcher._records, batch_topics)
        only: Any = None if active_partitions is None else _Only(active_partitions)
        return await super()._fetch_records(consumer, only, *args, **options)


@dataclass(frozen=True, slots=True)
class Begin:
    """Where the reading of a partition begins, and whether that was committed."""

    offset: int
    committed: bool


class Consumer(base.Consumer):
    """Delivers whole batches for the topics in ``app.batch_topics``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _ReadOffsets(self._batch_topics)

    def _new_consumer_thread(self) -> base.AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(
        self,
        timeout: float,  # noqa: ASYNC109 the signature is the base class's
    ) -> AsyncIterator[tuple[TP, Message]]:
        """Fetch records; yield a message per batch, or per record where no batches are wanted."""
        records, active = await self._wait_next_records(timeout)
        if records is None or self.should_stop:
            return
        if not self.flow_active:
            return  # What is let fall here is read again: a rebalance ends at what is committed.
        generation = self.app.consumer_generation_id
        for tp, message in self._messages(records):
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if active is None or tp in active or tp in self._buffered_partitions:
                end = self.highwater(tp)
                if end is not None:
                    self.app.monitor.track_tp_end_offset(tp, end)
                yield tp, message

    def pause_partitions(self, tps: Iterable[TP]) -> None:
        """Stop delivering partitions, also those that wait for their stream to catch up.

        Faust would resume such a one as soon as its stream has drained: in a rebalance before its
        state is restored, with batches in the way of the changelog that restores it.
        """
        paused = set(tps)
        super().pause_partitions(paused)
        self._buffered_partitions.difference_update(paused)

    def _messages(self, records: Mapping[TP, list[Any]]) -> Iterable[tuple[TP, Message]]:
        batch_topics = self._batch_topics
        single = {tp: found for tp, found in records.items() if tp.topic not in batch_topics}
        for tp, found in records.items():
            if found and tp.topic in batch_topics:
                yield tp, self._batch_message(tp, found)
        for tp, record in self.scheduler.iterate(single):
            yield tp, self._to_message(tp, record)

    @property
    def _batch_topics(self) -> frozenset[str]:
        return cast(frozenset[str], getattr(self.app, "batch_topics", frozenset()))

    def _batch_message(self, tp: TP, records: list[Any]) -> Message:
        last = records[-1]
        # Faust types a value as bytes; here it is the list of records.
        make: Any = ConsumerMessage
        return cast(
            Message,
            make(
                tp.topic,
                tp.partition,
                last.offset,
                last.timestamp / 1000.0,
                last.timestamp_type,
                (),
                None,
                records,
                None,
                0,
                0,
                tp,
                generation_id=self.app.consumer_generation_id,
            ),
        )

    def ack(self, message: Message) -> bool:
        """Acknowledge a message; batches are acknowledged by position instead."""
        if message.topic in self._batch_topics:
            message.acked = True
            self._unacked_messages.discard(message)
            return True
        return super().ack(message)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        # A batch carries its last offset: what looks like a gap is the batch itself.
        if tp.topic not in self._batch_topics:
            await super()._add_gap(tp, offset_from, offset_to)

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the first offsets; while a broker is away this waits, where Faust would end."""
        ask = super().earliest_offsets
        return await patiently("earliest offsets", lambda: ask(*partitions))

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the end offsets; as :meth:`earliest_offsets`."""
        ask = super().highwaters
        return await patiently("end offsets", lambda: ask(*partitions))

    async def begin_offsets(self, tps: Iterable[TP]) -> Mapping[TP, Begin]:
        """Return where reading begins: at the committed offsets, or else the earliest ones.

        Ask for many at once: the earliest offsets may wait behind a fetch that waits for data.
        """
        consumer = self._thread._ensure_consumer()
        call, committed = self._thread.call_thread, {}
        for tp in tps:
            ask = partial(call, consumer.committed, tp)
            committed[tp] = await patiently("committed offsets", ask)
        unread = [tp for tp, offset in committed.items() if offset is None]
        earliest = await self.earliest_offsets(*unread) if unread else {}
        return {
            tp: Begin(int(earliest[tp]), False) if offset is None else Begin(int(offset), True)
            for tp, offset in committed.items()
        }

    def reached(self, tp: TP) -> int | None:
        """Return the offset that fetching has reached, ``None`` before it has begun."""
        state = self._state_of(tp)
        return int(state.position) if state is not None and state.has_valid_position else None

    def highwater(self, tp: TP) -> int | None:  # type: ignore[override]
        """Return the end offset that the last fetch told, ``None`` where there was none.

        A partition that went to another worker a moment ago has none: a rebalance goes on in
        another thread, and aiokafka would fail an assertion.
        """
        state = self._state_of(tp)
        return state.highwater if state is not None else None

    def _state_of(self, tp: TP) -> Any:
        subscription = self._thread._ensure_consumer()._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None or tp not in assignment.tps:
            return None
        return assignment.state_value(tp)

    async def commit_position(self, tp: TP, offset: int) -> bool:
        """Commit *offset* as the next to read, if the partition is still ours.

        :returns: whether the broker took it; false means that another member owns it now.
        """
        return await self._commit_offsets({tp: offset})


class Producer(base.Producer):
    """An idempotent producer: retries neither repeat nor reorder.

    aiokafka begins with the metadata of all topics, and from the first topic on that is missing
    in it, asks for those alone that it was told of. A record on its way to another topic then
    waits until the next one to that topic, and all checkpoints with it. So every topic is told.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._told: set[str] = set()

    async def send(self, topic: str, *args: Any, **kwargs: Any) -> Awaitable[RecordMetadata]:
        """Send as Faust's producer does, to a topic that the client keeps in view."""
        if topic not in self._told:
            self._ensure_producer().client.add_topic(topic)
            self._told.add(topic)
        return await super().send(topic, *args, **kwargs)

    def _settings_extra(self) -> Mapping[str, Any]:
        return {**super()._settings_extra(), **_NEITHER_LOST_NOR_REPEATED}


class Transport(base.Transport):
    """The driver behind ``headwater://``."""

    Consumer: ClassVar[type[ConsumerT]] = Consumer
    Producer: ClassVar[type[ProducerT]] = Producer
