"""Deterministic CBOR (RFC 8949, section 4.2): equal things have equal bytes, and only those."""

from __future__ import annotations

from typing import Any

import cbor2

from crdt.core.errors import WireError


def dumps(value: object) -> bytes:
    """Encode deterministically."""
    return cbor2.dumps(value, canonical=True)


def loads(data: bytes, what: str) -> Any:
    """Decode what :func:`dumps` made.

    :param what: what the bytes should be, for the message.
    :raises WireError: if they are anything else, such as a longer encoding of the same value.
    """
    try:
        value = cbor2.loads(data)
        again = dumps(value)
    except (cbor2.CBORError, ValueError, OverflowError, TypeError, RecursionError) as error:
        raise WireError("malformed-cbor", f"{what}: {error}") from error
    if again != data:
        raise WireError("not-canonical", f"{what}: not in deterministic encoding")
    return value
