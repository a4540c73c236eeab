"""The one message of the sync protocol and its encoding.

A message is a CBOR array, deterministic: ``[version, kind, sender, seq, digest, heard, applied,
want, first, last, updates, vector, cells, ledger]``. Every kind carries what the sender has and
what it has heard, so every message is also an acknowledgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from crdt.core import cbor
from crdt.core.errors import WireError

VERSION: Final = 1
_MAX_INT = 2**63 - 1
_LENGTH = 14
MAX_BATCH: Final = 256
"""Devices in one envelope."""


class Kind(IntEnum):
    """What a message is for."""

    HELLO = 0
    """Says where the sender stands, with its state vector; ``want`` asks for the same."""
    DELTA = 1
    """The changes ``(first, last]`` of the sender."""
    ACK = 2
    """Only says what was applied; ``want`` means: there is a gap, send again from there."""
    SNAPSHOT = 3
    """All that the receiver lacks as one update, and all cells where digests differ."""


@dataclass(frozen=True, slots=True)
class Message:
    """See the module's docstring."""

    kind: Kind
    sender: str
    """Incarnation of the sender; sequences count within it."""
    seq: int
    """The sender's newest change."""
    digest: bytes
    """Hash of the sender's cells and ledger as of ``seq``."""
    heard: str
    """Incarnation of the receiver that the sender knows, or nothing."""
    applied: int
    """The receiver's changes that the sender has, all up to here."""
    want: bool = False
    first: int = 0
    last: int = 0
    updates: tuple[bytes, ...] = ()
    vector: bytes = b""
    cells: tuple[tuple[str, bytes], ...] = ()
    ledger: tuple[tuple[str, bytes], ...] = ()

    def encode(self) -> bytes:
        """Return the deterministic encoding."""
        return cbor.dumps(
            [
                *(VERSION, int(self.kind), self.sender, self.seq, self.digest, self.heard),
                *(self.applied, self.want, self.first, self.last, list(self.updates), self.vector),
                [list(cell) for cell in self.cells],
                [list(entry) for entry in self.ledger],
            ]
        )


def decode_message(data: bytes) -> Message:
    """Decode a message.

    :raises WireError: if the bytes are not those of a message of this version.
    """
    fields = cbor.loads(data, "sync message")
    if not isinstance(fields, list) or not fields or fields[0] != VERSION:
        raise WireError("unknown-version", f"expected a sync message of version {VERSION}")
    match fields[1:]:
        case [
            kind,
            str(sender),
            seq,
            bytes(digest),
            str(heard),
            applied,
            bool(want),
            first,
            last,
            list(updates),
            bytes(vector),
            list(cells),
            list(ledger),
        ] if (
            all(map(_is_count, (kind, seq, applied, first, last)))
            and kind in tuple(Kind)
            and all(isinstance(update, bytes) for update in updates)
            and sender
        ):
            return Message(
                *(Kind(kind), sender, seq, digest, heard, applied, want, first, last),
                *(tuple(updates), vector, _pairs(cells), _pairs(ledger)),
            )
    raise WireError("bad-message", f"expected a sync message of {_LENGTH} fields; see docs/wire.md")


def encode_batch(parts: Sequence[tuple[str, bytes]]) -> bytes:
    """Return an envelope: (device, encoded message) pairs, as MQTT carries them."""
    return cbor.dumps([VERSION, [list(part) for part in parts]])


def decode_batch(data: bytes) -> list[tuple[str, bytes]]:
    """Decode an envelope; the messages in it stay encoded.

    :raises WireError: if the bytes are no envelope of at most ``MAX_BATCH`` messages.
    """
    match cbor.loads(data, "twin envelope"):
        case [int(version), list(parts)] if version == VERSION and len(parts) <= MAX_BATCH:
            return list(_pairs(parts))
    raise WireError(
        "bad-envelope", f"expected [{VERSION}, [[device, message], ...]], at most {MAX_BATCH}"
    )


def _pairs(items: list[Any]) -> tuple[tuple[str, bytes], ...]:
    found = []
    for item in items:
        match item:
            case [str(name), bytes(data)]:
                found.append((name, data))
            case _:
                raise WireError("bad-message", "expected pairs of name and bytes")
    return tuple(found)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_INT
