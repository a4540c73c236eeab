"""What the HTTP surfaces of edge and cloud share about commands."""

from __future__ import annotations

from fastapi import HTTPException

from crdt.core.errors import TwinError

MAX_WAIT_MS = 60_000
_CONFLICTS = frozenset({"id-taken", "already-ended", "not-started", "too-many-open"})


def command_refusal(error: TwinError) -> HTTPException:
    """Return the answer to what cannot be done: 409 where it is a matter of state, else 422."""
    code = 409 if error.reason in _CONFLICTS else 422
    return HTTPException(code, {"reason": error.reason, "detail": error.detail})


def unknown_command(device: str, id_: str) -> HTTPException:
    """Return the answer for a command that is not known: 404."""
    detail = f"no command {id_[:64]!r} of {device!r} is known here"
    return HTTPException(404, {"reason": "unknown-command", "detail": detail})
