"""What the HTTP surfaces of edge and cloud share: the body of an edit, and its refusals."""

from __future__ import annotations

from fastapi import HTTPException, Request

from crdt.core.errors import EditError

MAX_BODY_BYTES = 1_048_576


async def body_of(request: Request) -> bytes:
    """Return the body of an edit.

    :raises HTTPException: 413 if it is over ``MAX_BODY_BYTES``.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"an edit has at most {MAX_BODY_BYTES} bytes")
    return body


def refusal(error: EditError) -> HTTPException:
    """Return the answer to an edit that cannot be made: 422 with reason and detail."""
    return HTTPException(422, {"reason": error.reason, "detail": error.detail})


def unknown(device: str) -> HTTPException:
    """Return the answer for a device without a twin: 404."""
    return HTTPException(
        404, {"reason": "unknown-device", "detail": f"{device!r} has no twin here yet"}
    )
