"""COSE_Sign1 (RFC 9052, section 4.2) with EdDSA over Ed25519 (RFC 9053, section 2.2), nothing else.

One algorithm, one encoding: what is not just this is refused. See
``docs/decisions/0024-cose-sign1.md`` for why no library does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from crdt.core import cbor
from crdt.core.errors import WireError

_TAG: Final = 18
_ALG: Final = 1
_EDDSA: Final = -8
_KID: Final = 4
_CONTEXT = "Signature1"


def sign1(payload: bytes, key: Ed25519PrivateKey, kid: str) -> bytes:
    """Return a tagged COSE_Sign1; algorithm and key id are protected headers."""
    protected = cbor.dumps({_ALG: _EDDSA, _KID: kid.encode()})
    signature = key.sign(_to_be_signed(protected, payload))
    return cbor.dumps(cbor2.CBORTag(_TAG, [protected, {}, payload, signature]))


class Signed:
    """A COSE_Sign1 that was read and not verified yet."""

    def __init__(self, data: bytes) -> None:
        """Read it.

        :raises WireError: if it is none, of another algorithm, or in another encoding.
        """
        if not data or data[0] != 0xC0 + _TAG:
            raise WireError("unsigned", "expected a signed envelope (COSE_Sign1)")
        outer = cbor.loads(data, "signed envelope")
        match outer.value if isinstance(outer, cbor2.CBORTag) else None:
            case [bytes(protected), Mapping() as unprotected, bytes(payload), bytes(signature)]:
                headers = cbor.loads(protected, "protected headers")
            case _:
                raise WireError("bad-envelope", "expected the four fields of COSE_Sign1")
        kid = headers.get(_KID) if isinstance(headers, Mapping) else None
        if unprotected or headers != {_ALG: _EDDSA, _KID: kid} or not isinstance(kid, bytes):
            raise WireError("bad-envelope", "expected protected headers: EdDSA and a key id")
        self.kid = kid.decode(errors="replace")
        self._protected, self._payload, self._signature = protected, payload, signature

    def verified(self, key: Ed25519PublicKey) -> bytes:
        """Return the payload.

        :raises WireError: if the key did not sign it.
        """
        try:
            key.verify(self._signature, _to_be_signed(self._protected, self._payload))
        except InvalidSignature as error:
            raise WireError("bad-signature", f"not signed by key {self.kid}") from error
        return self._payload


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    return cbor.dumps([_CONTEXT, protected, b"", payload])
