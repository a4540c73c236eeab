"""Asking an edge for raw readings of its ring, and how far it is (docs/wire.md). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import orjson

from streams.errors import DecodeError

MAX_BYTES = 16_384
"""Of a request or a progress report."""
MAX_GLOBS = 64
_ID = re.compile(r"[0-9a-f]{8,32}")
_TIME_LIMIT_MS = 1 << 42


class State(StrEnum):
    """How a request is."""

    READING = "reading"
    """Readings are looked for in the ring, and go up."""
    DONE = "done"
    """Kafka has confirmed all of them."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Request:
    """Raw readings of event times in [from_ms, to_ms), milliseconds since the epoch."""

    id: str
    from_ms: int
    to_ms: int
    devices: tuple[str, ...] = ("*",)
    """Globs."""
    metrics: tuple[str, ...] = ("*",)
    """Globs."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What an edge says of a request."""

    id: str
    state: State
    segments: int
    """Segments of the ring that were looked through."""
    of_segments: int
    readings: int
    """Readings found so far."""
    detail: str = ""


def request_topic(tenant: str, site: str) -> str:
    """Return the topic that a site hears requests on."""
    return f"hw/v1/{tenant}/{site}/backfill"


def progress_topic(tenant: str, site: str) -> str:
    """Return the topic on which a site says how far it is."""
    return f"{request_topic(tenant, site)}/status"


def encode(one: Request | Progress) -> bytes:
    """Return a request or a report as JSON."""
    return orjson.dumps(asdict(one))


def decode_request(payload: bytes) -> Request:
    """Read a request.

    :raises DecodeError: ``bad-backfill`` if it is none.
    """
    parsed = _object(payload)
    begin, end = _whole(parsed, "from_ms"), _whole(parsed, "to_ms")
    if begin >= end:
        raise DecodeError("bad-backfill", f"from_ms {begin} is not before to_ms {end}")
    return Request(_id(parsed), begin, end, _globs(parsed, "devices"), _globs(parsed, "metrics"))


def decode_progress(payload: bytes) -> Progress:
    """Read a report.

    :raises DecodeError: ``bad-backfill`` if it is none.
    """
    parsed = _object(payload)
    try:
        state = State(str(parsed.get("state")))
    except ValueError as error:
        raise DecodeError("bad-backfill", str(error)[:200]) from error
    return Progress(
        _id(parsed),
        state,
        _whole(parsed, "segments"),
        _whole(parsed, "of_segments"),
        _whole(parsed, "readings"),
        str(parsed.get("detail", ""))[:1_000],
    )


def _object(payload: bytes) -> dict[str, Any]:
    if len(payload) > MAX_BYTES:
        raise DecodeError("bad-backfill", f"{len(payload)} bytes; at most {MAX_BYTES} are taken")
    try:
        parsed = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise DecodeError("bad-backfill", f"not JSON: {error}") from error
    if type(parsed) is not dict:
        raise DecodeError("bad-backfill", f"found {type(parsed).__name__}; expected an object")
    return parsed


def _id(parsed: dict[str, Any]) -> str:
    found = parsed.get("id")
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise DecodeError("bad-backfill", f"id is {found!r:.60}; expected 8 to 32 hex digits")
    return found


def _whole(parsed: dict[str, Any], name: str) -> int:
    found = parsed.get(name)
    if type(found) is not int or not 0 <= found <= _TIME_LIMIT_MS:
        raise DecodeError("bad-backfill", f"{name} is {found!r:.60}; expected a whole number >= 0")
    return found


def _globs(parsed: dict[str, Any], name: str) -> tuple[str, ...]:
    found: Sequence[Any] = parsed.get(name, ["*"])
    if type(found) is not list or not 0 < len(found) <= MAX_GLOBS:
        raise DecodeError("bad-backfill", f"{name}: expected a list of 1 to {MAX_GLOBS} globs")
    if not all(isinstance(glob, str) and 0 < len(glob) <= 128 for glob in found):
        raise DecodeError("bad-backfill", f"{name}: expected globs of 1 to 128 characters")
    return tuple(found)
