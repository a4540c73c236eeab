"""Readings over HTTP: ``POST /v1/readings`` (docs/wire.md)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from streams.intake.identities import RefusedIdentityError, identity_of
from streams.intake.reception import Answer, Outcome, Reception, count, too_large, unidentified
from streams.intake.requests import Asked
from streams.intake.tls import PEER, PeerProtocol, server_context
from streams.ops import serve

_HTTP = "http"
_BEARER = "bearer "
_STATUS = {
    Outcome.ACCEPTED: 202,
    Outcome.UNIDENTIFIED: 401,
    Outcome.FOREIGN: 403,
    Outcome.TOO_LARGE: 413,
    Outcome.UNSUPPORTED: 415,
    Outcome.UNPROCESSABLE: 422,
    Outcome.TOO_MANY: 429,
    Outcome.BUSY: 503,
    Outcome.LATE: 503,
}


class _BodyError(Exception):
    """A body that is not read to its end."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.detail)
        self.answer = answer


def readings_route(reception: Reception) -> Route:
    """Return the route, for any app."""

    async def post(request: Request) -> Response:
        address = request.client.host if request.client else ""
        try:
            certificate = request.scope.get(PEER)
            identity = reception.identify(
                None if certificate is None else identity_of(certificate), _token(request)
            )
        except RefusedIdentityError as error:
            answer = unidentified(_HTTP, address, str(error))
            count(_HTTP, answer, address)
            return _response(answer)
        try:
            body = await _body(request, reception)
        except _BodyError as error:
            count(_HTTP, error.answer, address)
            return _response(error.answer)
        sender = identity, address
        return _response(await reception.receive(_HTTP, body, _asked(request), sender))

    return Route("/v1/readings", post, methods=["POST"])


@asynccontextmanager
async def serve_http(reception: Reception) -> AsyncIterator[None]:
    """Serve readings until the block ends, if the settings give a port.

    :raises SettingsError: if a file of the settings cannot be used.
    :raises OSError: if the port is taken.
    """
    limits = reception.limits
    if limits.http_port is None:
        yield
        return
    async with serve(
        Starlette(routes=[readings_route(reception)]),
        limits.host,
        limits.http_port,
        tls=server_context(limits),
        protocol=PeerProtocol,
        max_connections=limits.max_connections,
    ):
        yield


def _token(request: Request) -> str | None:
    given = request.headers.get("authorization", "")
    return given[len(_BEARER) :].strip() if given.lower().startswith(_BEARER) else None


def _asked(request: Request) -> Asked:
    query, headers = request.query_params, request.headers
    return Asked(
        headers.get("content-type"),
        headers.get("content-encoding"),
        query.get("topic"),
        query.get("tenant"),
        query.get("site"),
        query.get("device"),
        query.get("metric"),
    )


async def _body(request: Request, reception: Reception) -> bytes:
    limits = reception.limits
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.timeout_ms / 1000):
            async for piece in request.stream():
                pieces.append(piece)
                size += len(piece)
                if size > limits.max_body_bytes:
                    raise _BodyError(too_large(limits.max_body_bytes))
    except TimeoutError as error:
        detail = f"the body did not come within {limits.timeout_ms} ms (intake.timeout_ms)"
        late = Answer(Outcome.LATE, reason="slow-body", detail=detail, retry_after_s=1)
        raise _BodyError(late) from error
    return b"".join(pieces)


def _response(answer: Answer) -> Response:
    headers = {}
    if answer.retry_after_s is not None:
        headers["retry-after"] = str(answer.retry_after_s)
    if answer.outcome is Outcome.UNIDENTIFIED:
        headers["www-authenticate"] = "Bearer"
    told: dict[str, object] = {"readings": answer.readings}
    if answer.outcome is not Outcome.ACCEPTED:
        told = {"detail": {"reason": answer.reason, "detail": answer.detail}}
    return Response(
        orjson.dumps(told), _STATUS[answer.outcome], headers, media_type="application/json"
    )
