"""Many names by number, at some 30 bytes each beside their own: an array of bytes, a hash index.

A dict of a million names takes over a hundred bytes for each: objects, their entries, and the
numbers. It is faster while all of it lies in the caches, so this is for the many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from streams.core.columns import Columns
from streams.core.index import ABSENT, Index
from streams.core.readings import Bool, Int32, Int64, ManyNames

_NAME: dict[str, tuple[Any, Any]] = {
    "hash": (np.int64, 0),
    "begin": (np.int64, 0),
    "length": (np.int32, ABSENT),
}
"""``length`` is ``ABSENT`` where a number has no name."""
_LEAST_BYTES = 1 << 16


class NameTable:
    """Distinct names, as bytes, to dense numbers and back. Numbers are the caller's."""

    def __init__(self) -> None:
        self._names = Columns(_NAME)
        self._bytes = Columns({"byte": (np.uint8, 0)})
        self._index = Index(lambda numbers: self._names["hash"][numbers])
        self._clashing: dict[bytes, int] = {}
        """Names whose hash another one has."""
        self._gone_bytes = 0

    def __len__(self) -> int:
        return self._names.n

    def __getitem__(self, number: int) -> bytes:
        """Return a name, which is empty where a number has none."""
        names = self._names
        begin, length = int(names["begin"][number]), max(0, int(names["length"][number]))
        name: bytes = self._bytes["byte"][begin : begin + length].tobytes()
        return name

    def texts(self, numbers: Int64 | Int32) -> list[str]:
        """Return some names, which are UTF-8, as text."""
        begin = self._names["begin"][numbers]
        length = np.maximum(self._names["length"][numbers], 0).astype(np.int64)
        joined = self._bytes["byte"][_places(begin, length)].tobytes()
        ends = np.cumsum(length).tolist()
        cuts = zip([0, *ends], ends, strict=False)
        if joined.isascii():
            text = joined.decode()
            return [text[low:high] for low, high in cuts]
        return [joined[low:high].decode() for low, high in cuts]

    def find(self, names: Sequence[bytes]) -> Int32:
        """Return the number of each name, ``ABSENT`` where it is not here."""
        found = self._index.find(_hashes(names))
        at = np.flatnonzero(found != ABSENT)
        if len(at):
            asked = names if len(at) == len(names) else [names[i] for i in at.tolist()]
            other = at[~self._are(found[at], asked)]
            found[other] = [self._clashing.get(names[i], ABSENT) for i in other.tolist()]
        return found

    def put(self, names: Sequence[bytes], numbers: Int32) -> None:
        """Give numbers that are free to names that are not here."""
        if not len(names):
            return
        self._names.grow_to(int(numbers.max()) + 1)
        length = np.fromiter(map(len, names), np.int64, len(names))
        begin = self._bytes.n + np.cumsum(length) - length
        self._bytes.append({"byte": np.frombuffer(b"".join(names), np.uint8)}, int(length.sum()))
        hashes = _hashes(names)
        for name, values in {"hash": hashes, "begin": begin, "length": length}.items():
            self._names[name][numbers] = values
        _, first = np.unique(hashes, return_index=True)
        alone = np.zeros(len(names), np.bool_)
        alone[first] = self._index.find(hashes[first]) == ABSENT
        self._index.add(numbers[alone])
        for i in np.flatnonzero(~alone).tolist():
            self._clashing[names[i]] = int(numbers[i])

    def free(self, numbers: Int64) -> None:
        """Forget the names of some numbers."""
        self._gone_bytes += int(self._names["length"][numbers].sum())
        self._names.reset(numbers)
        used = np.flatnonzero(self._names["length"] != ABSENT)
        if self._gone_bytes > max(_LEAST_BYTES, self._bytes.n // 2):
            self._pack(used)
        if self._clashing:  # One that has gone may be what another one had clashed with.
            _, first = np.unique(self._names["hash"][used], return_index=True)
            self._clashing = {self[i]: i for i in np.delete(used, first).tolist()}
            used = used[first]
        self._index.replace(used.astype(np.int32))

    def _pack(self, used: Int64) -> None:
        """Leave out the bytes of names that have gone."""
        begin, length = self._names["begin"][used], self._names["length"][used].astype(np.int64)
        kept = self._bytes["byte"][_places(begin, length)]
        self._bytes = Columns({"byte": (np.uint8, 0)})
        self._bytes.append({"byte": kept}, len(kept))
        self._names["begin"][used] = np.cumsum(length) - length
        self._gone_bytes = 0

    def _are(self, numbers: Int32, names: Sequence[bytes]) -> Bool:
        """Return bool[n]: which numbers have just these names."""
        length = self._names["length"][numbers].astype(np.int64)
        same: Bool = length == np.fromiter(map(len, names), np.int64, len(names))
        if same.all():
            held = self._bytes["byte"][_places(self._names["begin"][numbers], length)]
            if np.array_equal(held, np.frombuffer(b"".join(names), np.uint8)):
                return same
        rows = zip(numbers.tolist(), names, strict=True)
        return np.asarray([self[number] == name for number, name in rows], np.bool_)


def _hashes(names: Sequence[bytes]) -> Int64:
    return np.fromiter(map(hash, names), np.int64, len(names))


def _places(begin: Int64, length: Int64) -> Int64:
    """Return the places of all bytes of some names, one after the other."""
    ends = np.cumsum(length)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(begin - ends + length, length)


class Behind(ManyNames):
    """What lies behind the first slash of each name, as text; empty for a number without one."""

    def __init__(self, table: NameTable) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return self.some(np.arange(*number.indices(len(self))))
        return self._table[number].partition(b"/")[2].decode()

    def some(self, numbers: Int64 | Int32) -> list[str]:
        """See :class:`~streams.core.readings.ManyNames`."""
        return [name.partition("/")[2] for name in self._table.texts(numbers)]
