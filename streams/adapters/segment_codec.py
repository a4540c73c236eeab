"""Stored segments: state that left memory, with a hash of each thing in it in front.

The hashes can be read without the rest: so a start learns where each device lies and reads no state
of it, and who looks for one window reads only the state that holds it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from streams.adapters import shard_codec
from streams.core.cold import HASH_BYTES
from streams.errors import StateError

_HEAD = struct.Struct(">4sI")


@dataclass(frozen=True, slots=True)
class Form:
    """A kind of segment: what it begins with, and the dtype of its hashes."""

    magic: bytes
    hashes: str


DEVICES = Form(b"HWC1", f"S{HASH_BYTES}")
"""Devices that are away: :func:`streams.core.cold.hashes_of`."""
WINDOWS = Form(b"HWW1", "<u8")
"""Closed windows: :func:`streams.core.shelves.keys_of`."""


def encode(form: Form, hashes: np.ndarray[Any, Any], state: dict[str, Any]) -> bytes:
    """Return state (of numbers, text and arrays) with the hashes of what is in it."""
    head = _HEAD.pack(form.magic, len(hashes)) + hashes.astype(form.hashes).tobytes()
    return head + shard_codec.encode(state)


def id_of(data: bytes) -> str:
    """Return the name of a segment, which follows from its content."""
    return blake2b(data, digest_size=12).hexdigest()


def hashes_in(form: Form, data: bytes) -> np.ndarray[Any, Any]:
    """Return the hashes in front of a segment.

    :raises StateError: if it is of another form, or of a version that this code does not know.
    """
    return np.frombuffer(data[_HEAD.size : _state_at(form, data)], form.hashes)


def decode(form: Form, data: bytes) -> dict[str, Any]:
    """Return the state that :func:`encode` was given.

    :raises StateError: as :func:`hashes_in`, or if it is damaged.
    """
    return shard_codec.decode(data[_state_at(form, data) :])


def _state_at(form: Form, data: bytes) -> int:
    if len(data) < _HEAD.size or data[:4] != form.magic:
        raise StateError(
            f"a stored segment begins with {data[:4]!r}, expected {form.magic!r}: it was written "
            "by another version of Headwater; run that one (docs/upgrading.md)"
        )
    return _HEAD.size + int(_HEAD.unpack_from(data)[1]) * np.dtype(form.hashes).itemsize
