"""Table keys of stored state: partition, key, incarnation, slot and chunk."""

from __future__ import annotations

_SEPARATOR = b"\x00"


def join_key(partition: int, key: str, incarnation: bytes, slot: int, chunk: int) -> bytes:
    """Return the table key of a chunk."""
    tail = _SEPARATOR.join([incarnation, str(slot).encode(), str(chunk).encode()])
    return _prefix(partition, key) + tail


def split_key(raw: bytes) -> tuple[int, str, bytes, int, int]:
    """Return partition, key, incarnation, slot and chunk of a table key."""
    partition, key, incarnation, slot, chunk = raw.split(_SEPARATOR)
    return int(partition), key.decode(), incarnation, int(slot), int(chunk)


def partition_in(raw: bytes) -> int:
    """Return the partition that a table key belongs to."""
    return int(raw.split(_SEPARATOR, 1)[0])


def _prefix(partition: int, key: str) -> bytes:
    return _SEPARATOR.join([str(partition).encode(), key.encode(), b""])
