"""Times in payloads: numbers in a declared unit, or ISO-8601 text."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from streams.adapters.rows import check_t_ms
from streams.errors import DecodeError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_PER_MS = {"us": 1_000, "ns": 1_000_000}


def parse_t_ms(value: object, unit: str) -> int:
    """Return a payload's time in integer milliseconds since the epoch (rounded down).

    :param value: a number in *unit* (``ms``, ``s``, ``us`` or ``ns``), or ISO-8601 text; text
        without a time zone is UTC.
    :raises DecodeError: ``bad-time`` if it is neither, or outside the years 1970 to 9999.
    """
    if type(value) is int:
        t_ms = value if unit == "ms" else value * 1000 if unit == "s" else value // _PER_MS[unit]
    elif type(value) is float and math.isfinite(value):
        scaled = value if unit == "ms" else value * 1000 if unit == "s" else value / _PER_MS[unit]
        if not math.isfinite(scaled):
            raise DecodeError("bad-time", f"the time {value} is beyond any calendar")
        # Seconds with a fraction are binary: 1700000000.123 s must not become 122 ms.
        t_ms = math.floor(scaled + 1e-3)
    elif isinstance(value, str):
        t_ms = _parse_iso(value)
    else:
        raise DecodeError(
            "bad-time",
            f"the time is {type(value).__name__} {str(value)[:40]}; "
            f"expected a number in {unit}, or ISO-8601 text",
        )
    return check_t_ms(t_ms, value)


def _parse_iso(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - _EPOCH) // _MS
    except (ValueError, OverflowError) as error:
        raise DecodeError(
            "bad-time", f"{text[:40]!r} is not ISO-8601 such as 2025-06-01T12:00:00Z"
        ) from error
