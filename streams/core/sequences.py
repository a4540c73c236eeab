"""Which messages of each device have been seen, by (boot, seq).

Per device and boot the engine keeps the next expected seq and the intervals still missing
below it: redelivery is dropped exactly, out-of-order delivery is accepted, and what never
came is reported as a gap. Boots are ordered by their first appearance, not by number, so that
a device may number its boots as it likes, at random too.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streams.core.columns import Columns
from streams.core.readings import Bool, Int32, Int64, UInt8

NEW, SEEN, GIVEN_UP = 0, 1, 2
_NO_BOOT = -2
_BOOTS_PER_DEVICE = 4

_CURRENT: dict[str, tuple[Any, Any]] = {
    "boot": (np.int64, _NO_BOOT),
    "next": (np.int64, 0),
    "given_up": (np.int64, 0),
}


@dataclass(slots=True)
class Track:
    """The numbering of one boot: all of ``[0, next)`` was seen but for ``holes``."""

    next: int
    base: int
    """The first seq that was seen: what lies below it may never have been meant for us."""
    floor: int = 0
    """End of the last hole that was given up."""
    holes: list[tuple[int, int]] = field(default_factory=list)
    """Missing intervals ``[low, high)``, ascending."""

    def see(self, seq: int) -> int:
        """Mark a message as seen and say what it was."""
        if seq >= self.next:
            if seq > self.next:
                self.holes.append((self.next, seq))
            self.next = seq + 1
            return NEW
        at = bisect_right(self.holes, (seq, 1 << 63)) - 1
        if at >= 0:
            low, high = self.holes[at]
            if low <= seq < high:
                rest = [(low, seq), (seq + 1, high)]
                self.holes[at : at + 1] = [(a, b) for a, b in rest if a < b]
                return NEW
        return GIVEN_UP if seq < self.floor else SEEN

    def trim(self, limit: int) -> int:
        """Give up the oldest holes beyond *limit*; return how many messages that were."""
        lost = 0
        while len(self.holes) > limit:
            low, high = self.holes.pop(0)
            self.floor = high
            lost += high - max(low, min(self.base, high))
        return lost

    def missing(self) -> int:
        """Return how many messages have not come, from the first seen on."""
        return sum(high - max(low, self.base) for low, high in self.holes if high > self.base)


class Sequences:
    """The tracks of all devices of a partition; devices are dense indices."""

    def __init__(self, max_holes: int) -> None:
        self._max_holes = max_holes
        self.current = Columns(_CURRENT)
        self._tracks: dict[int, dict[int, Track]] = {}

    def see(self, device: Int32, boot: Int64, seq: Int64) -> UInt8:
        """Mark messages as seen, in order of arrival.

        :param device, boot, seq: arrays[m], one row a message.
        :returns: uint8[m] of ``NEW``, ``SEEN`` or ``GIVEN_UP``.
        """
        self.current.grow_to(int(device.max()) + 1)
        regular = self._regular(device, boot, seq)
        verdict = np.zeros(len(device), np.uint8)
        last = np.flatnonzero(regular)
        # Within a regular device seqs ascend: the last write is the greatest.
        self.current["next"][device[last]] = seq[last] + 1
        for i in np.flatnonzero(~regular).tolist():
            verdict[i] = self._see_one(int(device[i]), int(boot[i]), int(seq[i]))
        return verdict

    def _regular(self, device: Int32, boot: Int64, seq: Int64) -> Bool:
        """Whether all messages of a row's device just continue its numbering."""
        order = np.argsort(device, kind="stable")
        d = device[order]
        first = np.empty(len(d), np.bool_)
        first[0] = True
        np.not_equal(d[1:], d[:-1], out=first[1:])
        starts = np.flatnonzero(first)
        group = np.cumsum(first) - 1
        rank = np.arange(len(d)) - starts[group]
        follows = (seq[order] == self.current["next"][d] + rank) & (
            boot[order] == self.current["boot"][d]
        )
        whole = np.logical_and.reduceat(follows, starts)
        regular = np.empty(len(d), np.bool_)
        regular[order] = whole[group]
        return regular

    def _see_one(self, device: int, boot: int, seq: int) -> int:
        tracks = self._tracks.setdefault(device, {})
        current = int(self.current["boot"][device])
        if current in tracks:
            tracks[current].next = int(self.current["next"][device])
        track = tracks.get(boot)
        if track is None:
            track = tracks[boot] = Track(seq + 1, seq, holes=[(0, seq)] if seq > 0 else [])
            verdict = NEW
            self.current["boot"][device] = current = boot
            self._forget_oldest(device, tracks)
        else:
            verdict = track.see(seq)
            self.current["given_up"][device] += track.trim(self._max_holes)
        self.current["next"][device] = tracks[current].next
        return verdict

    def _forget_oldest(self, device: int, tracks: dict[int, Track]) -> None:
        while len(tracks) > _BOOTS_PER_DEVICE:
            oldest = tracks.pop(next(iter(tracks)))
            self.current["given_up"][device] += oldest.missing()

    def missing(self, device: int) -> int:
        """Return how many messages of a device have not come: those awaited and those given up."""
        if device >= self.current.n:
            return 0
        awaited = sum(track.missing() for track in self._tracks.get(device, {}).values())
        return awaited + int(self.current["given_up"][device])

    def snapshot(self, devices: Int64) -> list[list[Any]]:
        """Return the tracks of some devices: per device ``[given_up, current boot, tracks]``."""
        rows: list[list[Any]] = []
        for device in devices.tolist():
            tracks = self._tracks.get(device)
            if not tracks:
                rows.append([])
                continue
            current = int(self.current["boot"][device])
            tracks[current].next = int(self.current["next"][device])
            packed = [[b, t.next, t.base, t.floor, list(t.holes)] for b, t in tracks.items()]
            rows.append([int(self.current["given_up"][device]), current, packed])
        return rows

    def restore(self, devices: Int64, rows: list[list[Any]]) -> None:
        """Load what :meth:`snapshot` returned, for devices of new indices."""
        if len(devices):
            self.current.grow_to(int(devices.max()) + 1)
        for device, row in zip(devices.tolist(), rows, strict=True):
            if not row:
                continue
            given_up, boot, packed = row
            tracks = {
                b: Track(nxt, base, floor, [(low, high) for low, high in holes])
                for b, nxt, base, floor, holes in packed
            }
            self._tracks[device] = tracks
            self.current["given_up"][device] = given_up
            self.current["boot"][device] = boot
            self.current["next"][device] = tracks[boot].next
