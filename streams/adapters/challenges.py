"""Challenges: who speaks must give back something that was said to it lately.

A challenge is the time it was given at, and a MAC of that and of whom it was given to, under a key
that all gateways derive from the hub's. So any of them can check what another gave, and none keeps
anything: an envelope that was recorded before a gateway started carries none that it takes.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_MAC_BYTES = 16
_TIME_BYTES = 8
_AHEAD_MS = 60_000
"""Clocks of gateways may differ by so much."""


def wall_ms() -> int:
    """Return the wall clock, milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Challenger:
    """Gives and checks challenges, from one start of a gateway on."""

    def __init__(self, key: Ed25519PrivateKey, clock: Callable[[], int] = wall_ms) -> None:
        """Derive the key of the MAC (HKDF, RFC 5869)."""
        derive = HKDF(SHA256(), 32, salt=None, info=b"headwater challenge")
        self._key = derive.derive(key.private_bytes_raw())
        self._clock = clock
        self._since_ms = clock()

    def give(self, sender: str) -> bytes:
        """Return a challenge for a sender."""
        at = self._clock().to_bytes(_TIME_BYTES, "big")
        return at + self._mac(at, sender)

    def check(self, answer: bytes, sender: str) -> bool:
        """Whether an answer was given to this sender since this gateway started."""
        at, mac = answer[:_TIME_BYTES], answer[_TIME_BYTES:]
        at_ms = int.from_bytes(at, "big")
        lately = self._since_ms <= at_ms <= self._clock() + _AHEAD_MS
        return lately and hmac.compare_digest(mac, self._mac(at, sender))

    def _mac(self, at: bytes, sender: str) -> bytes:
        return hmac.digest(self._key, at + sender.encode(), sha256)[:_MAC_BYTES]
