"""The socket under paho: reads in large pieces, writes gathered."""

from __future__ import annotations

import socket
import ssl
from collections import deque

import paho.mqtt.client as mqtt

from streams.gateway.packets import PacketReader, Publish

_READ_BYTES = 262_144
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class PacketSocket:
    """What paho takes for its socket: it sees whole packets, and no PUBLISH of QoS 0 or 1.

    Sends are gathered until :meth:`flush`, so that the acknowledgements of a batch leave in one
    system call.
    """

    def __init__(self, raw: socket.socket, max_packet_bytes: int) -> None:
        self._raw = raw
        self._reader = PacketReader(max_packet_bytes)
        self._for_paho: deque[bytes] = deque()
        self._out = bytearray()
        self._ended = False

    def read(self) -> tuple[list[Publish], bool]:
        """Read what is there once: the messages, and whether more may be waiting.

        :raises OSError: if the connection broke. :raises ProtocolError: if the bytes are wrong.
        """
        try:
            data = self._raw.recv(_READ_BYTES)
        except _WOULD_BLOCK:
            return [], False
        if not data:
            self._ended = True
            return [], False
        published, others = self._reader.feed(data)
        self._for_paho.extend(others)
        return published, True

    @property
    def has_more(self) -> bool:
        """Whether paho has something to read: packets, or the end of the connection."""
        return bool(self._for_paho) or self._ended

    def recv(self, size: int) -> bytes:
        """Give paho the next bytes of a whole packet."""
        if not self._for_paho:
            if self._ended:
                return b""
            raise BlockingIOError
        packet = self._for_paho.popleft()
        if len(packet) > size:
            self._for_paho.appendleft(packet[size:])
        return packet[:size]

    def send(self, data: bytes | bytearray) -> int:
        """Keep *data* for the next :meth:`flush`."""
        self._out += data
        return len(data)

    def flush(self) -> bool:
        """Write what was gathered; return whether all of it went out.

        :raises OSError: if the connection broke.
        """
        while self._out:
            try:
                sent = self._raw.send(self._out)
            except _WOULD_BLOCK:
                return False
            del self._out[:sent]
        return True

    def setblocking(self, flag: bool) -> None:
        """As of a socket."""
        self._raw.setblocking(flag)

    def fileno(self) -> int:
        """As of a socket."""
        return self._raw.fileno()

    def pending(self) -> int:
        """Bytes that paho can read at once; as of an SSL socket."""
        return sum(map(len, self._for_paho))

    def close(self) -> None:
        """As of a socket."""
        self._raw.close()


class PacketClient(mqtt.Client):
    """A paho client over a :class:`PacketSocket`. Driven from outside, never by a thread."""

    max_packet_bytes = 17 * 2**20
    """The broker discards longer ones unseen; payloads of 16 MiB and their topic fit."""
    packets: PacketSocket | None = None

    def _create_socket(self) -> PacketSocket:
        raw = super()._create_socket()
        assert isinstance(raw, socket.socket), "no websockets are used"
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.packets = PacketSocket(raw, self.max_packet_bytes)
        return self.packets
