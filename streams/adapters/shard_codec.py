"""Stored state: CBOR of arrays and lists, compressed with Zstandard, with a version in front."""

from __future__ import annotations

from typing import Any

import cbor2
import numpy as np
import pyarrow as pa

from streams.core.device_names import DeviceKeys
from streams.errors import StateError

_MAGIC = b"HWS2"
_ARRAY_TAG = 40_001
_CODEC = pa.Codec("zstd", compression_level=1)
_SIZE_BYTES = 8
_LIST = 4
_PAIR = b"\x82"
"""How CBOR begins a list, and one of two items."""


def encode(state: dict[str, Any]) -> bytes:
    """Return *state* (nested dicts and lists of numbers, text and numpy arrays) as bytes."""
    body = cbor2.dumps(state, default=_encode_array, encoders=_ENCODERS)
    packed: bytes = _CODEC.compress(body, asbytes=True)
    return _MAGIC + len(body).to_bytes(_SIZE_BYTES, "big") + packed


def decode(data: bytes) -> dict[str, Any]:
    """Return what :func:`encode` was given.

    :raises StateError: if the bytes are damaged or of a version that this code does not know.
    """
    if data[:4] != _MAGIC:
        raise StateError(
            f"stored state begins with {data[:4]!r}, expected {_MAGIC!r}: it was written by "
            "another version of Headwater; run that one, or take a new id for the process "
            "(worker.id, rollup.id, alerts.id), which reads the log again (docs/upgrading.md)"
        )
    size = int.from_bytes(data[4 : 4 + _SIZE_BYTES], "big")
    try:
        body = _CODEC.decompress(data[4 + _SIZE_BYTES :], decompressed_size=size, asbytes=True)
        state: dict[str, Any] = cbor2.loads(body, tag_hook=_decode_array)
    except (pa.ArrowException, OSError, cbor2.CBORError, ValueError) as error:
        raise StateError(f"stored state of {len(data)} bytes is damaged: {error}") from error
    return state


def _encode_array(encoder: Any, value: Any) -> None:
    if not isinstance(value, np.ndarray):
        raise cbor2.CBOREncodeTypeError(f"cannot store a {type(value).__name__}")
    array = np.ascontiguousarray(value)
    encoder.encode(cbor2.CBORTag(_ARRAY_TAG, [array.dtype.str, list(array.shape), array.tobytes()]))


def _encode_keys(encoder: Any, keys: DeviceKeys) -> None:
    """Write a list of pairs, the same bytes that the encoder makes of one, in half the time."""
    names = [name.encode() for name in keys.names]
    # RFC 8949: a text is its length and its bytes, and begins as any other of this length.
    texts = {n: cbor2.dumps("-" * n)[: -n or None] for n in set(map(len, names))}
    pairs = {tenant: _PAIR + cbor2.dumps(tenant) for tenant in set(keys.tenants)}
    rows = zip(keys.tenants, names, strict=True)
    encoder.encode_length(_LIST, len(names))
    encoder.write(b"".join([pairs[tenant] + texts[len(name)] + name for tenant, name in rows]))


_ENCODERS: dict[type, Any] = {DeviceKeys: _encode_keys}


def _decode_array(tag: cbor2.CBORTag, _immutable: bool) -> Any:
    if tag.tag != _ARRAY_TAG:
        return tag
    dtype, shape, data = tag.value
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape).copy()
