"""The one message of the sync protocol and its encoding.

A message is a CBOR array, deterministic: ``[version, kind, sender, seq, digest, heard, applied,
want, first, last, updates, vector, cells, ledger]``, in version 2 followed by ``epoch``, which is
``[number, token]``. Version 1 is that of a Doc which was never compacted. Every kind carries what
the sender has and what it has heard, so every message is also an acknowledgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from crdt.core import cbor
from crdt.core.epochs import FIRST, Epoch, checked_epoch
from crdt.core.errors import WireError

VERSION: Final = 1
"""Of envelopes, and of messages of the first epoch."""
_VERSION_WITH_EPOCH: Final = 2
_MAX_INT = 2**63 - 1
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
    """All that a Doc of the state vector ``vector`` lacks as one update (without one: the whole
    Doc), and all cells where digests differ."""


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
    epoch: Epoch = FIRST
    """Of the sender's Doc, which ``updates`` and ``vector`` are of."""

    def encode(self) -> bytes:
        """Return the deterministic encoding."""
        version, *epoch = (
            [VERSION] if self.epoch == FIRST else [_VERSION_WITH_EPOCH, list(self.epoch)]
        )
        return cbor.dumps(
            [
                *(version, int(self.kind), self.sender, self.seq, self.digest, self.heard),
                *(self.applied, self.want, self.first, self.last, list(self.updates), self.vector),
                [list(cell) for cell in self.cells],
                [list(entry) for entry in self.ledger],
                *epoch,
            ]
        )


def decode_message(data: bytes) -> Message:
    """Decode a message.

    :raises WireError: if the bytes are not those of a message of this version.
    """
    fields = cbor.loads(data, "sync message")
    epoch = FIRST
    match fields:
        case [1, *rest]:
            pass
        case [2, *rest, [number, token]]:
            epoch = checked_epoch(number, token)
        case _:
            raise WireError("unknown-version", "expected a sync message of version 1 or 2")
    match rest:
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
                *(tuple(updates), vector, _pairs(cells), _pairs(ledger), epoch),
            )
    raise WireError("bad-message", "expected the fields of a sync message; see docs/wire.md")


def encode_batch(parts: Sequence[tuple[str, bytes]]) -> bytes:
    """Return an envelope: (device, encoded message) pairs, as MQTT carries them."""
    return cbor.dumps([VERSION, [list(part) for part in parts]])


def decode_batch(data: bytes) -> list[tuple[str, bytes]]:
    """Decode an envelope; the messages in it stay encoded.

    :raises WireError: if the bytes are no envelope of at most ``MAX_BATCH`` messages.
    """
    match cbor.loads(data, "twin envelope"):
        case [int(version), list(parts)] if version == VERSION and len(parts) <= MAX_BATCH:
            return decode_parts(parts)
    raise WireError(
        "bad-envelope", f"expected [{VERSION}, [[device, message], ...]], at most {MAX_BATCH}"
    )


def decode_parts(parts: list[Any]) -> list[tuple[str, bytes]]:
    """Return the (device, encoded message) pairs of an envelope.

    :raises WireError: if they are none, or more than ``MAX_BATCH``.
    """
    if len(parts) > MAX_BATCH:
        raise WireError("bad-envelope", f"{len(parts)} messages; at most {MAX_BATCH} in one")
    return list(_pairs(parts))


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
