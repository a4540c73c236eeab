"""One attempt at one webhook: signed after Standard Webhooks 1.0, never redirected."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
from standardwebhooks.webhooks import Webhook as Signer

from streams.alerts.channel import Outcome
from streams.alerts.guard import pinned_address
from streams.errors import DeliveryError, SettingsError
from streams.settings import Webhook

_GONE = 410
_SUCCESS = range(200, 300)


class Sender:
    """A :class:`streams.alerts.channel.Channel` to one webhook.

    :raises SettingsError: if the signing secret cannot be read.
    """

    def __init__(self, endpoint: Webhook) -> None:
        self._endpoint = endpoint
        self._url = httpx.URL(endpoint.url)
        self._signer = signer_of(endpoint)

    async def open(self) -> None:
        """Make the client; it connects when there is something to send."""
        self._client = httpx.AsyncClient(
            follow_redirects=False, limits=httpx.Limits(max_keepalive_connections=64)
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def send(self, message_id: str, body: Mapping[str, Any]) -> Outcome:
        """Send one message; every failure is an :class:`Outcome`."""
        now = datetime.now(tz=UTC)
        payload = orjson.dumps(body)
        headers = {
            "content-type": "application/json",
            "host": self._url.netloc.decode(),
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(message_id, now, payload.decode()),
        }
        try:
            address = await pinned_address(self._url, allow_private=self._endpoint.allow_private)
            response = await self._client.post(
                self._url.copy_with(host=address),
                content=payload,
                headers=headers,
                timeout=self._endpoint.timeout_ms / 1000,
                extensions={"sni_hostname": self._url.host},
            )
        except (httpx.HTTPError, DeliveryError) as error:
            return Outcome(False, reason=f"{type(error).__name__}: {error}")
        if response.status_code in _SUCCESS:
            return Outcome(True)
        return Outcome(
            False,
            gone=response.status_code == _GONE,
            retry_after_s=_retry_after(response.headers.get("retry-after")),
            reason=f"the receiver answered {response.status_code}",
        )


def body_of(alert: Mapping[str, Any], *, queued_ms: int) -> dict[str, Any]:
    """Return the payload of a message: the alert, why, and the time of every hop."""
    sample = alert["sample"]
    details = {key: value for key, value in alert.items() if key != "sample"}
    measured = {key: sample[key] for key in ("value", "score", "expected", "spread")}
    return {
        "type": f"alert.{alert['state']}",
        "timestamp": datetime.now(tz=UTC).isoformat(),
        "data": {
            **details,
            **measured,
            "hops": {
                "event_ms": sample["t_ms"],
                "received_ms": sample["received_ms"],
                "kafka_ms": sample["kafka_ms"],
                "worker_ms": sample["log_ms"],
                "queued_ms": queued_ms,
                "sent_ms": time.time_ns() // 1_000_000,
            },
        },
    }


def signer_of(endpoint: Webhook) -> Signer:
    """Return what signs for an endpoint.

    :raises SettingsError: if the secret cannot be read or is none; the message has the fix.
    """
    fix = f"headwater webhooks secret --out {endpoint.secret_file}"
    try:
        return Signer(endpoint.secret_file.read_text().strip())
    except OSError as error:
        raise SettingsError(f"webhook {endpoint.name}: {error}; make one: {fix}") from error
    except (RuntimeError, ValueError) as error:
        raise SettingsError(
            f"webhook {endpoint.name}: {endpoint.secret_file} holds no signing secret "
            f"(whsec_ and base64); make one: {fix}"
        ) from error


def _retry_after(value: str | None) -> float | None:
    if value is None or not value.strip().isdigit():
        return None
    return float(value)
