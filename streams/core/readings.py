"""Readings as columns: what flows through every pure part.

A batch of *n* readings is one :class:`Readings`: arrays of length *n* in arrival order, and
dictionary-encoded labels (:class:`Labels`). Nullable columns use a sentinel, so that the hot
path never branches on ``None``: ``ABSENT`` (-1) for integers, NaN for values.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

ABSENT = -1
"""Sentinel for an absent ``boot`` or ``seq``."""

GOOD = 0
UNCERTAIN = 1
"""Quality flag: the producer doubts the value."""
BAD = 2
"""Quality flag: the producer says that the value is wrong."""
TIME_OF_RECEIPT = 4
"""Quality flag: the payload carried no time, so ``t_ms`` is the time of receipt."""
ELSEWHERE = 16
"""Quality flag: another side, edge or cloud, makes the windows and scores of this reading."""


class ManyNames(Sequence[str]):
    """Names that are not held as text, so that some at once are cheaper than one by one."""

    @abstractmethod
    def some(self, numbers: Int64 | Int32) -> list[str]:
        """Return the names of some numbers."""


@dataclass(frozen=True, slots=True)
class Labels:
    """A dictionary-encoded column of strings.

    ``codes`` int32[n] index into ``values``; values are unique, and there may be more of them
    than rows use. A tuple belongs to its batch; another sequence may serve many, and grow at its
    end.
    """

    codes: Int32
    values: Sequence[str]

    @staticmethod
    def of(items: Iterable[str]) -> Labels:
        """Encode strings, the values in order of first appearance."""
        index: dict[str, int] = {}
        codes = [index.setdefault(item, len(index)) for item in items]
        return Labels(np.asarray(codes, dtype=np.int32), tuple(index))

    @staticmethod
    def constant(item: str, n: int) -> Labels:
        """Encode the same string *n* times."""
        return Labels(np.zeros(n, dtype=np.int32), (item,))

    def take(self, rows: Int64 | Int32 | Bool | slice) -> Labels:
        """Select rows by index, mask or slice; the dictionary stays as it is."""
        return Labels(self.codes[rows], self.values)

    def compact(self) -> Labels:
        """Leave out of the dictionary what no row uses."""
        unique, inverse = np.unique(self.codes, return_inverse=True)
        return Labels(inverse.astype(np.int32), tuple(names_at(self.values, unique)))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> str:
        return self.values[int(self.codes[row])]

    def to_list(self) -> list[str]:
        """Decode into a list of *n* strings."""
        return names_at(self.values, self.codes)


def names_at(values: Sequence[str], codes: Int64 | Int32) -> list[str]:
    """Return the names that some codes stand for."""
    if isinstance(values, ManyNames):
        return values.some(codes)
    return [values[code] for code in codes.tolist()]


def concat_labels(parts: Sequence[Labels]) -> Labels:
    """Concatenate label columns, merging their dictionaries; of large ones, what rows use."""
    parts = [part.compact() if len(part.values) > len(part) else part for part in parts]
    if parts and all(part.values == parts[0].values for part in parts):
        return Labels(np.concatenate([part.codes for part in parts]), parts[0].values)
    index: dict[str, int] = {}
    codes = []
    for part in parts:
        remap = np.fromiter(
            (index.setdefault(value, len(index)) for value in part.values),
            dtype=np.int32,
            count=len(part.values),
        )
        codes.append(remap[part.codes] if len(part.values) else part.codes)
    return Labels(np.concatenate(codes) if codes else np.empty(0, np.int32), tuple(index))


@dataclass(frozen=True, slots=True)
class Readings:
    """*n* readings in arrival order.

    ``t_ms`` is event time, ``received_ms`` the time of receipt at the gateway or edge (both
    integer milliseconds since the epoch, UTC). ``value`` is float64 and NaN only where ``text``
    or ``exact_int`` carries the value. ``boot`` and ``seq`` number a device's messages
    (``ABSENT`` where it does not); the rows of one message share them and are adjacent.
    """

    tenant: Labels
    site: Labels
    device: Labels
    metric: Labels
    t_ms: Int64
    received_ms: Int64
    value: Float64
    quality: UInt8
    boot: Int64
    seq: Int64
    exact_int: dict[int, int]
    """Row -> integer of at most 64 bits that float64 cannot hold exactly."""
    text: dict[int, str]
    """Row -> text, for metrics declared as text."""

    def __len__(self) -> int:
        return len(self.t_ms)

    def take(self, rows: Int64 | Bool) -> Readings:
        """Select rows by index or mask, in the order given."""
        index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        sparse: dict[str, dict[int, Any]] = {"exact_int": {}, "text": {}}
        for name, kept in sparse.items():
            source = getattr(self, name)
            if source:
                kept.update(
                    (new, source[old]) for new, old in enumerate(index.tolist()) if old in source
                )
        return Readings(
            self.tenant.take(index),
            self.site.take(index),
            self.device.take(index),
            self.metric.take(index),
            self.t_ms[index],
            self.received_ms[index],
            self.value[index],
            self.quality[index],
            self.boot[index],
            self.seq[index],
            sparse["exact_int"],
            sparse["text"],
        )


def concat_readings(parts: Sequence[Readings], device: Labels | None = None) -> Readings:
    """Concatenate batches in order; an empty sequence gives an empty batch.

    :param device: the column of devices, where the caller has it already.
    """
    if len(parts) == 1:
        return parts[0] if device is None else replace(parts[0], device=device)

    def join(pick: Callable[[Readings], NDArray[Any]], dtype: Any) -> NDArray[Any]:
        return np.concatenate([pick(p) for p in parts]) if parts else np.empty(0, dtype)

    exact_int: dict[int, int] = {}
    text: dict[int, str] = {}
    offset = 0
    for part in parts:
        exact_int.update((row + offset, v) for row, v in part.exact_int.items())
        text.update((row + offset, v) for row, v in part.text.items())
        offset += len(part)
    return Readings(
        concat_labels([p.tenant for p in parts]),
        concat_labels([p.site for p in parts]),
        concat_labels([p.device for p in parts]) if device is None else device,
        concat_labels([p.metric for p in parts]),
        join(lambda p: p.t_ms, np.int64),
        join(lambda p: p.received_ms, np.int64),
        join(lambda p: p.value, np.float64),
        join(lambda p: p.quality, np.uint8),
        join(lambda p: p.boot, np.int64),
        join(lambda p: p.seq, np.int64),
        exact_int,
        text,
    )


def column_names() -> tuple[str, ...]:
    """The names of the columns, in order."""
    return tuple(field.name for field in fields(Readings))
