"""What happens to a request with readings, whatever protocol it came by.

A request is taken as a whole or refused as a whole, and told so: a refused one is not kept, since
its sender still has it and knows why. An acceptance means that the readings are durable.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from streams.errors import BusyError, DecodeError
from streams.intake import meters
from streams.intake.identities import ForeignReadingsError, Identity, RefusedIdentityError
from streams.intake.requests import Asked, RequestDecoder, UnsupportedTypeError
from streams.intake.token_file import TokenFile
from streams.log import get_logger
from streams.ports import Take
from streams.settings import Intake

_log = get_logger(__name__)


class Outcome(StrEnum):
    """What became of a request."""

    ACCEPTED = "accepted"
    UNIDENTIFIED = "unidentified"
    FOREIGN = "foreign"
    TOO_LARGE = "too-large"
    UNSUPPORTED = "unsupported"
    UNPROCESSABLE = "unprocessable"
    TOO_MANY = "too-many"
    BUSY = "busy"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome, how many readings were taken, and why not, in words."""

    outcome: Outcome
    readings: int = 0
    reason: str = ""
    detail: str = ""
    retry_after_s: int | None = None


class Reception:
    """Decodes requests and hands their readings on. Belongs to the event loop."""

    def __init__(self, limits: Intake, decoder: Callable[[], RequestDecoder], take: Take) -> None:
        """Wire the parts.

        :param decoder: returns the decoder after the settings as they are now.
        :param take: makes readings durable.
        :raises SettingsError: if the file of tokens cannot be used.
        """
        self.limits = limits
        self._decoder = decoder
        self._take = take
        self._tokens = None if limits.tokens is None else TokenFile(limits.tokens)
        self._under_way: Counter[str] = Counter()

    def identify(self, certificate: Identity | None, token: str | None) -> Identity | None:
        """Return who sends; ``None`` where anyone may, for everyone.

        :raises RefusedIdentityError: if the settings ask for an identity and there is none.
        """
        if certificate is not None and token is None:
            return certificate
        if self._tokens is not None:
            if token is None:
                raise RefusedIdentityError("no token: expected Authorization: Bearer TOKEN")
            return self._tokens.identity(token, time.time_ns() // 1_000_000)
        if self.limits.client_ca_file is not None:
            raise RefusedIdentityError("no certificate of a device")
        return None

    async def receive(
        self,
        protocol: str,
        payload: bytes,
        asked: Asked,
        sender: tuple[Identity | None, str],
    ) -> Answer:
        """Take a request or refuse it.

        :param sender: who sends, and from which address.
        """
        identity, address = sender
        key = address if identity is None else str(identity)
        if self._under_way[key] >= self.limits.max_requests:
            answer = Answer(
                Outcome.TOO_MANY,
                reason="too-many-requests",
                detail=f"{self.limits.max_requests} requests of {key} are under way "
                "(intake.max_requests); send more readings in one request, or wait for answers",
                retry_after_s=1,
            )
        else:
            self._under_way[key] += 1
            meters.UNDER_WAY.inc()
            try:
                answer = await self._receive(payload, asked, identity)
            finally:
                meters.UNDER_WAY.dec()
                self._under_way[key] -= 1
                if not self._under_way[key]:
                    del self._under_way[key]
        count(protocol, answer, key)
        return answer

    async def _receive(self, payload: bytes, asked: Asked, identity: Identity | None) -> Answer:
        if len(payload) > self.limits.max_body_bytes:
            return too_large(self.limits.max_body_bytes)
        try:
            received_ms = time.time_ns() // 1_000_000
            readings = self._decoder().decode(payload, asked, received_ms, identity)
        except DecodeError as error:
            return Answer(_outcome(error), reason=error.reason, detail=error.detail)
        try:
            async with asyncio.timeout(self.limits.timeout_ms / 1000):
                await self._take(readings)
        except BusyError as error:
            return Answer(
                Outcome.BUSY,
                reason="busy",
                detail=str(error),
                retry_after_s=error.retry_after_s,
            )
        except TimeoutError:
            return Answer(
                Outcome.LATE,
                reason="not-confirmed",
                detail=f"the readings were not durable within {self.limits.timeout_ms} ms; they "
                "may become so yet: send them again, with the same boot and seq",
                retry_after_s=1,
            )
        return Answer(Outcome.ACCEPTED, readings=len(readings))


def unidentified(protocol: str, address: str, why: str) -> Answer:
    """Refuse a sender; who and why is logged."""
    meters.UNIDENTIFIED.inc()
    _log.warning("sender refused", protocol=protocol, address=address, why=why)
    return Answer(Outcome.UNIDENTIFIED, reason="unidentified", detail=why)


def too_large(max_bytes: int) -> Answer:
    """Refuse a payload for its size."""
    return Answer(
        Outcome.TOO_LARGE,
        reason="payload-too-large",
        detail=f"at most {max_bytes} bytes are taken (intake.max_body_bytes)",
    )


def count(protocol: str, answer: Answer, who: str) -> None:
    """Count a request, and log what somebody tried in another's name."""
    meters.REQUESTS.labels(protocol, answer.outcome.value).inc()
    meters.READINGS.labels(protocol).inc(answer.readings)
    if answer.outcome is Outcome.FOREIGN:
        _log.warning("readings refused", protocol=protocol, sender=who, why=answer.detail)


def _outcome(error: DecodeError) -> Outcome:
    if isinstance(error, ForeignReadingsError):
        return Outcome.FOREIGN
    if isinstance(error, UnsupportedTypeError):
        return Outcome.UNSUPPORTED
    return Outcome.TOO_LARGE if error.reason == "payload-too-large" else Outcome.UNPROCESSABLE
