"""MQTT 5 packets written out by hand, for the tests of the packet reader."""

from __future__ import annotations


def length_bytes(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def publish(topic: str, payload: bytes, *, mid: int = 0, properties: bytes = b"") -> bytes:
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name
    if mid:
        body += mid.to_bytes(2, "big")
    body += length_bytes(len(properties)) + properties + payload
    return bytes([0x32 if mid else 0x30]) + length_bytes(len(body)) + body


def user_property(name: str, value: str) -> bytes:
    def text(of: str) -> bytes:
        return len(of.encode()).to_bytes(2, "big") + of.encode()

    return b"\x26" + text(name) + text(value)
