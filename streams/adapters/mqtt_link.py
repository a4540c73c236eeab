"""A plain MQTT 5 connection for processes that send little: paho's own thread, our event loop.

It reconnects with back-off for ever, to the next of its brokers where there are several. The
session is clean: whoever uses it says what is missing after :attr:`MqttLink.on_connect`, so nothing
depends on what a broker kept.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions
from prometheus_client import Counter

from streams.adapters import broker_refusals
from streams.adapters.mqtt_login import parse_address, password_of, tls_context
from streams.errors import SettingsError
from streams.log import get_logger
from streams.settings import Mqtt

_log = get_logger(__name__)
_MAX_QUEUED = 10_000
_CONNECT_S = 5.0
_REFUSED = Counter(
    "headwater_mqtt_refused_publications", "Publications that a broker did not let through."
)


class MqttLink:
    """Make it inside the event loop; callbacks run there."""

    def __init__(
        self,
        addresses: Sequence[str],
        login: Mqtt,
        client_id: str,
        *,
        retry_s: tuple[float, float],
        subscribe: tuple[str, ...] = (),
    ) -> None:
        """Make an unconnected link.

        :param addresses: of brokers; if one is not there, the next is tried, from the first again
            after the last.
        :param retry_s: shortest and longest pause between attempts.
        :param subscribe: topic filters, QoS 1.
        :raises SettingsError: if address or files of the login cannot be used.
        """
        self._places, secure = _places(addresses)
        self._place = 0
        self._login = login
        self._filters = subscribe
        self._loop = asyncio.get_running_loop()
        self._sent: dict[int, tuple[str, asyncio.Future[None]]] = {}
        self._tls_error: ssl.SSLError | None = None
        self._stopping = False
        self.on_message: Callable[[str, bytes], None] = _ignore
        self.on_connect: Callable[[], None] = _nothing
        self.why_not_ready = "not connected to the MQTT broker yet"
        self.refused = ""
        """What the broker does not let through, since it let something through."""
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        if login.username:
            client.username_pw_set(login.username, password_of(login))
        if secure:
            client.tls_set_context(tls_context(login))
        client.connect_timeout = _CONNECT_S
        client.max_queued_messages_set(_MAX_QUEUED)
        # paho takes any number here; its stubs say int.
        client.reconnect_delay_set(*retry_s)  # type: ignore[arg-type]
        client.on_connect = self._connected
        client.on_connect_fail = self._failed
        client.on_subscribe = self._subscribed
        client.on_disconnect = self._disconnected
        client.on_message = self._arrived
        client.on_socket_open = _without_delay
        client.on_publish = self._published
        client.on_log = self._heard_of
        self._client = client

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._aim(self._client)
        self._client.loop_start()

    async def stop(self) -> None:
        """Disconnect and end paho's thread."""
        self._stopping = True
        self._client.disconnect()
        # paho joins its thread, which may be in a connection attempt.
        await asyncio.to_thread(self._client.loop_stop)
        for _, future in self._sent.values():
            future.cancel()

    def publish(
        self,
        topic: str,
        payload: bytes,
        properties: Sequence[tuple[str, str]] = (),
        expiry_s: int | None = None,
        *,
        retain: bool = False,
    ) -> asyncio.Future[None] | None:
        """Send with QoS 1; the future is done when the broker has it. None: not accepted.

        :param properties: MQTT's user properties.
        :param expiry_s: how long a broker may keep it.
        :param retain: whether a broker keeps it for who comes later.
        """
        more = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
        if properties:
            more.UserProperty = list(properties)
        if expiry_s is not None:
            more.MessageExpiryInterval = expiry_s
        # The callback of this message runs in the loop too, so it cannot come too early.
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=more)
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            return None
        future: asyncio.Future[None] = self._loop.create_future()
        self._sent[info.mid] = (topic, future)
        return future

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and our subscription."""
        return not self.why_not_ready

    @property
    def trouble(self) -> str:
        """Why there is no connection, or what the broker refuses on it; empty if all is well."""
        return self.why_not_ready or self.refused

    # -- paho's callbacks, in paho's thread ----------------------------------------------------

    def _connected(self, client: mqtt.Client, _d: Any, _f: Any, code: Any, _p: Any) -> None:
        if code.is_failure:
            why = f"the MQTT broker refused us: {code}; {broker_refusals.whose(self._login)}"
            self._not_ready(why)
        elif not self._filters:
            self._not_ready("")
        else:
            client.subscribe([(one, SubscribeOptions(qos=1)) for one in self._filters])

    def _aim(self, client: mqtt.Client) -> None:
        host, port = self._places[self._place]
        client.connect_async(host, port, keepalive=self._login.keepalive_s, clean_start=True)

    def _turn(self, client: mqtt.Client) -> None:
        """Aim at the next broker, if there is another."""
        if len(self._places) > 1 and not self._stopping:
            self._place = (self._place + 1) % len(self._places)
            self._aim(client)

    def _heard_of(self, _client: mqtt.Client, _data: Any, level: int, _text: str) -> None:
        # paho logs where it handles the error, and hands on no more than that there was one.
        error = sys.exception() if level == mqtt.MQTT_LOG_ERR else None
        if isinstance(error, ssl.SSLError):
            self._tls_error = error

    def _failed(self, client: mqtt.Client, _data: Any) -> None:
        # paho calls this where it handles the error, which it does not hand on.
        why = broker_refusals.told(sys.exception(), self._login)
        self._not_ready(f"the MQTT broker cannot be reached: {why}")
        self._turn(client)

    def _subscribed(self, _c: mqtt.Client, _d: Any, _mid: int, codes: list[Any], _p: Any) -> None:
        pairs = zip(self._filters, codes, strict=True)
        refused = [f"{one}: {code}" for one, code in pairs if code.is_failure]
        why = f"the MQTT broker refused {refused[0]}" if refused else ""
        self._not_ready(why)

    def _disconnected(self, client: mqtt.Client, _d: Any, _f: Any, code: Any, _p: Any) -> None:
        error, self._tls_error = self._tls_error, None
        why = broker_refusals.told(error, self._login) if error else code
        self._not_ready(f"the connection to the MQTT broker was lost: {why}")
        self._turn(client)

    def _arrived(self, _c: mqtt.Client, _d: Any, message: mqtt.MQTTMessage) -> None:
        self._call(self._hand_on, message.topic, message.payload)

    def _published(self, _c: mqtt.Client, _d: Any, mid: int, code: Any, _p: Any) -> None:
        self._call(self._confirm, mid, str(code) if code.is_failure else "")

    def _not_ready(self, why: str) -> None:
        host, port = self._places[self._place]
        self._call(self._set_ready, why, host, port)

    def _call(self, what: Callable[..., None], *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *args)

    # -- in the event loop ---------------------------------------------------------------------

    def _set_ready(self, why: str, host: str, port: int) -> None:
        if why and why != self.why_not_ready:
            _log.warning("mqtt not ready", why=why, host=host, port=port)
        self.why_not_ready = why
        if not why:
            _log.info("connected to the broker", host=host, port=port)
            self.on_connect()

    def _hand_on(self, topic: str, payload: bytes) -> None:
        self.on_message(topic, payload)

    def _confirm(self, mid: int, code: str) -> None:
        topic, future = self._sent.pop(mid, ("", None))
        self._note_refusal(topic, code)
        if future is not None and not future.done():
            future.set_result(None)

    def _note_refusal(self, topic: str, code: str) -> None:
        before, self.refused = self.refused, ""
        if not code:
            return
        _REFUSED.inc()
        self.refused = (
            f"the MQTT broker lets nothing through to {topic}: {code}; is it this end's own? "
            f"{broker_refusals.whose(self._login)}"
        )
        if self.refused != before:
            _log.error("publication refused", why=self.refused)


def _without_delay(_client: mqtt.Client, _data: Any, connection: Any) -> None:
    # Small messages would wait for the acknowledgement of those before: up to 40 ms each.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _ignore(_topic: str, _payload: bytes) -> None:
    return None


def _nothing() -> None:
    return None


def _places(addresses: Sequence[str]) -> tuple[list[tuple[str, int]], bool]:
    """Return hosts and ports, and whether they speak TLS."""
    found = [parse_address(address) for address in addresses]
    if len({secure for _, _, secure in found}) != 1:
        raise SettingsError(f"{list(addresses)}: expected brokers all of mqtt://, or of mqtts://")
    return [(host, port) for host, port, _ in found], found[0][2]
