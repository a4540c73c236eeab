"""Which of many twins differ, in two small messages: digests of buckets of twins.

Each twin has a place among 4,096, by its name; 16 places are a bucket. A bucket's digest is the
XOR of hashes over name and digest of each twin in it, so one changed twin costs one step. The
caller sends the digests of its 256 buckets; the answer holds, for those that differ, the digests of
the 16 places, and so the caller knows whom to talk about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Final

from crdt.core import cbor
from crdt.core.errors import WireError

NAME: Final = "\x00roll/"
"""With the number of a partition it stands where an envelope names a device; none is called so."""
_BUCKETS: Final = 256
_PLACES: Final = 16
_BYTES: Final = 4
"""Of a digest: that two differing buckets look equal has a chance of one in four billion."""
_VERSION: Final = 1


class Roll:
    """The twins of one site in one partition."""

    def __init__(self) -> None:
        self._hashes: dict[str, int] = {}
        self._places = [0] * (_BUCKETS * _PLACES)

    def put(self, device: str, digest: bytes) -> None:
        """Note the digest of a twin, new or changed."""
        fresh = int.from_bytes(sha256(device.encode() + b"\x00" + digest).digest()[:_BYTES], "big")
        self._places[place_of(device)] ^= fresh ^ self._hashes.get(device, 0)
        self._hashes[device] = fresh

    def devices(self) -> Iterator[str]:
        """Yield the names of all twins."""
        yield from self._hashes

    def call(self) -> bytes:
        """Return the message that asks which buckets differ."""
        return cbor.dumps([_VERSION, b"".join(map(self._bucket, range(_BUCKETS)))])

    def answer(self, call: bytes) -> bytes:
        """Return the answer to a peer's call.

        :raises WireError: if it is none.
        """
        match cbor.loads(call, "roll call"):
            case [1, bytes(theirs)] if len(theirs) == _BUCKETS * _BYTES:
                pass
            case _:
                raise WireError("bad-roll", f"expected the digests of {_BUCKETS} buckets")
        differing = [
            [bucket, b"".join(map(self._place, _places_of(bucket)))]
            for bucket in range(_BUCKETS)
            if self._bucket(bucket) != theirs[bucket * _BYTES : (bucket + 1) * _BYTES]
        ]
        return cbor.dumps([_VERSION, differing])

    def differing(self, answer: bytes) -> set[int]:
        """Return the places that differ, from the answer to one's own call.

        :raises WireError: if it is no answer.
        """
        match cbor.loads(answer, "roll call"):
            case [1, list(buckets)] if all(map(_is_bucket, buckets)):
                theirs: Mapping[int, bytes] = dict(buckets)
            case _:
                raise WireError("bad-roll", f"expected buckets with {_PLACES} digests each")
        return {
            place
            for bucket, digests in theirs.items()
            for number, place in enumerate(_places_of(bucket))
            if self._place(place) != digests[number * _BYTES : (number + 1) * _BYTES]
        }

    def _place(self, place: int) -> bytes:
        return self._places[place].to_bytes(_BYTES, "big")

    def _bucket(self, bucket: int) -> bytes:
        total = 0
        for place in _places_of(bucket):
            total ^= self._places[place]
        return total.to_bytes(_BYTES, "big")


def place_of(device: str) -> int:
    """Return the place of a twin."""
    return int.from_bytes(sha256(device.encode()).digest()[:2], "big") >> 4


def _places_of(bucket: int) -> range:
    return range(bucket * _PLACES, (bucket + 1) * _PLACES)


def _is_bucket(found: object) -> bool:
    match found:
        case [int(bucket), bytes(digests)]:
            return 0 <= bucket < _BUCKETS and len(digests) == _PLACES * _BYTES
    return False
