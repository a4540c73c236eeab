"""Which messages of each device have been seen, by (boot, seq).

Redelivery is dropped exactly, out-of-order delivery is accepted, and what never came is reported
as a gap. Boots are ordered by their first appearance, not by number, so that a device may number
its boots as it likes, at random too.

Per device the columns hold the numbering of its current boot as far as the next expected seq and
one bit for each of the 64 numbers below it. Batches are judged in turns of a few messages a device,
column by column where they stay within the bits, as nearly all do; the others one message at a
time, as :class:`Numbering` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streams.core.columns import Columns
from streams.core.numbering import ALL, BITS, NEW, SEEN, Numbering, leaving
from streams.core.readings import Bool, Int32, Int64, UInt8

_NO_BOOT = -2
_BOOTS_PER_DEVICE = 4
_IN_TURN = 32
"""Messages of a device judged together: half of what the bits hold, for those out of order."""
_WORTH_A_TURN = 64
"""Messages, of all devices, for which a turn by columns is faster than one by one."""

_CURRENT: dict[str, tuple[Any, Any]] = {
    "boot": (np.int64, _NO_BOOT),
    "next": (np.int64, 0),
    "base": (np.int64, 0),
    "recent": (np.uint64, ALL),
}


@dataclass(slots=True)
class Older:
    """What of a device does not fit into the columns; most devices have none of it."""

    holes: list[tuple[int, int]]
    """Of the current boot."""
    floor: int = 0
    """Of the current boot."""
    boots: dict[int, Numbering] = field(default_factory=dict)
    """Former boots, the oldest first."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Messages sorted by device: *device* has one entry a device, the others one a message."""

    device: Int32
    starts: Int64
    group: Int64
    boot: Int64
    seq: Int64


class Sequences:
    """The numbering of all devices of a partition; devices are dense indices.

    :param max_holes: missing intervals below the last 64 numbers that are remembered per boot.
    """

    def __init__(self, max_holes: int) -> None:
        self._max_holes = max_holes
        self.current = Columns(_CURRENT)
        self._older: dict[int, Older] = {}
        self._given_up: dict[int, int] = {}
        """Of the few devices that have lost any: how many messages were given up."""

    def see(self, device: Int32, boot: Int64, seq: Int64) -> UInt8:
        """Mark messages as seen, in order of arrival.

        :param device, boot, seq: arrays[m], one row a message; no message is there twice.
        :returns: uint8[m] of ``NEW``, ``SEEN`` or ``GIVEN_UP``.
        """
        self.current.grow_to(int(device.max()) + 1)
        order = np.argsort(device, kind="stable")
        batch = _grouped(device[order], boot[order], seq[order])
        result: UInt8 = np.empty(len(order), np.uint8)
        for part in _turns(batch):
            at = order[part]
            result[at] = self._judge(_grouped(device[at], boot[at], seq[at]))
        return result

    def _judge(self, batch: _Batch) -> UInt8:
        """Judge the messages of a batch: by columns where that can be done, else one by one."""
        self._meet(batch)
        near = self._near(batch)
        mine = near[batch.group]
        verdict: UInt8 = np.empty(len(batch.seq), np.uint8)
        verdict[mine] = self._see_near(batch, near)[mine]
        ends = np.append(batch.starts[1:], len(batch.seq))
        for g in np.flatnonzero(~near).tolist():
            rows = slice(batch.starts[g], ends[g])
            each = zip(batch.boot[rows].tolist(), batch.seq[rows].tolist(), strict=True)
            verdict[rows] = self._see_each(int(batch.device[g]), list(each))
        return verdict

    def _meet(self, batch: _Batch) -> None:
        """Begin the numbering of devices that are here for the first time."""
        c = self.current
        fresh = c["boot"][batch.device] == _NO_BOOT
        d, first = batch.device[fresh], batch.starts[fresh]
        c["boot"][d] = batch.boot[first]
        c["next"][d] = c["base"][d] = batch.seq[first]

    def _near(self, batch: _Batch) -> Bool:
        """Return bool[devices]: all its messages are among the last 64 numbers, at the end too."""
        c, device = self.current, batch.device
        after = np.maximum(c["next"][device], np.maximum.reduceat(batch.seq, batch.starts) + 1)
        least = np.maximum(c["base"][device], after - BITS)
        fits = (batch.seq >= least[batch.group]) & (batch.boot == c["boot"][device][batch.group])
        near: Bool = np.logical_and.reduceat(fits, batch.starts)
        near &= after - c["next"][device] < BITS
        return near

    def _see_near(self, batch: _Batch, near: Bool) -> UInt8:
        """Judge the messages of the devices in *near*, and move their bits on."""
        c, group, seq = self.current, batch.group, batch.seq
        before, recent = c["next"][batch.device], c["recent"][batch.device]
        after = np.maximum(before, np.maximum.reduceat(seq, batch.starts) + 1)
        step = np.where(near, after - before, 0).astype(np.uint64)
        self._note_leaving(batch.device, recent, step)
        bits = recent << step
        place = np.clip(after[group] - 1 - seq, 0, BITS - 1).astype(np.uint64)
        mark = np.uint64(1) << place
        verdict = np.where(bits[group] & mark, SEEN, NEW).astype(np.uint8)
        mine = near[group]
        np.bitwise_or.at(bits, group[mine], mark[mine])
        d = batch.device[near]
        c["next"][d], c["recent"][d] = after[near], bits[near]
        return verdict

    def _note_leaving(self, device: Int32, recent: np.ndarray[Any, Any], step: Any) -> None:
        """Keep as holes the numbers that were not seen and leave the bits."""
        moved = step > 0
        unseen = ~recent >> (np.uint64(BITS) - np.maximum(step, np.uint64(1)))
        for i in np.flatnonzero(moved & (unseen != 0)).tolist():
            one = int(device[i])
            numbering = self._load(one)
            gaps = leaving(numbering.next, numbering.base, numbering.recent, int(step[i]))
            for low, high in gaps:
                numbering.leave(low, high)
            self._trim(one, numbering)
            self._store_older(one, numbering)

    def _see_each(self, device: int, messages: list[tuple[int, int]]) -> list[int]:
        """Judge the messages of one device, one at a time."""
        boot, numbering = int(self.current["boot"][device]), self._load(device)
        verdicts = []
        for its_boot, seq in messages:
            former = self._older[device].boots if device in self._older else {}
            if its_boot == boot:
                verdicts.append(numbering.see(seq))
                self._trim(device, numbering)
            elif its_boot in former:
                verdicts.append(former[its_boot].see(seq))
                self._trim(device, former[its_boot])
            else:
                self._retire(device, boot, numbering)
                boot, numbering = its_boot, Numbering.begun_at(seq)
                verdicts.append(numbering.see(seq))
        self._store(device, boot, numbering)
        return verdicts

    def _retire(self, device: int, boot: int, numbering: Numbering) -> None:
        """Make a boot a former one; beyond a few, the oldest is given up."""
        older = self._older.setdefault(device, Older([]))
        older.boots[boot] = numbering
        older.holes, older.floor = [], 0
        while len(older.boots) >= _BOOTS_PER_DEVICE:
            lost = older.boots.pop(next(iter(older.boots)))
            self._give_up(device, lost.missing())

    def _trim(self, device: int, numbering: Numbering) -> None:
        self._give_up(device, numbering.trim(self._max_holes))

    def _give_up(self, device: int, lost: int) -> None:
        if lost:
            self._given_up[device] = self._given_up.get(device, 0) + lost

    def _load(self, device: int) -> Numbering:
        c, older = self.current, self._older.get(device)
        after, base = int(c["next"][device]), int(c["base"][device])
        holes = older.holes if older else ([(0, base)] if base else [])
        floor = older.floor if older else 0
        return Numbering(after, base, int(c["recent"][device]), floor, holes)

    def _store(self, device: int, boot: int, numbering: Numbering) -> None:
        c = self.current
        c["boot"][device], c["next"][device] = boot, numbering.next
        c["base"][device], c["recent"][device] = numbering.base, numbering.recent
        self._store_older(device, numbering)

    def _store_older(self, device: int, numbering: Numbering) -> None:
        older = self._older.get(device)
        whole = numbering.holes == ([(0, numbering.base)] if numbering.base else [])
        if older is not None:
            older.holes, older.floor = numbering.holes, numbering.floor
        elif not whole or numbering.floor:
            self._older[device] = Older(numbering.holes, numbering.floor)

    def forget(self, devices: Int64) -> None:
        """Forget some devices: under their indices others may come."""
        self.current.reset(devices)
        for device in devices.tolist() if self._older or self._given_up else ():
            self._older.pop(device, None)
            self._given_up.pop(device, None)

    def missing(self, device: int) -> int:
        """Return how many messages of a device have not come: those awaited and those given up."""
        if device >= self.current.n or self.current["boot"][device] == _NO_BOOT:
            return 0
        former = self._older[device].boots.values() if device in self._older else ()
        awaited = self._load(device).missing() + sum(n.missing() for n in former)
        return awaited + self._given_up.get(device, 0)

    def snapshot(self, devices: Int64) -> dict[str, Any]:
        """Return the numbering of some devices, which are numbered from zero in it."""
        if len(devices):
            self.current.grow_to(int(devices.max()) + 1)
        older = {}
        for i, device in _places(self._older, devices):
            kept = self._older[device]
            boots = [
                [b, n.next, n.base, n.recent, n.floor, list(n.holes)] for b, n in kept.boots.items()
            ]
            older[i] = [list(kept.holes), kept.floor, boots]
        columns = self.current.select(devices)
        given_up = np.zeros(len(devices), np.int64)
        for i, device in _places(self._given_up, devices):
            given_up[i] = self._given_up[device]
        columns["given_up"] = given_up
        return {"columns": columns, "older": older}

    def restore(self, devices: Int64, state: dict[str, Any]) -> None:
        """Load what :meth:`snapshot` returned, for devices of new indices."""
        if not len(devices):
            return
        self.current.grow_to(int(devices.max()) + 1)
        for name in _CURRENT:
            self.current[name][devices] = state["columns"][name]
        given_up = zip(devices.tolist(), state["columns"]["given_up"].tolist(), strict=True)
        self._given_up |= {device: lost for device, lost in given_up if lost}
        for i, (holes, floor, boots) in state["older"].items():
            former = {
                boot: Numbering(after, base, recent, low, [(a, b) for a, b in gaps])
                for boot, after, base, recent, low, gaps in boots
            }
            self._older[int(devices[i])] = Older([(a, b) for a, b in holes], floor, former)


def _places(known: Mapping[int, Any], devices: Int64) -> Iterator[tuple[int, int]]:
    """Yield place and index of those *devices* that are known, in their order."""
    at = np.flatnonzero(np.isin(devices, np.fromiter(known, np.int64, len(known))))
    return zip(at.tolist(), devices[at].tolist(), strict=True)


def _turns(batch: _Batch) -> Iterator[Int64]:
    """Yield the places of a batch in turns that hold so few messages of a device that bits do.

    Not where devices are so few that going by columns costs more than one by one.
    """
    place = np.arange(len(batch.seq))
    turn = (place - batch.starts[batch.group]) // _IN_TURN
    turns = int(turn.max()) + 1
    if len(batch.seq) < turns * _WORTH_A_TURN:
        yield place
    else:
        yield from (place[turn == number] for number in range(turns))


def _grouped(device: Int32, boot: Int64, seq: Int64) -> _Batch:
    first = np.empty(len(device), np.bool_)
    first[0] = True
    np.not_equal(device[1:], device[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    return _Batch(device[starts], starts, np.cumsum(first) - 1, boot, seq)
