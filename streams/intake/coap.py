"""Readings over CoAP (RFC 7252): confirmable POST to ``/v1/readings``, block-wise (RFC 7959).

The same as over HTTP, with response codes for status codes. A response that takes longer than a
moment is a separate one, after an empty acknowledgement, as aiocoap does by itself; a repeated
request with the same message id is answered from its memory. There is no DTLS here: beyond
loopback it is for networks that are closed, since tokens can be read on the way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiocoap
from aiocoap import Code, Message, resource
from aiocoap.blockwise import Block1Spool
from aiocoap.error import ConstructionRenderableError

from streams.intake.identities import RefusedIdentityError
from streams.intake.reception import Answer, Outcome, Reception, count, too_large, unidentified
from streams.intake.requests import Asked
from streams.log import get_logger

_log = get_logger(__name__)
_COAP = "coap"
_CODES = {
    Outcome.ACCEPTED: Code.CHANGED,
    Outcome.UNIDENTIFIED: Code.UNAUTHORIZED,
    Outcome.FOREIGN: Code.FORBIDDEN,
    Outcome.TOO_LARGE: Code.REQUEST_ENTITY_TOO_LARGE,
    Outcome.UNSUPPORTED: Code.UNSUPPORTED_CONTENT_FORMAT,
    Outcome.UNPROCESSABLE: Code.UNPROCESSABLE_ENTITY,
    Outcome.TOO_MANY: Code.TOO_MANY_REQUESTS,
    Outcome.BUSY: Code.SERVICE_UNAVAILABLE,
    Outcome.LATE: Code.SERVICE_UNAVAILABLE,
}
_SHOWN = 900
"""Bytes of a diagnostic payload: it must fit into one block."""


class _RefusedError(ConstructionRenderableError):  # type: ignore[misc]  # aiocoap is untyped
    def __init__(self, code: Code, why: str) -> None:
        super().__init__(why)
        self.code = code


class BoundedSpool(Block1Spool):  # type: ignore[misc]  # aiocoap is untyped
    """Assembles block-wise requests, within bounds; aiocoap's own takes any number of any size."""

    def __init__(self, max_bytes: int, max_transfers: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._max_transfers = max_transfers

    def feed_and_take(self, req: Any) -> Any:
        """Return the whole request once its last block is there.

        :raises ConstructionRenderableError: what the sender is to be told otherwise: go on, begin
            again, too large, or busy.
        """
        block = req.opt.block1
        if block is None:
            return req
        if block.start + len(req.payload) > self._max_bytes:
            raise _RefusedError(Code.REQUEST_ENTITY_TOO_LARGE, f"at most {self._max_bytes} bytes")
        if block.block_number == 0 and len(self._assemblies._items) >= self._max_transfers:
            raise _RefusedError(
                Code.SERVICE_UNAVAILABLE, f"{self._max_transfers} transfers are under way"
            )
        whole = super().feed_and_take(req)
        # Nobody asks for it again: repeated messages are answered by their message id.
        for key, held in list(self._assemblies._items.items()):
            if held is whole:
                del self._assemblies._items[key]
        return whole


class ReadingsResource(resource.Resource):  # type: ignore[misc]  # aiocoap is untyped
    """``/v1/readings``."""

    def __init__(self, reception: Reception) -> None:
        super().__init__()
        self._reception = reception
        limits = reception.limits
        self._block1 = BoundedSpool(limits.max_body_bytes, limits.max_transfers)

    async def render_post(self, request: Any) -> Any:
        """Take readings; 2.04 when they are durable."""
        address = request.remote.hostinfo
        query = _query(request.opt.uri_query)
        limit = self._reception.limits.max_body_bytes
        try:
            identity = self._reception.identify(None, query.pop("token", None))
        except RefusedIdentityError as error:
            return _response(_counted(unidentified(_COAP, address, str(error)), address))
        if len(request.payload) > limit:
            return _response(_counted(too_large(limit), address))
        host = address.rpartition(":")[0]
        return _response(
            await self._reception.receive(
                _COAP, request.payload, _asked(request, query), (identity, host)
            )
        )


@asynccontextmanager
async def serve_coap(
    reception: Reception, resources: Mapping[tuple[str, ...], resource.Resource] | None = None
) -> AsyncIterator[None]:
    """Serve readings until the block ends, if the settings give a port.

    :param resources: further ones by path.
    :raises OSError: if the port is taken.
    """
    limits = reception.limits
    if limits.coap_port is None:
        yield
        return
    site = resource.Site()
    site.add_resource(["v1", "readings"], ReadingsResource(reception))
    for path, one in (resources or {}).items():
        site.add_resource(list(path), one)
    context = await aiocoap.Context.create_server_context(
        site, bind=(limits.host, limits.coap_port), transports=["udp6"]
    )
    _log.info("coap", host=limits.host, port=limits.coap_port)
    try:
        yield
    finally:
        await context.shutdown()


def _query(pairs: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def _asked(request: Any, query: Mapping[str, str]) -> Asked:
    content_type, encoding = _form(request.opt.content_format)
    return Asked(
        content_type,
        encoding,
        query.get("topic"),
        query.get("tenant"),
        query.get("site"),
        query.get("device"),
        query.get("metric"),
    )


def _form(given: Any) -> tuple[str | None, str | None]:
    """Return media type and encoding of a content format."""
    if given is None:
        return None, None
    if not given.is_known():
        return f"content format {int(given)}", None
    return given.media_type, given.encoding


def _counted(answer: Answer, address: str) -> Answer:
    count(_COAP, answer, address)
    return answer


def _response(answer: Answer) -> Any:
    if answer.outcome is Outcome.ACCEPTED:
        return Message(code=_CODES[answer.outcome])
    why = f"{answer.reason}: {answer.detail}".encode()[:_SHOWN]
    response = Message(code=_CODES[answer.outcome], payload=why)
    if answer.retry_after_s is not None:
        response.opt.max_age = answer.retry_after_s
    return response
