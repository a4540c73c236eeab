"""Readings in SenML (RFC 8428), JSON or CBOR.

Each record is resolved after section 4.6 of the RFC: base fields carry over, times below 2^28
are relative to the time of receipt (section 4.5.3), base values and base sums are added.
The metric is the record's name; where the base name only repeats the device, it is left out.
``vb`` counts as 0 or 1, ``vs`` needs a metric declared as text, ``s`` is the metric ``NAME.sum``.
"""

from __future__ import annotations

import re
from typing import Any

import cbor2

from streams.adapters.rows import RowBuilder, Source, check_name
from streams.adapters.strict_json import loads
from streams.adapters.times import parse_t_ms
from streams.adapters.units import convert
from streams.errors import DecodeError

_VERSION = 10
_RELATIVE_S = 2**28
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*")
_SEPARATORS = ":/._-"
_VALUES = ("v", "vs", "vb", "vd")
_LABELS = frozenset(
    ("bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "v", "vs", "vb", "vd", "s", "t", "ut")
)
# RFC 8428, table 4.
_CBOR_LABELS = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs", 0: "n", 1: "u", 2: "v",
    3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
content_type = "application/senml+json"


def recognises(payload: bytes) -> bool:
    """Whether a payload may be a pack; a JSON list may also be one of plain objects."""
    return payload.lstrip()[:1] == b"[" or 0x80 <= (payload or b"\0")[0] <= 0x9F


def looks_like(parsed: Any) -> bool:
    """Whether parsed JSON is a SenML pack rather than a list of objects of metrics."""
    return (
        type(parsed) is list
        and len(parsed) > 0
        and all(type(record) is dict and _LABELS.issuperset(record) for record in parsed)
        and ("n" in parsed[0] or "bn" in parsed[0])
    )


def decode(payload: bytes, source: Source, received_ms: int, rows: RowBuilder) -> None:
    """Add the readings of one pack to *rows*.

    :raises DecodeError: ``malformed-json``, ``malformed-cbor`` or ``malformed-senml`` if it is
        not a pack, ``senml-version`` if it is of a later version, ``bad-name``, ``bad-time``,
        ``unknown-unit``, ``no-readings``; and as :meth:`RowBuilder.add`.
    """
    if not payload.strip():
        raise DecodeError("empty-payload", "the payload is empty; expected a SenML pack")
    is_cbor = 0x80 <= payload[0] <= 0x9F  # a CBOR array
    add_parsed(_loads_cbor(payload) if is_cbor else loads(payload), source, received_ms, rows)


def add_parsed(parsed: Any, source: Source, received_ms: int, rows: RowBuilder) -> None:
    """Add the records of a parsed pack; see :func:`decode`."""
    if type(parsed) is not list:
        raise DecodeError(
            "malformed-senml", f"found {type(parsed).__name__}; a SenML pack is an array of records"
        )
    before = len(rows)
    base: dict[str, Any] = {}
    for record in parsed:
        if type(record) is not dict:
            raise DecodeError("malformed-senml", "a SenML record is not an object")
        _check_fields(record)
        base.update((key, value) for key, value in record.items() if key[0] == "b")
        _add_record(record, base, source, received_ms, rows)
    if len(rows) == before:
        raise DecodeError("no-readings", "the SenML pack has no record with a value")


def _check_fields(record: dict[Any, Any]) -> None:
    for key in record:
        if not isinstance(key, str) or not key:
            raise DecodeError("malformed-senml", f"unknown label {str(key)[:40]!r}")
        if key.endswith("_") and key not in _LABELS:
            raise DecodeError(
                "malformed-senml", f"{key[:40]!r} must be understood (RFC 8428, 4.4) and is not"
            )
    version = record.get("bver", _VERSION)
    if type(version) is not int or not 0 < version <= _VERSION:
        raise DecodeError("senml-version", f"bver is {str(version)[:40]}; this reader knows 10")


def _add_record(
    record: dict[str, Any],
    base: dict[str, Any],
    source: Source,
    received_ms: int,
    rows: RowBuilder,
) -> None:
    given = [key for key in _VALUES if key in record]
    if len(given) > 1:
        raise DecodeError("malformed-senml", f"a record has {' and '.join(given)}; one is allowed")
    has_sum = "s" in record or ("bs" in base and given)
    if not given and not has_sum:
        if record.keys() & {"n", "t", "u", "ut"} and "bv" not in base:
            raise DecodeError("malformed-senml", "a record has a name or time but no value")
        if "bv" not in base or not record.keys() & {"n", "t", "u", "ut"}:
            return  # only base fields: they apply to what follows
    name, device = _names(record, base, source)
    rows.begin(source, device, _t_ms(record, base, source, received_ms), received_ms)
    unit = record.get("u", base.get("bu"))
    if given or "bv" in base:
        rows.add(name, _value(record, base, name, unit, rows))
    if has_sum:
        rows.add(f"{name}.sum", _number(record, "s", 0) + _number(base, "bs", 0))


def _names(record: dict[str, Any], base: dict[str, Any], source: Source) -> tuple[str, str]:
    """The metric and the device of a record."""
    bn, n = base.get("bn", ""), record.get("n", "")
    if not isinstance(bn, str) or not isinstance(n, str):
        raise DecodeError("bad-name", "bn and n must be text")
    full = bn + n
    stem = bn.rstrip(_SEPARATORS)
    if full and not _NAME.fullmatch(full):
        raise DecodeError("bad-name", f"the SenML name {full[:60]!r} has signs that RFC 8428 bars")
    if source.device is None:
        device = check_name("device", stem)
        return (n or source.metric or _no_name()), device
    own = stem == source.device or stem.endswith(tuple(s + source.device for s in _SEPARATORS))
    return ((n if own else full) or source.metric or _no_name()), source.device


def _no_name() -> str:
    raise DecodeError("bad-name", "a SenML record has no name (n) and the mapping gives no metric")


def _t_ms(
    record: dict[str, Any], base: dict[str, Any], source: Source, received_ms: int
) -> int | None:
    if source.time_field is None or ("t" not in record and "bt" not in base):
        return None
    t_s = _number(record, "t", 0, "bad-time") + _number(base, "bt", 0, "bad-time")
    if t_s >= _RELATIVE_S:
        return parse_t_ms(t_s, "s")
    # "now" stays exactly the time of receipt: the producer has no clock of its own.
    return None if t_s == 0 else parse_t_ms(received_ms + round(t_s * 1000), "ms")


def _value(
    record: dict[str, Any], base: dict[str, Any], name: str, unit: object, rows: RowBuilder
) -> object:
    for key in ("vs", "vb", "vd"):
        if key in record:
            value = record[key]
            if key == "vb" and type(value) is not bool:
                raise DecodeError("not-a-number", f"vb of {name} is not true or false")
            return value
    value = _number(record, "v", 0) + _number(base, "bv", 0)
    return convert(value, unit, rows.unit_of(name), name)


def _number(
    fields: dict[str, Any], key: str, default: int, reason: str = "not-a-number"
) -> int | float:
    value = fields.get(key, default)
    if type(value) is not int and type(value) is not float:
        raise DecodeError(reason, f"{key} is {type(value).__name__}; expected a number")
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise DecodeError("integer-too-large", f"{key} is beyond 64 bits with a sign")
    if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124  # NaN test
        raise DecodeError(reason, f"{key} is {value}; expected a finite number")
    return value


def _loads_cbor(payload: bytes) -> list[Any]:
    try:
        parsed = cbor2.loads(payload)
    # Hostile CBOR reaches into constructors of many types; all of these mean "not a pack".
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError,
            LookupError, ArithmeticError) as error:  # fmt: skip
        raise DecodeError("malformed-cbor", f"the payload is not CBOR: {error}") from error
    if not isinstance(parsed, list):
        raise DecodeError("malformed-senml", "a SenML pack is an array of records")
    return [
        {_label(key): value for key, value in record.items()} if type(record) is dict else record
        for record in parsed
    ]


def _label(key: object) -> Any:
    return _CBOR_LABELS.get(key, key) if type(key) is int else key
