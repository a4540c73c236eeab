"""A plain MQTT 5 connection for processes that send little: paho's own thread, our event loop.

It reconnects with back-off for ever. The session is clean: whoever uses it says what is missing
after :attr:`MqttLink.on_connect`, so nothing depends on what a broker kept.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from streams.errors import SettingsError
from streams.log import get_logger
from streams.settings import Mqtt

_log = get_logger(__name__)
_MAX_QUEUED = 10_000
_CONNECT_S = 5.0


class MqttLink:
    """Make it inside the event loop; callbacks run there."""

    def __init__(
        self,
        address: str,
        login: Mqtt,
        client_id: str,
        *,
        retry_s: tuple[float, float],
        subscribe: tuple[str, ...] = (),
    ) -> None:
        """Make an unconnected link.

        :param retry_s: shortest and longest pause between attempts.
        :param subscribe: topic filters, QoS 1.
        :raises SettingsError: if address or files of the login cannot be used.
        """
        self._host, self._port, secure = _parse(address)
        self._keepalive_s = login.keepalive_s
        self._filters = subscribe
        self._loop = asyncio.get_running_loop()
        self._sent: dict[int, asyncio.Future[None]] = {}
        self.on_message: Callable[[str, bytes], None] = _ignore
        self.on_connect: Callable[[], None] = _nothing
        self.why_not_ready = "not connected to the MQTT broker yet"
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        if login.username:
            client.username_pw_set(login.username, _read(login.password_file))
        if secure:
            client.tls_set_context(_tls(login))
        client.connect_timeout = _CONNECT_S
        client.max_queued_messages_set(_MAX_QUEUED)
        # paho takes any number here; its stubs say int.
        client.reconnect_delay_set(*retry_s)  # type: ignore[arg-type]
        client.on_connect = self._connected
        client.on_connect_fail = self._failed
        client.on_subscribe = self._subscribed
        client.on_disconnect = self._disconnected
        client.on_message = self._arrived
        client.on_publish = self._published
        self._client = client

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._client.connect_async(
            self._host, self._port, keepalive=self._keepalive_s, clean_start=True
        )
        self._client.loop_start()

    async def stop(self) -> None:
        """Disconnect and end paho's thread."""
        self._client.disconnect()
        # paho joins its thread, which may be in a connection attempt.
        await asyncio.to_thread(self._client.loop_stop)
        for future in self._sent.values():
            future.cancel()

    def publish(
        self,
        topic: str,
        payload: bytes,
        properties: Sequence[tuple[str, str]] = (),
        expiry_s: int | None = None,
    ) -> asyncio.Future[None] | None:
        """Send with QoS 1; the future is done when the broker has it. None: not accepted.

        :param properties: MQTT's user properties.
        :param expiry_s: how long a broker may keep it.
        """
        more = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
        if properties:
            more.UserProperty = list(properties)
        if expiry_s is not None:
            more.MessageExpiryInterval = expiry_s
        # The callback of this message runs in the loop too, so it cannot come too early.
        info = self._client.publish(topic, payload, qos=1, properties=more)
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            return None
        future = self._sent[info.mid] = self._loop.create_future()
        return future

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and our subscription."""
        return not self.why_not_ready

    # -- paho's callbacks, in paho's thread ----------------------------------------------------

    def _connected(self, client: mqtt.Client, _d: Any, _f: Any, code: Any, _p: Any) -> None:
        if code.is_failure:
            self._call(self._set_ready, f"the MQTT broker refused us: {code}")
        elif not self._filters:
            self._call(self._set_ready, "")
        else:
            client.subscribe([(one, SubscribeOptions(qos=1)) for one in self._filters])

    def _failed(self, _client: mqtt.Client, _data: Any) -> None:
        # paho calls this where it handles the error, which it does not hand on.
        error = sys.exception()
        self._call(self._set_ready, f"the MQTT broker cannot be reached: {error}")

    def _subscribed(self, _c: mqtt.Client, _d: Any, _mid: int, codes: list[Any], _p: Any) -> None:
        pairs = zip(self._filters, codes, strict=True)
        refused = [f"{one}: {code}" for one, code in pairs if code.is_failure]
        why = f"the MQTT broker refused {refused[0]}" if refused else ""
        self._call(self._set_ready, why)

    def _disconnected(self, _c: mqtt.Client, _d: Any, _f: Any, code: Any, _p: Any) -> None:
        self._call(self._set_ready, f"the connection to the MQTT broker was lost: {code}")

    def _arrived(self, _c: mqtt.Client, _d: Any, message: mqtt.MQTTMessage) -> None:
        self._call(self._hand_on, message.topic, message.payload)

    def _published(self, _c: mqtt.Client, _d: Any, mid: int, _code: Any, _p: Any) -> None:
        self._call(self._confirm, mid)

    def _call(self, what: Callable[..., None], *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *args)

    # -- in the event loop ---------------------------------------------------------------------

    def _set_ready(self, why: str) -> None:
        if why and why != self.why_not_ready:
            _log.warning("mqtt not ready", why=why, host=self._host, port=self._port)
        self.why_not_ready = why
        if not why:
            _log.info("connected to the broker", host=self._host, port=self._port)
            self.on_connect()

    def _hand_on(self, topic: str, payload: bytes) -> None:
        self.on_message(topic, payload)

    def _confirm(self, mid: int) -> None:
        future = self._sent.pop(mid, None)
        if future is not None and not future.done():
            future.set_result(None)


def _ignore(_topic: str, _payload: bytes) -> None:
    return None


def _nothing() -> None:
    return None


def _parse(address: str) -> tuple[str, int, bool]:
    parts = urlsplit(address)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise SettingsError(
            f"mqtt = {address!r}: expected mqtt://host:port, or mqtts://host:port for TLS"
        )
    secure = parts.scheme == "mqtts"
    return parts.hostname, parts.port or (8883 if secure else 1883), secure


def _read(password_file: Path | None) -> str | None:
    if password_file is None:
        return None
    try:
        return password_file.read_text().rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"broker.password_file: {error}") from error


def _tls(login: Mqtt) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=login.ca_file)
        if login.cert_file is not None:
            context.load_cert_chain(login.cert_file, login.key_file)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"broker.ca_file = {login.ca_file}, cert_file = {login.cert_file}, "
            f"key_file = {login.key_file}: cannot be used: {error}"
        ) from error
    return context
