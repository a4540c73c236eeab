"""Batches into Kafka, in order, until the broker has confirmed every record.

A window of batches is on its way at once. Confirmation is taken from the oldest on, which is
also the order in which MQTT wants its acknowledgements. When a send fails for good, nothing
new is sent: the producer is replaced, and every unconfirmed record is sent again, oldest first.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams.errors import TopicMismatchError
from streams.log import get_logger
from streams.ports import Produce
from streams.topics import BACKFILL, EDGE_ALERTS, EDGE_STATUS, LOSSES, READINGS, REJECTED

_log = get_logger(__name__)
_TOPICS = (READINGS, BACKFILL, REJECTED, LOSSES, EDGE_STATUS, EDGE_ALERTS)
_RETRY_MIN_S = 0.2
_RETRY_MAX_S = 10.0
_STOP_S = 5.0
_STALLED_S = 3.0
"""A batch unconfirmed for longer than this makes the gateway not ready."""
_MAX_REQUEST_BYTES = 2_097_152
_FAILURES = (KafkaError, OSError, asyncio.TimeoutError)


@dataclass(slots=True)
class Batch:
    """Records that are confirmed together, and what to do then."""

    records: Sequence[Produce]
    on_confirmed: Callable[[], None]
    sent: list[asyncio.Future[object]] = field(default_factory=list)
    began_s: float = 0.0


class OrderedProducer:
    """Sends batches and confirms them in the order of :meth:`submit`."""

    def __init__(self, bootstrap: str, client_id: str, window: int, partitions: int) -> None:
        """Make a producer that is not connected.

        :param window: batches on their way at once; :meth:`submit` waits beyond it.
        :param partitions: partition count that the settings say.
        """
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._partitions = partitions
        self._free = asyncio.Semaphore(window)
        self._waiting: deque[Batch] = deque()
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._sending = asyncio.Lock()
        self._sending_since_s: float | None = None
        self._producer: AIOKafkaProducer | None = None
        self.why_not_ready = "not connected to Kafka yet"

    @property
    def unconfirmed(self) -> int:
        """Batches on their way."""
        return len(self._waiting)

    async def start(self) -> None:
        """Connect, for as long as it takes, and check the topics.

        :raises TopicMismatchError: if a topic is missing or has another partition count.
        """
        delay_s = _RETRY_MIN_S
        while True:
            try:
                await self._check_topics()
                self._producer = await self._connect()
            except _FAILURES as error:
                self._not_ready(f"Kafka at {self._bootstrap} cannot be reached: {error}")
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _RETRY_MAX_S)
            else:
                self.why_not_ready = ""
                return

    async def submit(self, batch: Batch) -> None:
        """Send a batch once there is room for it; it is confirmed later, by :meth:`run`."""
        await self._free.acquire()
        self._idle.clear()
        async with self._sending:
            batch.began_s = self._sending_since_s = time.monotonic()
            await self._send(batch)
            # Only now: a batch without all of its futures would look confirmed.
            self._waiting.append(batch)
            self._sending_since_s = None
        self._changed.set()

    async def run(self) -> None:
        """Confirm batches, oldest first, until cancelled."""
        while True:
            while not self._waiting:
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STALLED_S):
                        await self._changed.wait()
                self._check_stalled(self._sending_since_s)
            batch = self._waiting[0]
            if await self._is_confirmed(batch):
                self._waiting.popleft()
                self.why_not_ready = ""
                batch.on_confirmed()
                if not self._waiting and not self._sending.locked():
                    self._idle.set()
                self._free.release()
            else:
                await self._recover()

    async def flush(self) -> None:
        """Wait until nothing is on its way."""
        await self._idle.wait()

    async def stop(self) -> None:
        """Close the connection; what is not confirmed by now stays unconfirmed."""
        await self._close()

    async def _send(self, batch: Batch) -> None:
        """Hand all records to the producer; a failure shows in their futures."""
        producer = self._producer
        batch.sent = []
        for record in batch.records:
            try:
                if producer is None:
                    raise KafkaError("the producer is closed")
                future = await producer.send(
                    record.topic,
                    record.value,
                    key=record.key,
                    partition=record.partition,
                    headers=list(record.headers.items()),
                )
            except _FAILURES as error:
                future = asyncio.get_running_loop().create_future()
                future.set_exception(error)
            batch.sent.append(future)

    async def _is_confirmed(self, batch: Batch) -> bool:
        pending: set[asyncio.Future[object]] = set(batch.sent)
        while pending:
            _, pending = await asyncio.wait(pending, timeout=_STALLED_S)
            if pending:
                self._check_stalled(batch.began_s)
        failures = [why for why in map(_failure, batch.sent) if why is not None]
        if failures:
            self._not_ready(f"Kafka refused a record: {failures[0]!r}")
        return not failures

    async def _recover(self) -> None:
        """Replace the producer and send everything again that is not confirmed, in order."""
        delay_s = _RETRY_MIN_S
        async with self._sending:
            while True:
                await self._close()
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _RETRY_MAX_S)
                try:
                    self._producer = await self._connect()
                except _FAILURES as error:
                    self._not_ready(f"Kafka at {self._bootstrap} cannot be reached: {error}")
                    continue
                break
            for batch in self._waiting:
                for future in batch.sent:
                    # Asked for, so that asyncio does not report it: the send is repeated.
                    future.add_done_callback(_failure)
                await self._send(batch)
        _log.info("sending again after a failure", batches=len(self._waiting))

    async def _connect(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            acks="all",
            enable_idempotence=True,
            # Frames are compressed already.
            compression_type=None,
            max_batch_size=_MAX_REQUEST_BYTES // 2,
            max_request_size=_MAX_REQUEST_BYTES,
        )
        try:
            await producer.start()
            for topic in _TOPICS:
                await producer.partitions_for(topic)
        except BaseException:
            await producer.stop()
            raise
        return producer

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            # Its stop() waits for records that a dead broker will never confirm.
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await producer.stop()
            await producer.client.close()

    async def _check_topics(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, client_id=self._client_id)
        try:
            await admin.start()
            described = await admin.describe_topics(list(_TOPICS))
        finally:
            await admin.close()
        for topic in described:
            found = len(topic["partitions"])
            if topic["error_code"] or found == 0:
                raise TopicMismatchError(
                    f"Kafka at {self._bootstrap} has no topic {topic['topic']!r}; make the topics "
                    "with: headwater topics apply"
                )
            if found != self._partitions:
                raise TopicMismatchError(
                    f"the topic {topic['topic']!r} has {found} partitions, the settings say "
                    f"topics.partitions = {self._partitions}; set it to {found}, or move to new "
                    "topics (a device's partition depends on the count)"
                )

    def _check_stalled(self, since_s: float | None) -> None:
        age_s = 0.0 if since_s is None else time.monotonic() - since_s
        if age_s >= _STALLED_S:
            self._not_ready(f"Kafka has not confirmed a batch for {age_s:.0f} s")

    def _not_ready(self, why: str) -> None:
        if not self.why_not_ready:
            _log.warning("kafka not ready", why=why)
        self.why_not_ready = why


def _failure(future: asyncio.Future[object]) -> BaseException | None:
    """Why a finished send failed; ``None`` if Kafka confirmed it."""
    closed: BaseException = KafkaError("the producer was closed")
    return closed if future.cancelled() else future.exception()
