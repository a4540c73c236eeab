from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from streams.gateway.sockets import PacketSocket
from tests.unit.packet_bytes import publish


@pytest.fixture
def pair() -> Iterator[tuple[PacketSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    packets = PacketSocket(ours, 1_000_000)
    yield packets, theirs
    packets.close()
    theirs.close()


def test_paho_sees_every_packet_but_publish(pair: tuple[PacketSocket, socket.socket]) -> None:
    packets, broker = pair
    broker.sendall(b"\xd0\x00" + publish("a", b"1", mid=3) + b"\x90\x04\x00\x01\x00\x01")
    published, more = packets.read()
    assert [one.mid for one in published] == [3]
    assert more
    assert packets.pending() == 8
    assert packets.recv(1) + packets.recv(1) == b"\xd0\x00"
    assert packets.recv(100) == b"\x90\x04\x00\x01\x00\x01"
    assert not packets.has_more
    with pytest.raises(BlockingIOError):
        packets.recv(1)


def test_the_end_of_the_connection_reaches_paho(pair: tuple[PacketSocket, socket.socket]) -> None:
    packets, broker = pair
    broker.close()
    assert packets.read() == ([], False)
    assert packets.has_more
    assert packets.recv(1) == b""


def test_writes_are_gathered_until_flushed(pair: tuple[PacketSocket, socket.socket]) -> None:
    packets, broker = pair
    broker.setblocking(False)
    assert packets.send(b"ab") == 2
    packets.send(b"cd")
    with pytest.raises(BlockingIOError):
        broker.recv(10)
    assert packets.flush()
    assert broker.recv(10) == b"abcd"


def test_what_the_kernel_does_not_take_stays_for_later(
    pair: tuple[PacketSocket, socket.socket],
) -> None:
    packets, broker = pair
    data = bytes(8_000_000)
    packets.send(data)
    assert not packets.flush()
    got = 0
    while got < len(data):
        got += len(broker.recv(1_000_000))
        packets.flush()
    assert packets.flush()
