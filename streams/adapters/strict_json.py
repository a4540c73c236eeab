"""JSON as readings need it: integers keep their value, and a refusal has a plain reason."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import orjson

from streams.errors import DecodeError

_LONG_INTEGER = re.compile(rb"[0-9]{19}")
_INT64 = 2**63


def loads(payload: bytes) -> Any:
    """Parse *payload*.

    :raises DecodeError: ``empty-payload``, ``malformed-json``, ``not-a-number`` if it has NaN,
        Infinity or a number beyond float64, ``integer-too-large`` if it has an integer that 64
        bits with a sign do not hold, ``too-deep`` if it is nested beyond what a parser takes.
    """
    try:
        parsed = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise _reason(payload, error) from error
    if _LONG_INTEGER.search(payload):
        # orjson makes floats of integers beyond 64 bits, silently.
        try:
            _parse_slowly(payload)
        except RecursionError as error:
            raise DecodeError("too-deep", "objects or lists are nested too deep") from error
    return parsed


def _reason(payload: bytes, error: orjson.JSONDecodeError) -> DecodeError:
    if not payload.strip():
        return DecodeError("empty-payload", "the payload is empty; expected JSON")
    try:
        _parse_slowly(payload)
    except DecodeError as known:
        return known
    except RecursionError:
        return DecodeError("too-deep", "objects or lists are nested too deep")
    except ValueError:
        pass  # malformed for both parsers: orjson's message is the better one
    if "depth limit" in str(error):
        return DecodeError("too-deep", "objects or lists are nested too deep")
    return DecodeError("malformed-json", f"the payload is not JSON: {error}")


def _parse_slowly(payload: bytes) -> None:
    json.loads(payload, parse_constant=_refuse_constant, parse_float=_float, parse_int=_integer)


def _refuse_constant(token: str) -> NoReturn:
    raise DecodeError("not-a-number", f"{token} is not a JSON number; leave the field out")


def _float(token: str) -> float:
    value = float(token)
    if not math.isfinite(value):
        raise DecodeError("not-a-number", f"{token[:40]} is beyond what float64 holds")
    return value


def _integer(token: str) -> int:
    # Longer tokens are not converted: that takes time quadratic in their length.
    if len(token) > 20 or not -_INT64 <= int(token) < _INT64:
        raise DecodeError(
            "integer-too-large",
            f"{token[:40]} is beyond 64 bits with a sign; send it as text or as a float",
        )
    return int(token)
