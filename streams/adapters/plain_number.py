"""One reading as a plain number in ASCII, such as ``22.5``."""

from __future__ import annotations

import re

from streams.adapters.rows import RowBuilder, Source
from streams.errors import DecodeError

_NUMBER = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(rb"[+-]?[0-9]+")
MAX_LENGTH = 64
"""Characters of a number, spaces around it not counted."""
content_type = "text/plain"


def recognises(payload: bytes) -> bool:
    """Whether a payload is a number."""
    return _NUMBER.fullmatch(payload.strip()) is not None


def decode(payload: bytes, source: Source, received_ms: int, rows: RowBuilder) -> None:
    """Add the one reading of *payload* to *rows*; its time is the time of receipt.

    A metric that the catalogue declares as text takes the payload as UTF-8 text.

    :raises DecodeError: ``empty-payload``, ``not-a-number``, ``integer-too-large``, or
        ``no-metric`` if the mapping does not say which device and metric the number is.
    """
    if source.device is None or source.metric is None:
        raise DecodeError(
            "no-metric",
            "a plain number names neither device nor metric; set both in the mapping "
            '(device = "...", metric = "...") or capture them in its topic',
        )
    rows.begin(source, source.device, None, received_ms)
    if rows.is_text(source.metric):
        rows.add(source.metric, _text(payload))
        return
    stripped = payload.strip()
    if not stripped:
        raise DecodeError("empty-payload", "the payload is empty; expected a number such as 22.5")
    if len(stripped) > MAX_LENGTH:
        integer = _INTEGER.fullmatch(stripped)
        raise DecodeError(
            "integer-too-large" if integer else "not-a-number",
            f"{len(stripped)} bytes; a number has at most {MAX_LENGTH}",
        )
    if _INTEGER.fullmatch(stripped):
        rows.add(source.metric, int(stripped))
    elif _NUMBER.fullmatch(stripped):
        rows.add(source.metric, float(stripped))
    else:
        shown = stripped.decode("utf-8", errors="replace")[:40]
        raise DecodeError("not-a-number", f"found {shown!r}; expected a number such as 22.5")


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise DecodeError("not-text", f"the payload is not UTF-8: {error}") from error
