"""What the hub refused of a site, said to that site: ``[1, reason, detail, challenge]``, CBOR.

In an envelope it stands under ``\\x00refused/`` and the name of the device, or nothing where a
whole envelope was refused. A challenge is to be given back in every later envelope.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from crdt.core import cbor
from crdt.core.errors import WireError

NAME: Final = "\x00refused/"
UNANSWERED: Final = "unanswered-challenge"
_VERSION: Final = 1
_MAX_DETAIL: Final = 512
_MAX_CHALLENGE: Final = 64


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something was refused."""

    reason: str
    detail: str
    challenge: bytes = b""

    def encode(self) -> bytes:
        """Return the encoding; a long detail is cut."""
        return cbor.dumps([_VERSION, self.reason, self.detail[:_MAX_DETAIL], self.challenge])


def decode_refusal(data: bytes) -> Refusal:
    """Decode a refusal.

    :raises WireError: if the bytes are none.
    """
    match cbor.loads(data, "refusal"):
        case [1, str(reason), str(detail), bytes(challenge)] if (
            max(len(reason), len(detail)) <= _MAX_DETAIL and len(challenge) <= _MAX_CHALLENGE
        ):
            return Refusal(reason, detail, challenge)
    raise WireError("bad-message", "expected [1, reason, detail, challenge], a refusal")
