"""One attempt at one webhook: signed after Standard Webhooks 1.0, never redirected."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson
from standardwebhooks.webhooks import Webhook as Signer

from streams.alerts.channel import Outcome
from streams.alerts.guard import pinned_address
from streams.core.alert_states import TOLD_BY_EDGE
from streams.errors import DeliveryError, SettingsError
from streams.log import get_logger
from streams.settings import Webhook

_log = get_logger(__name__)
_GONE = 410
_SECRET = re.compile(r"whsec_(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_MAX_ANSWER = 65_536
"""Bytes of an answer that are read; nothing of it is needed."""
_SUCCESS = range(200, 300)
TOLERANCE_S = 300
"""By which a timestamp may be off: Standard Webhooks' receivers refuse it beyond."""


class Sender:
    """A :class:`streams.alerts.channel.Channel` to one webhook.

    :raises SettingsError: if the signing secret cannot be read.
    """

    def __init__(self, endpoint: Webhook) -> None:
        self._endpoint = endpoint
        self._url = httpx.URL(endpoint.url)
        self._keys = Keys(endpoint)
        # Of its own: a name server that hangs would keep other endpoints from theirs.
        self._resolver = ThreadPoolExecutor(2, f"resolver of {endpoint.name}")

    async def open(self) -> None:
        """Make the client; it connects when there is something to send."""
        self._client = httpx.AsyncClient(
            follow_redirects=False, limits=httpx.Limits(max_keepalive_connections=64)
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        self._resolver.shutdown(wait=False, cancel_futures=True)

    async def send(self, message_id: str, body: Mapping[str, Any]) -> Outcome:
        """Send one message; every failure is an :class:`Outcome`."""
        payload = orjson.dumps(body)
        try:
            # A receiver that answers a byte now and then never lets a read time out.
            async with asyncio.timeout(self._endpoint.timeout_ms / 1000):
                return await self._attempt(payload, self._headers(message_id, payload))
        except TimeoutError:
            return Outcome(False, reason=f"no answer within {self._endpoint.timeout_ms} ms")
        except (httpx.HTTPError, DeliveryError) as error:
            return Outcome(False, reason=f"{type(error).__name__}: {error}")

    def _headers(self, message_id: str, payload: bytes) -> dict[str, str]:
        now = _now()
        return {
            "content-type": "application/json",
            "host": self._url.netloc.decode(),
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._keys.sign(message_id, now, payload.decode()),
        }

    async def _attempt(self, payload: bytes, headers: Mapping[str, str]) -> Outcome:
        address = await pinned_address(
            self._url, allow_private=self._endpoint.allow_private, executor=self._resolver
        )
        request = self._client.build_request(
            "POST",
            self._url.copy_with(host=address),
            content=payload,
            headers=headers,
            timeout=self._endpoint.timeout_ms / 1000,
            extensions={"sni_hostname": self._url.host},
        )
        response = await self._client.send(request, stream=True)
        try:
            await _read_some(response)
        finally:
            await response.aclose()
        if response.status_code in _SUCCESS:
            return Outcome(True)
        return _failure(response, time.time())


def _failure(response: httpx.Response, now_s: float) -> Outcome:
    """Return what an answer that is no success means.

    A date in ``Retry-After`` is compared with the receiver's own clock, where it tells that.
    """
    theirs_s = _date_s(response.headers.get("date"))
    reason = f"the receiver answered {response.status_code}"
    if theirs_s is not None and abs(now_s - theirs_s) > TOLERANCE_S:
        side = "behind" if theirs_s < now_s else "ahead of"
        reason += (
            f"; its clock is {abs(now_s - theirs_s):,.0f} s {side} that of this machine, and by "
            f"more than {TOLERANCE_S} s receivers refuse signatures: set the one that is wrong"
        )
    return Outcome(
        False,
        gone=response.status_code == _GONE,
        retry_after_s=retry_after_s(
            response.headers.get("retry-after"), now_s if theirs_s is None else theirs_s
        ),
        reason=reason,
    )


async def _read_some(response: httpx.Response) -> None:
    """Read a short answer, so that its connection can be used again; a long one is cut off."""
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > _MAX_ANSWER:
            return


class Keys:
    """The signing secrets of an endpoint, read again when their file changes.

    :raises SettingsError: if they cannot be read at first; the message has the fix.
    """

    def __init__(self, endpoint: Webhook) -> None:
        self._endpoint = endpoint
        self._seen = self._state()
        self._signers = signers_of(endpoint)

    def sign(self, message_id: str, at: datetime, payload: str) -> str:
        """Return the header ``webhook-signature``: one signature for each secret."""
        self._refresh()
        return " ".join(signer.sign(message_id, at, payload) for signer in self._signers)

    def _refresh(self) -> None:
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._signers = signers_of(self._endpoint)
        except SettingsError as error:
            _log.error("the former secrets stay in use", reason=str(error))
        else:
            _log.info("secrets were read again", webhook=self._endpoint.name)

    def _state(self) -> tuple[int, int, int]:
        try:
            found = self._endpoint.secret_file.stat()
        except OSError:
            return 0, 0, 0
        # Two writes within one tick of the file system's clock have the same time.
        return found.st_mtime_ns, found.st_size, found.st_ino


def body_of(entry: Mapping[str, Any], queued_ms: int) -> dict[str, Any]:
    """Return the payload of a message.

    :param entry: of the outbox: its ``alert``, and its ``group`` if it is about several.
    """
    alert, group = entry["alert"], entry.get("group")
    sample = alert["sample"]
    hops = {
        "event_ms": sample["t_ms"],
        "received_ms": sample["received_ms"],
        "kafka_ms": sample["kafka_ms"],
        "worker_ms": sample["log_ms"],
        "queued_ms": queued_ms,
        "sent_ms": time.time_ns() // 1_000_000,
    }
    if group is None:
        kind, data = f"alert.{alert['state']}", _data_of(alert)
    else:
        kind = f"group.{group['reason']}"
        data = {**group, "alerts": [_data_of(one) for one in group["alerts"]]}
    return {
        "type": kind,
        "timestamp": _now().isoformat(),
        "data": {**data, "hops": hops},
    }


def _data_of(alert: Mapping[str, Any]) -> dict[str, Any]:
    details = {key: value for key, value in alert.items() if key not in ("sample", TOLD_BY_EDGE)}
    measured = {key: alert["sample"][key] for key in ("value", "score", "expected", "spread")}
    return {**details, **measured}


def signers_of(endpoint: Webhook) -> list[Signer]:
    """Return what signs for an endpoint: one signer for each line of its file.

    :raises SettingsError: if the secret cannot be read or is none; the message has the fix.
    """
    fix = f"headwater webhooks secret --out {endpoint.secret_file}"
    try:
        secrets = endpoint.secret_file.read_text().split()
    except (OSError, ValueError) as error:
        raise SettingsError(f"webhook {endpoint.name}: {error}; make one: {fix}") from error
    # The library takes any text for one.
    if not secrets or not all(_SECRET.fullmatch(secret) for secret in secrets):
        raise SettingsError(
            f"webhook {endpoint.name}: {endpoint.secret_file} holds no signing secret "
            f"(whsec_ and base64, one a line); make one: {fix}"
        )
    return [Signer(secret) for secret in secrets]


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """Return the seconds that a header ``Retry-After`` asks for (RFC 9110): a number, or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    until_s = _date_s(value)
    return None if until_s is None else max(0.0, until_s - now_s)


def _date_s(value: str | None) -> float | None:
    """Return a date of a header (RFC 9110) in seconds since the epoch; ``None`` if it is none."""
    try:
        return None if value is None else parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), tz=UTC)
