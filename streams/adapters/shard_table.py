"""State of partitions in a Faust table, each piece stamped with the offset it stands for.

A piece of state (a shard, a device) is stored under ``partition / key / incarnation / slot /
chunk``. The incarnation is random per process and assignment, since nothing fences a worker
that was stopped and comes back: its late writes land beside, never over, those of the new
owner. A value begins with its stamp, the number of chunks and their total length, so that
a piece which was only half written is recognised; a piece of several chunks is written to the
slot that does not hold the last whole one.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import faust
from faust.types import FutureMessage

from streams.adapters import rocks_store
from streams.adapters.shard_keys import join_key, partition_in, split_key

CHUNK_BYTES = 900_000
_HEAD = struct.Struct(">qIQ")

CHANGELOG_CONFIG: Mapping[str, Any] = {
    "cleanup.policy": "compact",
    "segment.bytes": 67_108_864,
    "min.cleanable.dirty.ratio": 0.1,
    "max.compaction.lag.ms": 60_000,
    "max.message.bytes": 2_097_152,
}
"""Faust would leave segments at 1 GiB, which are never compacted: a restore reads gigabytes."""


class ShardTable(faust.Table[bytes, bytes]):
    """A table whose keys begin with the partition that they belong to."""

    def partition_for_key(self, key: Any) -> int | None:
        """Return the partition that the key names: checkpoints need no current event."""
        return partition_in(key)

    def of_partition(self, partition: int) -> Iterable[tuple[bytes, bytes]]:
        """Return the keys and values of one partition."""
        if isinstance(self.data, rocks_store.Store):
            return self.data.of_partition(partition)
        return ((raw, value) for raw, value in self.items() if partition_in(raw) == partition)


@dataclass(frozen=True, slots=True)
class Piece:
    """A restored piece of state."""

    key: str
    stamp: int
    state: bytes


@dataclass(frozen=True, slots=True)
class Written:
    """What a checkpoint has to wait for, and what it may remove afterwards."""

    futures: list[FutureMessage]
    stale: list[bytes]


@dataclass(slots=True)
class ShardStore:
    """The pieces of one partition, as one owner writes them."""

    table: ShardTable
    partition: int
    incarnation: bytes
    _slots: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Key -> (slot, chunks) of the last piece of this incarnation."""
    _held: dict[str, set[bytes]] = field(default_factory=dict)
    """Key -> the table keys that hold any copy of it."""

    def load(self) -> list[Piece]:
        """Return the newest whole piece of every key.

        A key without any whole piece was being written for the first time when its writer
        died: nothing was committed on the strength of it, and the log is read again.
        """
        # A slot may hold left-over chunks of an older, longer piece: a piece is the chunks that
        # carry the same head.
        found: dict[tuple[str, bytes, int, bytes], dict[int, bytes]] = {}
        for raw, value in self.table.of_partition(self.partition):
            _, key, incarnation, slot, chunk = split_key(raw)
            if value:
                self._held.setdefault(key, set()).add(raw)
                head, content = value[: _HEAD.size], value[_HEAD.size :]
                found.setdefault((key, incarnation, slot, head), {})[chunk] = content
        newest: dict[str, Piece] = {}
        for (key, _, _, head), chunks in found.items():
            piece = _assemble(key, head, chunks)
            if piece and (key not in newest or piece.stamp > newest[key].stamp):
                newest[key] = piece
        return list(newest.values())

    def write(self, key: str, stamp: int, state: bytes) -> Written:
        """Write a piece; it counts once all returned futures are done."""
        chunks = [state[i : i + CHUNK_BYTES] for i in range(0, len(state), CHUNK_BYTES)] or [b""]
        slot, before = self._slots.get(key, (0, 1))
        if before > 1 or len(chunks) > 1:
            slot = 1 - slot
        self._slots[key] = (slot, len(chunks))
        head = _HEAD.pack(stamp, len(chunks), len(state))
        mine = [
            join_key(self.partition, key, self.incarnation, slot, i) for i in range(len(chunks))
        ]
        futures = [self._put(raw, head + chunk) for raw, chunk in zip(mine, chunks, strict=True)]
        stale = self._held.get(key, set()) - set(mine)
        self._held[key] = set(mine)
        return Written(futures, sorted(stale))

    def remove(self, keys: Iterable[bytes]) -> None:
        """Remove what a finished checkpoint has made stale."""
        for raw in keys:
            if raw in self.table.data:
                self.table.data.pop(raw)
                self.table.send_changelog(self.partition, raw, value=None, value_serializer="raw")

    def _put(self, raw: bytes, value: bytes) -> FutureMessage:
        self.table.data[raw] = value
        return self.table.send_changelog(self.partition, raw, value)


async def acknowledged(futures: Iterable[asyncio.Future[Any]]) -> None:
    """Wait for the broker's acknowledgement of each record; a failed send raises.

    Who stops waiting leaves the futures alone: Faust sets their results whenever they come.
    """
    waiting = list(futures)
    if waiting:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
        for future in done:
            future.result()


def _assemble(key: str, head: bytes, chunks: Mapping[int, bytes]) -> Piece | None:
    """Return a piece if all its chunks are there."""
    stamp, count, length = _HEAD.unpack(head)
    if set(chunks) != set(range(count)):
        return None
    state = b"".join(chunks[i] for i in range(count))
    return Piece(key, stamp, state) if len(state) == length else None
