"""The demo's webhook receiver: outside the system, in a thread of its own."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import uvicorn

from streams.alerts.receiver import receiver_app
from streams.errors import ServiceError
from streams.services.ports import HOST

_START_S = 60.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One verified webhook."""

    message: str
    received_ns: int
    payload: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        """The alert inside."""
        data: dict[str, Any] = self.payload["data"]
        return data

    def latency_ms(self) -> float:
        """Time from the reading's receipt at the gateway to the webhook's receipt."""
        received_ms: int = self.data["hops"]["received_ms"]
        return self.received_ns / 1e6 - received_ms


class Receiver:
    """Collects verified webhooks."""

    def __init__(self, secret: str, port: int) -> None:
        self.deliveries: list[Delivery] = []
        app = receiver_app(secret, self._take)
        config = uvicorn.Config(app, host=HOST, port=port, log_config=None, access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="receiver", daemon=True)

    def __enter__(self) -> Receiver:
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not self._server.started:
            if time.monotonic() > deadline:
                raise ServiceError("the webhook receiver does not start")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(_START_S)

    def _take(self, message: str, received_ns: int, payload: dict[str, Any]) -> None:
        self.deliveries.append(Delivery(message, received_ns, payload))
