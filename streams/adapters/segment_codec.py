"""Stored segments: devices that are away, with the hashes of their names in front.

The hashes can be read without the rest, so that a start learns where each device lies and reads
no state of it.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Any

import numpy as np

from streams.adapters import shard_codec
from streams.core.cold import HASH_BYTES, Hashes, hashes_of
from streams.errors import StateError

_MAGIC = b"HWC1"
_HEAD = struct.Struct(">4sI")


def encode(state: dict[str, Any]) -> bytes:
    """Return the state of some devices, as :func:`streams.core.snapshots.take` gives it."""
    hashes = hashes_of(state["names"])
    return _HEAD.pack(_MAGIC, len(hashes)) + hashes.tobytes() + shard_codec.encode(state)


def id_of(data: bytes) -> str:
    """Return the name of a segment, which follows from its content."""
    return blake2b(data, digest_size=12).hexdigest()


def hashes_in(data: bytes) -> Hashes:
    """Return the hashes of the devices in a segment.

    :raises StateError: if it is none, or of a version that this code does not know.
    """
    return np.frombuffer(data[_HEAD.size : _state_at(data)], f"S{HASH_BYTES}")


def decode(data: bytes) -> dict[str, Any]:
    """Return what :func:`encode` was given.

    :raises StateError: as :func:`hashes_in`, or if it is damaged.
    """
    return shard_codec.decode(data[_state_at(data) :])


def _state_at(data: bytes) -> int:
    if len(data) < _HEAD.size or data[:4] != _MAGIC:
        raise StateError(
            f"a stored segment begins with {data[:4]!r}, expected {_MAGIC!r}: it was written by "
            "another version of Headwater; run that one (docs/upgrading.md)"
        )
    return _HEAD.size + int(_HEAD.unpack_from(data)[1]) * HASH_BYTES
