"""Which of many twins differ, in two small messages: digests of buckets of twins.

Twins are spread over buckets by a hash of their names, about ten to a bucket, and in it over 16
places. A digest is the XOR of hashes over name and digest of each twin there. The caller sends the
digests of its buckets; the answer holds, for those that differ, the digests of their places, and so
the caller knows whom to talk about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from crdt.core import cbor
from crdt.core.errors import WireError

NAME: Final = "\x00roll/"
"""With the number of a partition it stands where an envelope names a device; none is called so."""
_MAX_BUCKETS: Final = 4_096
_PER_BUCKET: Final = 10
_PLACES: Final = 16
_HASH_BITS: Final = 16
_BYTES: Final = 4
"""Of a digest: that two differing buckets look equal has a chance of one in four billion."""
_VERSION: Final = 1


class Roll:
    """The twins of one site in one partition."""

    def __init__(self) -> None:
        self._hashes: dict[str, int] = {}
        self._called = 1

    def put(self, device: str, digest: bytes) -> None:
        """Note the digest of a twin, new or changed."""
        hashed = sha256(device.encode() + b"\x00" + digest).digest()
        self._hashes[device] = int.from_bytes(hashed[:_BYTES], "big")

    def call(self) -> bytes:
        """Return the message that asks which buckets differ."""
        wanted = max(1, len(self._hashes) // _PER_BUCKET)
        self._called = min(_MAX_BUCKETS, 1 << (wanted - 1).bit_length())
        places = self._places(self._called)
        return cbor.dumps([_VERSION, b"".join(_bucket(places, n) for n in range(self._called))])

    def answer(self, call: bytes) -> bytes:
        """Return the answer to a peer's call.

        :raises WireError: if it is none.
        """
        match cbor.loads(call, "roll call"):
            case [1, bytes(theirs)] if _is_count(len(theirs)):
                pass
            case _:
                raise WireError("bad-roll", f"expected digests of up to {_MAX_BUCKETS} buckets")
        count = len(theirs) // _BYTES
        places = self._places(count)
        differing = [
            [n, _digests(places, n)]
            for n in range(count)
            if _bucket(places, n) != theirs[n * _BYTES : (n + 1) * _BYTES]
        ]
        return cbor.dumps([_VERSION, count, differing])

    def differing(self, answer: bytes) -> tuple[set[str], set[str]]:
        """Return who differs and who does not, from the answer to one's own call.

        :raises WireError: if it is no answer to that call.
        """
        match cbor.loads(answer, "roll call"):
            case [1, int(count), list(buckets)] if count == self._called and all(
                _is_bucket(found, count) for found in buckets
            ):
                theirs: Mapping[int, bytes] = dict(buckets)
            case _:
                raise WireError("bad-roll", f"expected buckets with {_PLACES} digests each")
        places = self._places(count)
        places_apart = {
            n * _PLACES + k
            for n, digests in theirs.items()
            for k in range(_PLACES)
            if _digests(places, n)[k * _BYTES : (k + 1) * _BYTES]
            != digests[k * _BYTES : (k + 1) * _BYTES]
        }
        apart = {device for device in self._hashes if _place(device, count) in places_apart}
        return apart, self._hashes.keys() - apart

    def _places(self, buckets: int) -> list[int]:
        places = [0] * (buckets * _PLACES)
        for device, hashed in self._hashes.items():
            places[_place(device, buckets)] ^= hashed
        return places


def _place(device: str, buckets: int) -> int:
    hashed = int.from_bytes(sha256(device.encode()).digest()[: _HASH_BITS // 8], "big")
    return hashed * buckets * _PLACES >> _HASH_BITS


def _bucket(places: Sequence[int], bucket: int) -> bytes:
    total = 0
    for place in places[bucket * _PLACES : (bucket + 1) * _PLACES]:
        total ^= place
    return total.to_bytes(_BYTES, "big")


def _digests(places: Sequence[int], bucket: int) -> bytes:
    part = places[bucket * _PLACES : (bucket + 1) * _PLACES]
    return b"".join(place.to_bytes(_BYTES, "big") for place in part)


def _is_count(size: int) -> bool:
    count, rest = divmod(size, _BYTES)
    return not rest and 0 < count <= _MAX_BUCKETS and not count & (count - 1)


def _is_bucket(found: object, buckets: int) -> bool:
    match found:
        case [int(bucket), bytes(digests)]:
            return 0 <= bucket < buckets and len(digests) == _PLACES * _BYTES
    return False
