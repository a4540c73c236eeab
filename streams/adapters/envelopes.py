"""Signed envelopes: COSE_Sign1 (RFC 9052) with Ed25519 around a batch of sync messages.

The payload is the deterministic CBOR array ``[3, direction, tenant, site, life, seq, answer,
packed]``; ``packed`` is ``[[device, message], ...]``, deterministic CBOR as well, compressed by
zlib. ``seq`` counts the envelopes of one life of the sender; each is taken once. ``answer`` is the
newest challenge that this life was given (:mod:`streams.adapters.challenges`). An envelope that was
tampered with, is of another direction or site, was seen before, or was recorded before the receiver
started is refused before anything in it is read.
"""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Sequence
from typing import Any, Final

from crdt.core import cbor
from crdt.core.errors import WireError
from crdt.core.messages import decode_parts
from crdt.core.refusals import UNANSWERED
from crdt.core.replay import ReplayWindow
from streams.adapters.challenges import Challenger
from streams.adapters.cose import Signed, sign1
from streams.adapters.replica_keys import Registry, Signer

UP: Final = "up"
DOWN: Final = "down"
COMMAND_UP: Final = "command-up"
COMMAND_DOWN: Final = "command-down"
MAX_ENVELOPE_BYTES: Final = 1_900_000
"""What is over this would not fit into a record of ``twin.updates``."""
_VERSION = 3
_SPOKE, _HUB = "spoke", "hub"

Parts = Sequence[tuple[str, bytes]]


class Sealer:
    """Signs what one process sends."""

    def __init__(self, signer: Signer, direction: str) -> None:
        self._signer = signer
        self._direction = direction
        self._life = secrets.token_hex(8)
        self._seq = 0
        self.answer = b""
        """The challenge that was given last."""

    def seal(self, tenant: str, site: str, parts: Parts) -> bytes:
        """Return a signed envelope to or from a site."""
        self._seq += 1
        packed = zlib.compress(cbor.dumps([list(part) for part in parts]))
        payload = cbor.dumps(
            [_VERSION, self._direction, tenant, site, self._life, self._seq, self.answer, packed]
        )
        return sign1(payload, self._signer.key, self._signer.kid)


class UnansweredError(WireError):
    """The sender has not answered a challenge since the receiver started."""

    def __init__(self, challenge: bytes) -> None:
        super().__init__(UNANSWERED, "an envelope answers a challenge of this start of the hub")
        self.challenge = challenge


class Opener:
    """Verifies what one process receives from one direction."""

    def __init__(
        self, registry: Registry, direction: str, challenger: Challenger | None = None
    ) -> None:
        """Make an opener.

        :param challenger: asks for an answer in every envelope.
        """
        self._registry = registry
        self._challenger = challenger
        self._direction = direction
        self._role = _SPOKE if direction in (UP, COMMAND_UP) else _HUB
        self._window = ReplayWindow()

    def open(self, data: bytes, tenant: str, site: str) -> Parts:
        """Return the messages of an envelope to or from that site.

        :raises WireError: if it is too big, not signed, not by a key that may, tampered with, of
            another direction, tenant or site, or was seen before.
        :raises UnansweredError: if its sender is to answer a challenge first.
        """
        if len(data) > MAX_ENVELOPE_BYTES:
            raise WireError("too-big", f"{len(data)} bytes; at most {MAX_ENVELOPE_BYTES} are taken")
        self._registry.refresh()
        signed = Signed(data)
        kid = signed.kid
        entry = self._registry.entry(kid)
        if entry is None:
            raise WireError("unknown-key", f"no key {kid!r} is registered")
        if entry.revoked:
            raise WireError("revoked-key", f"key {kid} of {entry.site or 'the hub'} was revoked")
        if entry.role != self._role:
            raise WireError("not-permitted", f"key {kid} is that of a {entry.role}")
        if self._role == _SPOKE and (entry.tenant, entry.site) != (tenant, site):
            raise WireError(
                "not-permitted", f"key {kid} is of {entry.tenant}/{entry.site}, not {tenant}/{site}"
            )
        return self._checked(signed.verified(self._registry.key(kid)), kid, tenant, site)

    def _checked(self, payload: bytes, kid: str, tenant: str, site: str) -> Parts:
        match cbor.loads(payload, "signed envelope"):
            case [
                3,
                str(direction),
                str(to),
                str(there),
                str(life),
                int(seq),
                bytes(answer),
                bytes(packed),
            ]:
                pass
            case _:
                raise WireError("bad-envelope", "expected the eight fields of a signed envelope")
        if (direction, to, there) != (self._direction, tenant, site):
            raise WireError("bad-envelope", f"is {direction} for {to}/{there}, not {tenant}/{site}")
        sender, ask = f"{kid} {life}", self._challenger
        if ask is not None and not ask.check(answer, sender):
            raise UnansweredError(ask.give(sender))
        found = decode_parts(_unpacked(packed))
        if not self._window.admit(sender, seq):
            raise WireError("replayed", f"envelope {seq} of key {kid} was taken before")
        return found


def _unpacked(packed: bytes) -> list[Any]:
    inflating = zlib.decompressobj()
    try:
        data = inflating.decompress(packed, MAX_ENVELOPE_BYTES)
    except zlib.error as error:
        raise WireError("bad-envelope", f"cannot be decompressed: {error}") from error
    if not inflating.eof or inflating.unused_data:
        raise WireError("too-big", f"more than {MAX_ENVELOPE_BYTES} bytes, or cut short")
    parts = cbor.loads(data, "signed envelope")
    if not isinstance(parts, list):
        raise WireError("bad-envelope", "expected pairs of device and message")
    return parts
