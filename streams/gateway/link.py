"""The connection to the MQTT broker: a persistent session, driven by the event loop.

Messages come out through a callback with the connection's *epoch*; acknowledgements go back
with it and are dropped if the connection has changed since, because packet identifiers belong
to one connection and the broker delivers unacknowledged messages again on the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from streams.adapters.broker_refusals import told
from streams.adapters.mqtt_login import parse_address, password_of, tls_context
from streams.gateway import meters
from streams.gateway.packets import ProtocolError, Publish, pubacks, subscription_ids
from streams.gateway.sockets import PacketClient
from streams.log import get_logger
from streams.settings import Mqtt

_log = get_logger(__name__)
_READS_PER_TURN = 8
_MISC_S = 1.0
_RETRY_MIN_S, _RETRY_MAX_S, _CONNECT_S = 0.2, 10.0, 10.0
_MAX_OUT_UNACKED, _MAX_OUT_QUEUED = 1_000, 10_000


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as the broker delivered it. ``received_ms``: milliseconds since the epoch."""

    topic: str
    payload: bytes
    mid: int
    """0 for QoS 0, which is not acknowledged."""
    epoch: int
    received_ms: int
    properties: bytes = b""
    """Of its packet, undecoded."""
    origin: int = 0
    """Number of the link."""


@dataclass(frozen=True, slots=True)
class Session:
    """How to reach the broker, and the session it keeps for us."""

    address: str
    """``mqtt://host:port`` or ``mqtts://host:port``."""
    login: Mqtt
    client_id: str
    group: str
    """Of the shared subscription; empty: not shared, everything is delivered here."""
    filters: Sequence[tuple[str, int]]
    """Topic filters, each with its subscription identifier."""
    receive_maximum: int
    expiry_s: int
    origin: int = 0
    """Number of the link, which its deliveries carry."""


class Link:
    """One client of the broker. All methods belong to the event loop's thread."""

    def __init__(
        self,
        session: Session,
        on_messages: Callable[[list[Delivery]], None],
        is_copy: Callable[[str, list[int]], bool],
    ) -> None:
        """Make an unconnected link.

        :param on_messages: takes the messages of one read, in order.
        :param is_copy: says of a topic and the identifiers of the filters that it was delivered
            for whether another delivery is the one to take; this one is only acknowledged.
        :raises SettingsError: if address or files of the login cannot be used.
        """
        self._session = session
        self._on_messages = on_messages
        self._is_copy = is_copy
        self._client = _client(session)
        self._client.on_connect = self._connected
        self._client.on_subscribe = self._subscribed
        self._client.on_disconnect = self._disconnected
        self.epoch = 0
        self.why_not_ready = "not connected to the MQTT broker yet"
        self._refusal = ""
        self._awaited: set[int] = set()
        self._gone = asyncio.Event()
        self._paused = False
        self._reading_fd = -1
        self._writing = False
        self._connecting = ThreadPoolExecutor(1, "mqtt-connect")

    async def run(self) -> None:
        """Keep connected until cancelled."""
        delay_s = _RETRY_MIN_S
        try:
            while True:
                if await self._connect():
                    began = time.monotonic()
                    await self._stay_connected()
                    if time.monotonic() - began > _RETRY_MAX_S:
                        delay_s = _RETRY_MIN_S
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _RETRY_MAX_S)
        finally:
            self._connecting.shutdown(wait=False)

    async def _connect(self) -> bool:
        self._gone.clear()
        host, port, _ = parse_address(self._session.address)
        loop = asyncio.get_running_loop()
        properties = _properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = self._session.expiry_s
        properties.ReceiveMaximum = self._session.receive_maximum
        properties.MaximumPacketSize = self._client.max_packet_bytes
        try:
            # Name lookup, TCP and TLS handshake block in paho.
            await loop.run_in_executor(
                self._connecting,
                lambda: self._client.connect(
                    host,
                    port,
                    keepalive=self._session.login.keepalive_s,
                    clean_start=False,
                    properties=properties,
                ),
            )
        except (OSError, ValueError) as error:
            why = told(error, self._session.login)
            self.why_not_ready = f"the MQTT broker {host}:{port} cannot be reached: {why}"
            _log.warning("broker unreachable", host=host, port=port, error=why)
            return False
        self.epoch += 1
        self._watch()
        return True

    async def _stay_connected(self) -> None:
        deadline = time.monotonic() + _CONNECT_S
        while not self._gone.is_set():
            if not self._paused:
                self._client.loop_misc()
                self._flush()
            if self.why_not_ready and time.monotonic() > deadline:
                # Connected at TCP, but no CONNACK or SUBACK: begin again.
                self._drop(f"no answer within {_CONNECT_S:.0f} s")
            # Not wait_for: in Python 3.11 it can swallow a cancellation.
            with suppress(TimeoutError):
                async with asyncio.timeout(_MISC_S):
                    await self._gone.wait()
        self._unwatch()

    # -- the event loop ---------------------------------------------------------------------

    def _watch(self) -> None:
        packets = self._client.packets
        assert packets is not None
        self._reading_fd = packets.fileno()
        if not self._paused:
            asyncio.get_running_loop().add_reader(self._reading_fd, self._readable)
        self._flush()

    def _unwatch(self) -> None:
        if self._reading_fd >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._reading_fd)
            loop.remove_writer(self._reading_fd)
            self._reading_fd, self._writing = -1, False

    def _readable(self) -> None:
        packets = self._client.packets
        if packets is None or self._reading_fd < 0:
            return
        try:
            for _ in range(_READS_PER_TURN):
                published, more = packets.read()
                if published:
                    self._take(published)
                while packets.has_more and self._client.socket() is not None:
                    self._client.loop_read()
                if not more or self._paused or self._reading_fd < 0:
                    break
            else:
                # TLS may hold decrypted bytes that no readiness event announces.
                asyncio.get_running_loop().call_soon(self._readable)
        except (OSError, ProtocolError) as error:
            self._drop(told(error, self._session.login))
            return
        self._flush()

    def _take(self, published: list[Publish]) -> None:
        received_ms = time.time_ns() // 1_000_000
        epoch, origin = self.epoch, self._session.origin
        deliveries = []
        copies = []
        for topic, payload, _, mid, properties in published:
            name = topic.decode(errors="replace")
            if properties and self._is_copy(name, subscription_ids(properties)):
                copies.append((epoch, mid))
                continue
            deliveries.append(Delivery(name, payload, mid, epoch, received_ms, properties, origin))
        self._on_messages(deliveries)
        if copies:
            meters.COPIES.inc(len(copies))
            self.ack(copies)

    def _flush(self) -> None:
        packets = self._client.packets
        if packets is None or self._reading_fd < 0:
            return
        loop = asyncio.get_running_loop()
        try:
            done = packets.flush()
        except OSError as error:
            self._drop(told(error, self._session.login))
            return
        if done and self._writing:
            loop.remove_writer(self._reading_fd)
            self._writing = False
        elif not done and not self._writing:
            loop.add_writer(self._reading_fd, self._flush)
            self._writing = True

    def _drop(self, why: str) -> None:
        """Give the connection up; :meth:`run` makes a new one."""
        self._unwatch()
        if self._client.packets is not None:
            self._client.packets.close()
            self._client.packets = None
        self._lost(why)

    # -- what the gateway does with it --------------------------------------------------------

    def ack(self, messages: Sequence[tuple[int, int]]) -> None:
        """Acknowledge messages by (epoch, mid), in order; those of old connections are left out."""
        packets = self._client.packets
        mids = [mid for epoch, mid in messages if mid and epoch == self.epoch]
        if packets is not None and mids:
            packets.send(pubacks(mids))
            self._flush()

    def publish(self, topic: str, payload: bytes, expiry_s: int) -> bool:
        """Send with QoS 1; paho sends again what the broker has not taken on the next connection.

        :param expiry_s: seconds after which the broker drops it undelivered.
        :returns: whether it was sent or waits; False if too many wait already.
        """
        properties = _properties(PacketTypes.PUBLISH)
        properties.MessageExpiryInterval = expiry_s
        sent = self._client.publish(topic, payload, qos=1, properties=properties)
        self._flush()
        return sent.rc is not MQTTErrorCode.MQTT_ERR_QUEUE_SIZE

    def pause(self) -> None:
        """Read no more, so that TCP and then the broker hold messages back."""
        if not self._paused:
            self._paused = True
            if self._reading_fd >= 0:
                asyncio.get_running_loop().remove_reader(self._reading_fd)

    def resume(self) -> None:
        """Read again."""
        if self._paused:
            self._paused = False
            if self._reading_fd >= 0:
                asyncio.get_running_loop().add_reader(self._reading_fd, self._readable)
                self._readable()

    @property
    def connected(self) -> bool:
        """Whether there is a connection, be it accepted or not."""
        return self._reading_fd >= 0

    @property
    def subscribed(self) -> bool:
        """Whether the broker has confirmed all subscriptions."""
        return not self._awaited and not self.why_not_ready

    def change_filters(self, filters: Sequence[tuple[str, int]]) -> None:
        """Subscribe to what is new; :attr:`subscribed` says when the broker has confirmed it."""
        new = [each for each in filters if each not in self._session.filters]
        self._session = replace(self._session, filters=tuple(filters))
        self._subscribe(self._client, new if self._reading_fd >= 0 else ())
        self._flush()

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Have no more messages of some filters; what was delivered already still comes."""
        for topic_filter in filters if self._reading_fd >= 0 else ():
            self._client.unsubscribe(self._full(topic_filter))
            self._client.loop_write()
        self._flush()

    def disconnect(self) -> None:
        """Say good-bye; the broker keeps the session."""
        if self._client.packets is not None and self._reading_fd >= 0:
            self._client.packets.send(b"\xe0\x00")
            self._flush()
            self._drop("stopped")

    # -- paho's callbacks ---------------------------------------------------------------------

    def _connected(
        self, client: mqtt.Client, _data: Any, flags: mqtt.ConnectFlags, code: Any, _props: Any
    ) -> None:
        if code.is_failure:
            self._refusal = f"the MQTT broker refused us: {code}"
            _log.error("broker refused", broker=self._session.address, reason=str(code))
            return
        meters.CONNECTIONS.inc()
        _log.info(
            "connected to the broker",
            broker=self._session.address,
            session_present=flags.session_present,
        )
        self._refusal = ""
        self._subscribe(client, self._session.filters)

    def _subscribe(self, client: mqtt.Client, filters: Sequence[tuple[str, int]]) -> None:
        # One SUBSCRIBE per filter: an identifier belongs to all filters of its packet.
        for topic_filter, number in filters:
            properties = _properties(PacketTypes.SUBSCRIBE)
            properties.SubscriptionIdentifier = number
            code, mid = client.subscribe(
                self._full(topic_filter),
                options=SubscribeOptions(qos=1),
                properties=properties,
            )
            if code is MQTTErrorCode.MQTT_ERR_SUCCESS and mid is not None:
                self._awaited.add(mid)
        client.loop_write()

    def _full(self, topic_filter: str) -> str:
        group = self._session.group
        return f"$share/{group}/{topic_filter}" if group else topic_filter

    def _subscribed(
        self, _client: mqtt.Client, _data: Any, mid: int, codes: list[Any], _props: Any
    ) -> None:
        self._awaited.discard(mid)
        refused = [str(code) for code in codes if code.is_failure]
        if refused:
            self._refusal = f"the MQTT broker refused a subscription: {refused[0]}"
            self.why_not_ready = self._refusal
            _log.error("subscription refused", reason=refused[0])
        elif not self._awaited and not self._refusal:
            self.why_not_ready = ""

    def _disconnected(
        self, _client: mqtt.Client, _data: Any, _flags: Any, code: Any, _props: Any
    ) -> None:
        self._unwatch()
        self._lost(str(code))

    def _lost(self, why: str) -> None:
        if not self._gone.is_set():
            self._awaited.clear()
            # A refusal says more than the end of the connection that follows it.
            lost = f"the connection to the MQTT broker was lost: {why}"
            self.why_not_ready = self._refusal or lost
            _log.warning("connection to the broker lost", broker=self._session.address, why=why)
            self._gone.set()


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]  # paho leaves it untyped


def _client(session: Session) -> PacketClient:
    _, _, secure = parse_address(session.address)
    client = PacketClient(
        CallbackAPIVersion.VERSION2,
        client_id=session.client_id,
        protocol=mqtt.MQTTv5,
        manual_ack=True,
    )
    client.max_inflight_messages_set(_MAX_OUT_UNACKED)
    client.max_queued_messages_set(_MAX_OUT_QUEUED)
    login = session.login
    if login.username:
        client.username_pw_set(login.username, password_of(login))
    if secure:
        client.tls_set_context(tls_context(login))
    return client
