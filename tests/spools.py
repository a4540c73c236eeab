"""A spool on a disk that fails when told to, and what its ledger says."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from edge.spool.disk import Disk
from edge.spool.losses import Loss, decode
from edge.spool.plan import LaneSpec, WhenFull
from edge.spool.records import Record
from edge.spool.spool import LOSSES, Contents, Spool


class SmallDisk(Disk):
    """The real folder, which takes only so many bytes: a write is cut where they end."""

    def __init__(self, root: Path, free_bytes: int = 1 << 40) -> None:
        super().__init__(root)
        self.root = root
        self.free_bytes = free_bytes

    def used(self) -> int:
        return sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())

    def _write(self, fd: int, data: bytes) -> None:
        room = max(0, self.free_bytes - self.used())
        super()._write(fd, data[:room])
        if len(data) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def halved(records: Sequence[Record]) -> list[Record]:
    """Thinning for tests: every second record stays."""
    return list(records[::2])


CONTENTS = Contents(lambda payload: {payload[:6].decode(): 1}, halved)


def reading(number: int, now_ms: int) -> Record:
    """A record of one row, recognisable by its number, of about 100 bytes."""
    return Record(b"%06d" % (number % 7) + b"%054d" % number, 1, now_ms, now_ms)


def number_of(record: Record) -> int:
    return int(record.payload[6:])


def opened(
    disk: Disk,
    *,
    now_ms: int = 0,
    max_bytes: int = 4_000,
    expiry_ms: int = 0,
    when_full: WhenFull = WhenFull.DROP_OLDEST,
    segment_bytes: int = 500,
) -> Spool:
    lanes = [
        LaneSpec("readings", 2, max_bytes, expiry_ms, when_full),
        LaneSpec(LOSSES, 1, 1 << 20, 0, WhenFull.REFUSE),
    ]
    mint = lambda: "5f00"  # noqa: E731
    return Spool(disk, lanes, CONTENTS, mint=mint, now_ms=now_ms, segment_bytes=segment_bytes)


def ledger(spool: Spool) -> list[Loss]:
    """All losses that have not gone up."""
    entries = spool.claim(LOSSES, 1 << 30, 1 << 30)
    spool.release(entries)
    return [decode(entry.record.payload) for entry in entries]


def waiting(spool: Spool) -> list[int]:
    """The numbers of the readings that wait, oldest first."""
    entries = spool.claim("readings", 1 << 30, 1 << 30)
    spool.release(entries)
    return [number_of(entry.record) for entry in entries]
