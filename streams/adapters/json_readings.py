"""Readings in JSON: an object of metric -> value, or a list of such objects.

Nested objects are flattened with a dot. ``null`` means that there is no reading. The fields
that the mapping names for time, seq, boot and device are not metrics. Where the topic names
the metric, the field ``value`` is that metric, and any other field F is ``METRIC.F``.
Each object of a list is a message of its own (own time and seq), but the list is taken or
refused as a whole.
"""

from __future__ import annotations

from typing import Any

from streams.adapters.rows import RowBuilder, Source, check_name
from streams.adapters.strict_json import loads
from streams.adapters.times import parse_t_ms
from streams.core.readings import ABSENT
from streams.errors import DecodeError

MAX_DEPTH = 8
"""Levels of nested objects."""
content_type = "application/json"


def recognises(payload: bytes) -> bool:
    """Whether a payload may be JSON; a list may also be SenML."""
    return payload.lstrip()[:1] in (b"{", b"[")


def decode(payload: bytes, source: Source, received_ms: int, rows: RowBuilder) -> None:
    """Add the readings of one JSON payload to *rows*.

    :raises DecodeError: as :func:`streams.adapters.strict_json.loads` and
        :meth:`RowBuilder.add`; ``bad-time``, ``bad-seq``, ``bad-name``; ``not-an-object`` if it
        is something else than an object or a list of them; ``no-readings`` if it has none.
    """
    add_parsed(loads(payload), source, received_ms, rows)


def add_parsed(parsed: Any, source: Source, received_ms: int, rows: RowBuilder) -> None:
    """Add what :func:`loads` gave; see :func:`decode`."""
    before = len(rows)
    for item in parsed if type(parsed) is list else (parsed,):
        if type(item) is not dict:
            raise DecodeError(
                "not-an-object",
                f"found {type(item).__name__}; expected an object of metric and value, "
                'such as {"temperature": 22.5}',
            )
        _add_object(item, source, received_ms, rows)
    if len(rows) == before:
        raise DecodeError("no-readings", "the payload has no metric with a value")


def _add_object(item: dict[str, Any], source: Source, received_ms: int, rows: RowBuilder) -> None:
    t_ms = None
    if source.time_field is not None:
        given = item.get(source.time_field)
        t_ms = None if given is None else parse_t_ms(given, source.time_unit)
    boot = item.get(source.boot_field)
    seq = item.get(source.seq_field)
    rows.begin(
        source,
        source.device if source.device is not None else _device(item, source),
        t_ms,
        received_ms,
        boot=ABSENT if boot is None else _counter(source.boot_field, boot),
        seq=ABSENT if seq is None else _counter(source.seq_field, seq),
    )
    add, reserved, metric = rows.add, source.reserved, source.metric
    for name, value in item.items():
        if name in reserved or value is None:
            continue
        full = name if metric is None else metric if name == "value" else f"{metric}.{name}"
        if type(value) is dict:
            _add_nested(full, value, rows, 1)
        else:
            add(full, value)


def _add_nested(prefix: str, item: dict[str, Any], rows: RowBuilder, depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise DecodeError("too-deep", f"objects are nested more than {MAX_DEPTH} levels deep")
    for name, value in item.items():
        if type(value) is dict:
            _add_nested(f"{prefix}.{name}", value, rows, depth + 1)
        elif value is not None:
            rows.add(f"{prefix}.{name}", value)


def _device(item: dict[str, Any], source: Source) -> str:
    field = source.device_field
    assert field is not None, "a mapping without a device has a device_field"
    name = item.get(field)
    if type(name) is int:
        name = str(name)
    if not isinstance(name, str):
        raise DecodeError(
            "bad-name", f"the field {field!r} must name the device; found {type(name).__name__}"
        )
    return check_name("device", name)


def _counter(field: str, value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise DecodeError(
            "bad-seq", f"{field} is {str(value)[:40]!r}; expected an integer from 0 to 2^63-1"
        )
    return value
