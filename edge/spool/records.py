"""Records in a segment: bytes in, records and damage out. No I/O.

A record is a head and a payload, each with a checksum of its own::

    magic "HWs1" | rows u32 | length u32 | crc32 of the payload u32 | oldest_ms i64
    | written_ms i64 | flags u32 | crc32 of the head u32 | payload

A head that is whole tells how many readings were in a payload that is not, so that a loss can be
counted. Behind damage the next whole head is searched for: one bad block does not cost the rest.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

_MAGIC = b"HWs1"
_HEAD = struct.Struct("<4sIIIqqI")
_CRC = struct.Struct("<I")
HEAD_BYTES = _HEAD.size + _CRC.size
MAX_PAYLOAD_BYTES = 1 << 24
"""A greater length in a head is damage: no caller makes such a record."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is stored as one: ``rows`` readings (or 1 alert, 1 loss) in ``payload``."""

    payload: bytes
    rows: int
    oldest_ms: int
    """Wall time at which the oldest of it was taken in, milliseconds since the epoch."""
    written_ms: int
    """Wall time of the write."""
    flags: int = 0

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return HEAD_BYTES + len(self.payload)


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a segment that are no whole record."""

    offset: int
    size: int
    rows: int | None
    """Of the records that were here, as far as their heads are whole; None: nobody knows."""
    at_end: bool
    """Nothing whole follows: perhaps a write that was cut and never acknowledged."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What is in a segment."""

    records: list[tuple[int, Record]]
    """(offset, record), in order."""
    damage: list[Damage]


def encode(record: Record) -> bytes:
    """Return a record as it lies in a file.

    :raises ValueError: if its payload is longer than MAX_PAYLOAD_BYTES.
    """
    payload = record.payload
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a record of {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES}")
    head = _HEAD.pack(
        _MAGIC,
        record.rows,
        len(payload),
        zlib.crc32(payload),
        record.oldest_ms,
        record.written_ms,
        record.flags,
    )
    return b"".join((head, _CRC.pack(zlib.crc32(head)), payload))


def scan(data: bytes) -> Scan:
    """Find all whole records of a segment, and what lies between them."""
    records: list[tuple[int, Record]] = []
    damage: list[Damage] = []
    at, bad_from, lost_rows = 0, -1, None
    while at < len(data):
        head = _head_at(data, at)
        if head is None:
            bad_from = at if bad_from < 0 else bad_from
            found = data.find(_MAGIC, at + 1)
            at = len(data) if found < 0 else found
            continue
        end = at + HEAD_BYTES + head[1]
        payload = data[at + HEAD_BYTES : end]
        if end > len(data) or zlib.crc32(payload) != head[2]:
            bad_from = at if bad_from < 0 else bad_from
            lost_rows = (lost_rows or 0) + head[0]
            # A whole head says where its payload ends; what looks like a head inside is none.
            at = min(end, len(data))
            continue
        if bad_from >= 0:
            damage.append(Damage(bad_from, at - bad_from, lost_rows, at_end=False))
            bad_from, lost_rows = -1, None
        rows, _, _, oldest_ms, written_ms, flags = head
        records.append((at, Record(payload, rows, oldest_ms, written_ms, flags)))
        at = end
    if bad_from >= 0:
        damage.append(Damage(bad_from, len(data) - bad_from, lost_rows, at_end=True))
    return Scan(records, damage)


def _head_at(data: bytes, at: int) -> tuple[int, int, int, int, int, int] | None:
    end = at + HEAD_BYTES
    if end > len(data) or data[at : at + 4] != _MAGIC:
        return None
    head = data[at : end - _CRC.size]
    if _CRC.unpack_from(data, end - _CRC.size)[0] != zlib.crc32(head):
        return None
    _, rows, length, crc, oldest_ms, written_ms, flags = _HEAD.unpack(head)
    if length > MAX_PAYLOAD_BYTES:
        return None
    return rows, length, crc, oldest_ms, written_ms, flags
