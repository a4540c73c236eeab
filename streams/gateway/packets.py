"""MQTT 5 packets from a byte stream, sans I/O: bytes in, PUBLISH packets and the rest out.

Paho reads the socket byte by byte and makes a properties object per message, which bounds a
gateway to a few thousand messages per second of CPU. So the gateway cuts the stream into
packets itself, takes PUBLISH of QoS 0 and 1 out, and hands every other packet to paho whole.
Section numbers are those of MQTT Version 5.0 (OASIS, 2019).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from streams.errors import HeadwaterError

_PUBLISH = 3
_SUBSCRIPTION_ID = 0x0B
_USER_PROPERTY = 0x26
# Property identifier -> length of its value; the rest of PUBLISH's are handled by name (3.3.2.3).
_FIXED = {0x01: 1, 0x02: 4, 0x23: 2}
_ONE_STRING = (0x03, 0x08, 0x09)
_PUBACK = struct.Struct(">BBH")


class ProtocolError(HeadwaterError):
    """The broker sent bytes that are not MQTT 5, or a packet over the agreed size."""


class Publish(NamedTuple):
    """One PUBLISH packet; ``mid`` is 0 for QoS 0. ``properties`` is undecoded."""

    topic: bytes
    payload: bytes
    qos: int
    mid: int
    properties: bytes


class PacketReader:
    """Cuts a byte stream into packets."""

    def __init__(self, max_packet_bytes: int) -> None:
        """Begin at a packet boundary.

        :param max_packet_bytes: a longer packet is an error: we told the broker so at CONNECT.
        """
        self._max = max_packet_bytes
        self._data = b""
        self._needed = 0
        self._pieces: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> tuple[list[Publish], list[bytes]]:
        """Take bytes; return the whole PUBLISH packets and the whole other packets among them.

        :raises ProtocolError: if a length is malformed or over the limit, or a PUBLISH is cut.
        """
        # Pieces of a long packet are joined once, not per piece.
        self._pieces.append(data)
        self._held += len(data)
        if self._held < self._needed:
            return [], []
        data = b"".join(self._pieces) if len(self._pieces) > 1 else data
        published: list[Publish] = []
        others: list[bytes] = []
        at, end = 0, len(data)
        self._needed = 0
        while end - at >= 2:
            length, body = _varint(data, at + 1)
            if length < 0:
                break
            after = body + length
            if after - at > self._max:
                raise ProtocolError(f"a packet of {after - at} bytes; agreed are {self._max}")
            if after > end:
                self._needed = after - at
                break
            first = data[at]
            if first >> 4 == _PUBLISH and first & 0x06 <= 0x02:
                published.append(_publish(data, first, body, after))
            else:
                others.append(data[at:after])
            at = after
        self._pieces = [data[at:]] if at < end else []
        self._held = end - at
        return published, others


def _publish(data: bytes, first: int, at: int, after: int) -> Publish:
    try:
        topic_end = at + 2 + ((data[at] << 8) | data[at + 1])
        topic = data[at + 2 : topic_end]
        qos = (first >> 1) & 3
        mid = 0
        if qos:
            mid = (data[topic_end] << 8) | data[topic_end + 1]
            topic_end += 2
        length, properties = _varint(data, topic_end)
    except IndexError as error:
        raise ProtocolError("a PUBLISH packet is shorter than its own fields") from error
    payload = properties + length
    if length < 0 or payload > after:
        raise ProtocolError("a PUBLISH packet is shorter than its own fields")
    return Publish(topic, data[payload:after], qos, mid, data[properties:payload])


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a variable byte integer (1.5.5) and where it ends; (-1, at) if it is not all there.

    :raises ProtocolError: if it is longer than four bytes.
    """
    value = 0
    for shift in (0, 7, 14, 21):
        if at >= len(data):
            return -1, at
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ProtocolError("a variable byte integer has more than four bytes")


def subscription_ids(properties: bytes) -> list[int]:
    """Return the identifiers of the subscriptions that a PUBLISH was delivered for (3.3.2.3.8).

    :raises ProtocolError: if the properties are malformed.
    """
    return [
        _varint(properties, at)[0] for kind, at in _walk(properties) if kind == _SUBSCRIPTION_ID
    ]


def user_properties(properties: bytes) -> list[tuple[str, str]]:
    """Return the user properties of a PUBLISH, in order (3.3.2.3.7).

    :raises ProtocolError: if the properties are malformed.
    """
    found = []
    for kind, at in _walk(properties):
        if kind == _USER_PROPERTY:
            middle = _after_string(properties, at)
            end = _after_string(properties, middle)
            name, value = properties[at + 2 : middle], properties[middle + 2 : end]
            found.append((name.decode(errors="replace"), value.decode(errors="replace")))
    return found


def _walk(properties: bytes) -> Iterator[tuple[int, int]]:
    """Yield each property's identifier and where its value begins."""
    at, end = 0, len(properties)
    while at < end:
        kind = properties[at]
        at += 1
        yield kind, at
        if kind == _SUBSCRIPTION_ID:
            _, at = _varint(properties, at)
        elif kind in _FIXED:
            at += _FIXED[kind]
        elif kind in _ONE_STRING:
            at = _after_string(properties, at)
        elif kind == _USER_PROPERTY:
            at = _after_string(properties, _after_string(properties, at))
        else:
            raise ProtocolError(f"unknown property {kind} in a PUBLISH packet")


def _after_string(data: bytes, at: int) -> int:
    return at + 2 + int.from_bytes(data[at : at + 2], "big")


def pubacks(mids: list[int]) -> bytes:
    """Return PUBACK packets that say success, in the order given (3.4.2.1)."""
    pack = _PUBACK.pack
    return b"".join([pack(0x40, 2, mid) for mid in mids])
