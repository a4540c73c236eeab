"""The gateway process: MQTT in, frames into Kafka, acknowledgements back.

A message is acknowledged to the MQTT broker only when Kafka has confirmed all records of its
batch, whether it became readings or was refused. So a gateway may die at any moment: the broker
delivers again what it never acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from aiokafka.errors import KafkaError

from streams.adapters.config_log import Documents, begin, follow
from streams.gateway import meters
from streams.gateway.link import Delivery, Session
from streams.gateway.links import Links
from streams.gateway.producer import Batch, OrderedProducer
from streams.gateway.sparkplug_bridge import SparkplugBridge
from streams.gateway.taker import Taker
from streams.gateway.work import Answers, Place, Work, work_of
from streams.intake.decode import BatchDecoder
from streams.intake.mapping import NATIVE, TopicMap
from streams.intake.requests import RequestDecoder
from streams.intake.uplink_wire import ack_topic, encode_ack, split_acks
from streams.log import get_logger
from streams.ports import Produce
from streams.settings import Settings
from streams.settings.applied import in_force

_log = get_logger(__name__)
_WINDOW = 4
"""Batches on their way to Kafka at once."""
_BATCH_BYTES = 1_048_576
_STOP_S = 10.0
_ACK_EXPIRY_S = 60
"""An edge that was away for longer has sent its batches again."""
_RETRY_S = 1.0


def client_id(settings: Settings) -> str:
    """Return the stable client id: the setting, or gateway-HOSTNAME."""
    if settings.gateway.client_id:
        return settings.gateway.client_id
    return "gateway-" + re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:100]


class Gateway:
    """One gateway. Make it inside the event loop; :meth:`run` returns when asked to stop."""

    def __init__(self, settings: Settings) -> None:
        """Wire the parts.

        :raises SettingsError: if mappings, address or login cannot be used.
        """
        self._limits = settings.gateway
        self._partitions = settings.topics.partitions
        self._settings = settings
        self._documents = Documents()
        self._topics = TopicMap(settings.mappings)
        self._decoder = self._decoder_of(settings)
        self.requests = self._requests_of(settings)
        """Decodes requests of HTTP and CoAP, after the settings that are in force."""
        self._former: TopicMap | None = None
        """The mappings before a change that the broker has not confirmed yet."""
        identity = client_id(settings)
        self._producer = OrderedProducer(settings.kafka, identity, _WINDOW, self._partitions)
        self.take = Taker(
            self._producer,
            self._partitions,
            max_rows=self._limits.max_rows,
            max_waiting=settings.intake.max_waiting_readings,
            linger_ms=self._limits.linger_ms,
        )
        self._sparkplug = SparkplugBridge(settings, identity, self.write)
        addresses = [settings.mqtt, *self._limits.brokers]
        self._links = Links(
            Session(
                settings.mqtt,
                settings.broker,
                identity,
                self._limits.group,
                tuple(zip(self._topics.filters, self._topics.filter_ids, strict=True)),
                self._limits.receive_maximum,
                self._limits.session_expiry_s,
            ),
            addresses,
            self._receive,
            self._is_copy,
        )
        meters.BROKERS_READY.set_function(lambda: len(addresses) - len(self._links.troubles))
        # Each broker counts for itself.
        self._receive_maximum = self._limits.receive_maximum * len(addresses)
        # Half of what the broker may have unacknowledged: the other half arrives meanwhile.
        self._batch_messages = max(1, min(self._limits.max_rows, self._limits.receive_maximum // 2))
        self._incoming: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._incoming_bytes = 0
        self._stopping = asyncio.Event()

    def _decoder_of(self, settings: Settings) -> BatchDecoder:
        return BatchDecoder(
            self._topics,
            settings.metrics,
            self._limits.max_rows,
            self._limits.max_payload_bytes,
            settings.codecs,
        )

    def _requests_of(self, settings: Settings) -> RequestDecoder:
        return RequestDecoder(
            self._topics,
            settings.metrics,
            settings.intake.max_readings,
            settings.intake.max_body_bytes,
            settings.codecs,
        )

    async def write(self, records: Sequence[Produce]) -> None:
        """Return when Kafka has confirmed *records*."""
        confirmed = asyncio.get_running_loop().create_future()
        # Whoever waits may have been cancelled.
        done = Batch(records, lambda: None if confirmed.done() else confirmed.set_result(None))
        await self._producer.submit(done)
        await confirmed

    def ready(self) -> tuple[bool, str]:
        """Whether messages flow, and if not, why."""
        parts = (self._producer, self._links, self._sparkplug)
        why = "; ".join(part.why_not_ready for part in parts if part.why_not_ready)
        meters.KAFKA_READY.set(not self._producer.why_not_ready)
        meters.MQTT_READY.set(not self._links.why_not_ready)
        return not why, why or "; ".join(["readings flow", *self._links.troubles])

    def stop(self) -> None:
        """Ask :meth:`run` to end: take no more, confirm what is taken, acknowledge, disconnect."""
        self._stopping.set()
        self._arrived.set()
        self._full.set()

    async def run(self) -> None:
        """Carry messages until :meth:`stop`.

        :raises TopicMismatchError: if Kafka's topics are not as the settings say.
        """
        self._announce()
        starting = asyncio.create_task(self._producer.start(), name="kafka-start")
        if not await self._unless_stopped(starting):
            return
        beginning = asyncio.create_task(self._begin(), name="config")
        if not await self._unless_stopped(beginning):
            await self._producer.stop()
            return
        # The broker sends only once Kafka is there to take it.
        confirming = asyncio.create_task(self._producer.run(), name="confirm")
        linking = asyncio.create_task(self._links.run(), name="link")
        batching = asyncio.create_task(self._batch(), name="batch")
        following = asyncio.create_task(self._follow(), name="follow config")
        taking = asyncio.create_task(self.take.run(), name="take")
        tasks = [confirming, linking, batching, following, taking]
        if self._limits.sparkplug:
            tasks.append(asyncio.create_task(self._sparkplug.run(), name="sparkplug"))
        stopped = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            done, _ = await asyncio.wait((*tasks, stopped), return_when=asyncio.FIRST_COMPLETED)
            for task in done & set(tasks):
                task.result()  # ended on its own: a defect, which must end the process
            await self._finish(batching)
        finally:
            self._links.disconnect()
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)
            await self._producer.stop()

    async def _unless_stopped(self, starting: asyncio.Task[None]) -> bool:
        """Wait for *starting*; False if asked to stop first."""
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if starting.done():
            starting.result()
            return True
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        return False

    async def _finish(self, batching: asyncio.Task[None]) -> None:
        self._links.pause()
        try:
            async with asyncio.timeout(_STOP_S):
                await batching
                await self._producer.flush()
        except TimeoutError:
            _log.warning(
                "stopped with messages unconfirmed; the broker delivers them again",
                messages=self._in_flight,
            )

    def _announce(self) -> None:
        _log.info("gateway", pid=os.getpid(), filters=list(self._topics.filters))
        if self._topics.filters == (TopicMap([]).filters):
            _log.warning(
                "no mappings are set: only frames on "
                f"{NATIVE.topic} are taken; to take other topics, add to headwater.toml: "
                '[[mappings]] topic = "sensors/{device}"'
            )

    # -- settings that change -----------------------------------------------------------------

    async def _begin(self) -> None:
        self._change(await begin(self._settings, self._documents))

    async def _follow(self) -> None:
        """Take what is applied while running."""
        while True:
            try:
                document = await follow(self._settings.kafka, self._documents)
            except KafkaError as error:
                _log.warning("the topic config cannot be read", error=str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            if document.revision:
                self._change(in_force(self._settings, document))
                _log.info("settings changed", document=document.id)

    def _change(self, settings: Settings) -> None:
        """Use other mappings and another catalogue from the next batch on, then subscribe."""
        before, self._topics = self._topics, TopicMap(settings.mappings)
        self._decoder = self._decoder_of(settings)
        self.requests = self._requests_of(settings)
        if self._topics.filters != before.filters:
            self._former = before
            pairs = zip(self._topics.filters, self._topics.filter_ids, strict=True)
            self._links.change_filters(tuple(pairs))

    def _settle(self) -> None:
        """Leave what no mapping needs any more, once the broker has confirmed what is new."""
        if self._former is not None and self._links.subscribed:
            gone = [each for each in self._former.filters if each not in self._topics.filters]
            self._former = None
            self._links.unsubscribe(gone)

    # -- in -----------------------------------------------------------------------------------

    def _is_copy(self, topic: str, filter_ids: list[int]) -> bool:
        """Whether another delivery of the same message is the one to take.

        Each shared subscription that matches gets a copy, in whichever gateway. A broker that
        knows no subscription identifiers sends none: then every delivery is taken.
        """
        self._settle()
        now = self._topics.delivering_id(topic)
        if self._former is not None and self._former.delivering_id(topic) != now:
            # Which of two deliveries there is depends on the broker's progress: rather both.
            return False
        return bool(filter_ids) and now not in filter_ids

    def _receive(self, deliveries: list[Delivery]) -> None:
        self._incoming.extend(deliveries)
        size = sum(len(delivery.payload) for delivery in deliveries)
        meters.RECEIVED.inc(len(deliveries))
        meters.RECEIVED_BYTES.inc(size)
        self._in_flight += len(deliveries)
        self._in_flight_bytes += size
        self._incoming_bytes += size
        self._arrived.set()
        if len(self._incoming) >= self._batch_messages or self._incoming_bytes >= _BATCH_BYTES:
            self._full.set()
        self._hold_back()

    def _hold_back(self) -> None:
        """Stop reading while the buffers are full (QoS 0 knows no receive maximum)."""
        full = (
            self._in_flight > 2 * self._receive_maximum
            or self._in_flight_bytes > self._limits.max_buffered_bytes
        )
        if full:
            self._links.pause()
        elif not self._stopping.is_set():
            self._links.resume()
        meters.PAUSED.set(full)
        meters.IN_FLIGHT.set(self._in_flight)
        meters.IN_FLIGHT_BYTES.set(self._in_flight_bytes)

    # -- through ------------------------------------------------------------------------------

    async def _batch(self) -> None:
        """Coalesce, decode and send, until stopped and empty."""
        while True:
            await self._arrived.wait()
            if not self._full.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._limits.linger_ms / 1000):
                        await self._full.wait()
            deliveries = self._next()
            if deliveries:
                await self._send(deliveries)
            elif self._stopping.is_set():
                return

    def _next(self) -> list[Delivery]:
        taken: list[Delivery] = []
        size = 0
        while self._incoming and len(taken) < self._batch_messages and size < _BATCH_BYTES:
            taken.append(self._incoming.popleft())
            size += len(taken[-1].payload)
        self._incoming_bytes -= size
        if not self._incoming and not self._stopping.is_set():
            self._arrived.clear()
            self._full.clear()
        return taken

    def _put_back(self, deliveries: list[Delivery]) -> None:
        if deliveries:
            self._incoming.extendleft(reversed(deliveries))
            self._incoming_bytes += sum(len(delivery.payload) for delivery in deliveries)
            self._arrived.set()

    async def _send(self, deliveries: list[Delivery]) -> None:
        work = work_of(deliveries, self._decoder, self._limits, self._partitions)
        self._put_back(deliveries[work.taken :])
        deliveries = deliveries[: work.taken]
        batch = Batch(work.records, lambda: self._confirmed(batch, work, deliveries))
        await self._producer.submit(batch)

    def _confirmed(self, batch: Batch, work: Work, deliveries: list[Delivery]) -> None:
        self._answer(work.answers)
        self._links.ack(deliveries)
        self._in_flight -= len(deliveries)
        self._in_flight_bytes -= sum(len(delivery.payload) for delivery in deliveries)
        self._hold_back()
        meters.ACKED.inc(len(deliveries))
        meters.KAFKA_SECONDS.observe(time.monotonic() - batch.began_s)
        meters.LAG_SECONDS.observe(max(0.0, time.time() - deliveries[0].received_ms / 1000))
        meters.READINGS.inc(len(work.readings))
        meters.IGNORED.inc(work.ignored)
        meters.count_sites(work.readings)
        for refused in work.refused:
            meters.REJECTED.labels(refused.reason).inc()
            _log.debug("rejected", reason=refused.reason, detail=refused.detail)

    def _answer(self, answers: dict[Place, Answers]) -> None:
        """Tell edges what became of their batches."""
        for (origin, tenant, site), told in answers.items():
            meters.BATCHES.labels("confirmed").inc(len(told.batches))
            meters.BATCHES.labels("refused").inc(len(told.refused))
            for ack in split_acks(told.batches, told.refused):
                topic = ack_topic(tenant, site)
                if not self._links.publish(origin, topic, encode_ack(ack), _ACK_EXPIRY_S):
                    meters.UNANSWERED.inc()
