"""A codec of one's own: the readings of a small binary protocol.

A message is ``PK1``, the event time in milliseconds (uint64), and for each reading the number of a
metric (uint8) and its value (float32), all big-endian. The device is that of the record or topic.
"""

from __future__ import annotations

import struct

from streams.adapters.codecs import Rows
from streams.adapters.rows import Source
from streams.errors import DecodeError

content_type = "application/x-packed"
_MAGIC = b"PK1"
_HEAD, _READING = struct.Struct(">3sQ"), struct.Struct(">Bf")
_METRICS = {1: "temperature", 2: "pressure"}


def recognises(payload: bytes) -> bool:
    """Whether a payload begins like a message."""
    return payload.startswith(_MAGIC)


def decode(payload: bytes, source: Source, received_ms: int, rows: Rows) -> None:
    """Add the readings of one message; one that is cut, or has an unknown metric, is refused."""
    body = len(payload) - _HEAD.size
    if body < 0 or body % _READING.size:
        raise DecodeError("malformed-packed", f"{len(payload)} bytes are no whole message")
    _, t_ms = _HEAD.unpack_from(payload)
    if source.device is None:
        raise DecodeError("no-device", "a packed message names no device: its topic has to")
    rows.begin(source, source.device, t_ms, received_ms)
    for number, value in _READING.iter_unpack(payload[_HEAD.size :]):
        if number not in _METRICS:
            raise DecodeError("unknown-metric", f"no metric has the number {number}")
        rows.add(_METRICS[number], value)
