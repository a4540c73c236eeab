from __future__ import annotations

import pytest

from streams.gateway.packets import (
    PacketReader,
    ProtocolError,
    Publish,
    pubacks,
    subscription_ids,
    user_properties,
)
from tests.unit.packet_bytes import length_bytes, publish

LIMIT = 1_000_000
SUBACK = b"\x90\x04\x00\x01\x00\x01"


def test_a_publish_of_qos_1_gives_topic_payload_and_packet_identifier() -> None:
    found, others = PacketReader(LIMIT).feed(publish("a/b", b"22.5", mid=513))
    assert found == [Publish(b"a/b", b"22.5", 1, 513, b"")]
    assert others == []


def test_a_publish_of_qos_0_has_no_packet_identifier() -> None:
    found, _ = PacketReader(LIMIT).feed(publish("a", b""))
    assert found == [Publish(b"a", b"", 0, 0, b"")]


def test_other_packets_come_out_whole_for_paho() -> None:
    stream = SUBACK + publish("a", b"1") + b"\xd0\x00"
    found, others = PacketReader(LIMIT).feed(stream)
    assert len(found) == 1
    assert others == [SUBACK, b"\xd0\x00"]


def test_properties_are_stepped_over_and_subscription_identifiers_found() -> None:
    properties = (
        b"\x01\x01" + b"\x02\x00\x00\x00\x05" + b"\x0b\x07" + b"\x03\x00\x01x"
        b"\x26\x00\x01k\x00\x01v" + b"\x0b\x80\x01" + b"\x09\x00\x02\x00\x01"
    )
    found, _ = PacketReader(LIMIT).feed(publish("a", b"1", properties=properties))
    assert found[0].payload == b"1"
    assert subscription_ids(found[0].properties) == [7, 128]
    assert user_properties(found[0].properties) == [("k", "v")]


@pytest.mark.parametrize(
    "stream",
    [
        b"\x30\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x30" + length_bytes(LIMIT + 1),  # over what was agreed
        b"\x30\x03\x00\x09a",  # a topic longer than its packet
        b"\x32\x03\x00\x01a",  # no packet identifier
        b"\x30\x04\x00\x01a\x09",  # properties longer than the packet
    ],
    ids=["length", "limit", "topic", "identifier", "properties"],
)
def test_a_malformed_stream_is_an_error(stream: bytes) -> None:
    with pytest.raises(ProtocolError):
        PacketReader(LIMIT).feed(stream)


def test_an_unknown_property_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="unknown property"):
        subscription_ids(b"\x7f\x00")


def test_pubacks_are_in_the_order_given() -> None:
    assert pubacks([1, 65535]) == b"\x40\x02\x00\x01\x40\x02\xff\xff"
