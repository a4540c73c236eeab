"""Publishes messages over MQTT 5, QoS 1, at a steady rate; counts what the broker confirmed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties

from streams.errors import ServiceError
from streams.sim.sensors import Message

_WINDOW = 500
_PATIENCE_S = 120.0
_TICK_S = 0.005


class Publisher:
    """One MQTT connection with a bounded number of unconfirmed messages."""

    def __init__(self, address: str, client_id: str) -> None:
        url = urlsplit(address)
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5
        )
        self._client.max_inflight_messages_set(_WINDOW)
        self._client.max_queued_messages_set(0)
        self._room = threading.Semaphore(_WINDOW)
        self._client.on_publish = self._on_publish
        self.confirmed = 0
        self.sent = 0
        try:
            self._client.connect(url.hostname or "127.0.0.1", url.port or 1883)
        except OSError as error:
            raise ServiceError(
                f"no MQTT broker at {address}: {error}; start one: headwater services up"
            ) from error
        self._client.loop_start()

    def _on_publish(self, *_: object) -> None:
        self.confirmed += 1
        self._room.release()

    def send(self, topic: str, payload: bytes, properties: Properties | None = None) -> None:
        """Publish one message; waits while too many are unconfirmed.

        :raises ServiceError: if the broker confirms nothing for a long time.
        """
        if not self._room.acquire(timeout=_PATIENCE_S):
            raise ServiceError(f"the broker has confirmed nothing for {_PATIENCE_S:.0f} s")
        self._client.publish(topic, payload, qos=1, properties=properties)
        self.sent += 1

    def close(self) -> None:
        """Wait until all is confirmed, and disconnect.

        :raises ServiceError: if the broker does not confirm in time.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while self.confirmed < self.sent and time.monotonic() < deadline:
            time.sleep(_TICK_S)
        self._client.disconnect()
        self._client.loop_stop()
        if self.confirmed < self.sent:
            raise ServiceError(f"{self.sent - self.confirmed} messages were never confirmed")


def publish(
    publisher: Publisher,
    messages: Iterable[Message],
    *,
    per_s: float | None,
    on_sent: Callable[[Message], None],
    stop: threading.Event | None = None,
) -> None:
    """Publish messages at a steady rate, or as fast as the broker confirms (``per_s`` None)."""
    started = time.monotonic()
    for number, message in enumerate(messages):
        if stop is not None and stop.is_set():
            return
        if per_s is not None:
            ahead_s = number / per_s - (time.monotonic() - started)
            if ahead_s > 0:
                time.sleep(ahead_s)
        publisher.send(message.topic, message.payload)
        on_sent(message)
