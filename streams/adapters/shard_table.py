"""State of partitions in a Faust table, each piece stamped with the offset it stands for.

A piece of state (a shard, a device) is stored under ``partition / key / incarnation / slot /
chunk``. The incarnation is random per process and assignment, since nothing fences a worker
that was stopped and comes back: its late writes land beside, never over, those of the new
owner.

State that left memory lies in *segments* under keys of their own. A piece names the segments that
belong with it, and counts only while they are all there; a segment that no piece names any more
goes with the next one that is written.

A value begins with its stamp, the number of chunks and their total length, so that
a piece which was only half written is recognised; a piece of several chunks is written to the
slot that does not hold the last whole one.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import faust
from faust.types import FutureMessage

from streams.adapters import rocks_store
from streams.adapters.shard_keys import join_key, partition_in, split_key
from streams.errors import StateError
from streams.topics import LOG_TIME

CHUNK_BYTES = 900_000
_HEAD = struct.Struct(">qIQ")
_NAMING = struct.Struct(">4sI")
_NAMES_SEGMENTS = b"HWP1"
_SEGMENT = "#"

CHANGELOG_CONFIG: Mapping[str, Any] = {
    "cleanup.policy": "compact",
    "segment.bytes": 67_108_864,
    "min.cleanable.dirty.ratio": 0.1,
    "max.compaction.lag.ms": 60_000,
    "max.message.bytes": 2_097_152,
    **LOG_TIME,
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
    segments: tuple[str, ...] = ()


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
    """Key -> the table keys that hold any copy of it, or a segment of it."""
    _segments: dict[str, list[bytes]] = field(default_factory=dict)
    """Segment -> the table keys of its chunks, in order."""

    def load(self) -> list[Piece]:
        """Return the newest whole piece of every key, of those whose segments are all there.

        A key without any whole piece was being written for the first time when its writer
        died: nothing was committed on the strength of it, and the log is read again.
        """
        # A slot may hold left-over chunks of an older, longer piece: a piece is the chunks that
        # carry the same head.
        found: dict[tuple[str, bytes, int, bytes], dict[int, bytes]] = {}
        parts: dict[tuple[str, bytes], dict[int, bytes]] = {}
        for raw, value in self.table.of_partition(self.partition):
            _, key, incarnation, slot, chunk = split_key(raw)
            if not value:
                continue
            owner, _, segment = key.partition(_SEGMENT)
            self._held.setdefault(owner, set()).add(raw)
            head, content = value[: _HEAD.size], value[_HEAD.size :]
            if segment:  # Read when it is asked for: here it only has to be whole.
                of = parts.setdefault((segment, incarnation), {})
                of[chunk] = raw
                if len(of) == _HEAD.unpack(head)[1]:
                    self._segments[segment] = [of[i] for i in sorted(of)]
            else:
                found.setdefault((key, incarnation, slot, head), {})[chunk] = content
        newest: dict[str, Piece] = {}
        for (key, _, _, head), chunks in found.items():
            piece = _assemble(key, head, chunks)
            if piece is None or not self._segments.keys() >= set(piece.segments):
                continue
            if key not in newest or piece.stamp > newest[key].stamp:
                newest[key] = piece
        return list(newest.values())

    def segment(self, name: str) -> bytes:
        """Return a segment.

        :raises StateError: if it is not there.
        """
        try:
            return b"".join(self.table.data[raw][_HEAD.size :] for raw in self._segments[name])
        except KeyError as error:
            raise StateError(
                f"the segment {name} of stored state is gone from {self.table.name}; bring the "
                "changelog back, or take a new worker.id, which reads the log again "
                "(docs/upgrading.md)"
            ) from error

    def write_segment(self, key: str, name: str, stamp: int, state: bytes) -> list[FutureMessage]:
        """Write a segment of a key; it is there once all returned futures are done."""
        whole = f"{key}{_SEGMENT}{name}"
        chunks = _chunks(state)
        mine = [join_key(self.partition, whole, self.incarnation, 0, i) for i in range(len(chunks))]
        head = _HEAD.pack(stamp, len(chunks), len(state))
        self._segments[name] = mine
        self._held.setdefault(key, set()).update(mine)
        return [self._put(raw, head + chunk) for raw, chunk in zip(mine, chunks, strict=True)]

    def write(self, key: str, stamp: int, state: bytes, segments: Sequence[str] = ()) -> Written:
        """Write a piece; it counts once all returned futures are done.

        :param segments: which belong with it; the others of its key are stale.
        """
        state = _naming(segments, state)
        chunks = _chunks(state)
        slot, before = self._slots.get(key, (0, 1))
        if before > 1 or len(chunks) > 1:
            slot = 1 - slot
        self._slots[key] = (slot, len(chunks))
        head = _HEAD.pack(stamp, len(chunks), len(state))
        mine = [
            join_key(self.partition, key, self.incarnation, slot, i) for i in range(len(chunks))
        ]
        futures = [self._put(raw, head + chunk) for raw, chunk in zip(mine, chunks, strict=True)]
        kept = {*mine, *(raw for name in segments for raw in self._segments[name])}
        stale = self._held.get(key, set()) - kept
        self._held[key] = kept
        return Written(futures, sorted(stale))

    def remove(self, keys: Iterable[bytes]) -> None:
        """Remove what a finished checkpoint has made stale."""
        for raw in keys:
            segment = split_key(raw)[1].partition(_SEGMENT)[2]
            if raw in self._segments.get(segment, ()):
                del self._segments[segment]
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
    content = b"".join(chunks[i] for i in range(count))
    return Piece(key, stamp, *_named(content)) if len(content) == length else None


def _chunks(content: bytes) -> list[bytes]:
    return [content[i : i + CHUNK_BYTES] for i in range(0, len(content), CHUNK_BYTES)] or [b""]


def _naming(segments: Sequence[str], state: bytes) -> bytes:
    """Put the names of segments before a state; without any it stays as it is."""
    if not segments and state[:4] != _NAMES_SEGMENTS:
        return state
    names = "\n".join(segments).encode()
    return _NAMING.pack(_NAMES_SEGMENTS, len(names)) + names + state


def _named(content: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return the state and the names of its segments."""
    if content[:4] != _NAMES_SEGMENTS:
        return content, ()
    begin = _NAMING.size
    end = begin + int(_NAMING.unpack_from(content)[1])
    return content[end:], tuple(content[begin:end].decode().split())
