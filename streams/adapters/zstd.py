"""Zstandard for payloads: whole in, whole out, and never more out than was asked for."""

from __future__ import annotations

import pyarrow as pa

from streams.errors import DecodeError


def compress(data: bytes, level: int = 3) -> bytes:
    """Return *data* as one Zstandard frame (RFC 8878)."""
    packed: bytes = pa.Codec("zstd", compression_level=level).compress(data, asbytes=True)
    return packed


def inflate(packed: bytes, max_bytes: int) -> bytes:
    """Return what :func:`compress` was given.

    Not more than *max_bytes* and one are ever inflated, however small the frame is.

    :raises DecodeError: ``malformed-zstd`` if it is not whole frames, ``payload-too-large`` if it
        holds more than *max_bytes*.
    """
    if not packed:
        raise DecodeError("malformed-zstd", "the payload has no bytes; expected a Zstandard frame")
    try:
        with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
            data: bytes = stream.read(max_bytes + 1)
    except (pa.ArrowException, OSError) as error:
        raise DecodeError(
            "malformed-zstd", f"{len(packed)} bytes are not whole Zstandard frames: {error}"
        ) from error
    if len(data) > max_bytes:
        raise DecodeError(
            "payload-too-large",
            f"{len(packed)} bytes inflate to more than the {max_bytes} that are taken",
        )
    return data
