"""The spool: lanes under one quota, a loss ledger, and what happens at a start.

All methods belong to one thread. Wall time comes in as ``now_ms``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from prometheus_client import Counter

from edge.errors import SpoolError, SpoolFullError
from edge.spool import losses
from edge.spool.disk import Disk
from edge.spool.lane import THIN, Entry, Lane
from edge.spool.losses import Loss
from edge.spool.plan import LaneSpec, WhenFull, expired, make_room
from edge.spool.records import HEAD_BYTES, Damage, Record

LOSSES = "losses"
"""The lane of the ledger. It gives nothing up."""
_VERSION = 1
_STATE = "spool.json"
_BALLAST = "ballast"
_BALLAST_BYTES = 1 << 20
"""Kept free: on a full disk it is what a loss is written into, and what a start has to write."""
_BALLAST_STEP_BYTES = 1 << 16
_LIFE_BITS = 32
_LOST = Counter("headwater_edge_lost", "Readings given up, by lane and reason.", ["lane", "reason"])
_DISK_FULL = Counter("headwater_edge_disk_full", "Writes that the disk refused.")


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """What lies in a lane."""

    name: str
    records: int
    rows: int
    size: int
    max_bytes: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class Contents:
    """What the spool has to know of payloads."""

    devices: Callable[[bytes], Mapping[str, int]]
    """``tenant/device`` -> readings."""
    thin: Callable[[Sequence[Record]], list[Record]]
    """Keeps of each series and window what shows its course; deterministic."""


def free_ballast(disk: Disk) -> None:
    """Give a start the room that was kept for it; a :class:`Spool` that is open keeps it anew."""
    disk.remove(_BALLAST)


class Spool:
    """Lanes on one disk."""

    def __init__(
        self,
        disk: Disk,
        lanes: Sequence[LaneSpec],
        contents: Contents,
        *,
        mint: Callable[[], str],
        now_ms: int,
        segment_bytes: int,
    ) -> None:
        """Open the spool, or make it; give up what is damaged, and say so in the ledger.

        :param lanes: one of them is named ``losses``.
        :param mint: makes the id of a new spool, random.
        :raises SpoolError: if it cannot be used, or is of another version.
        """
        self._disk, self._contents = disk, contents
        self.lost: dict[str, int] = {}
        """Readings given up in this life, by reason."""
        try:
            self.id, self.life = self._begin_life(mint)
            first = self.life << _LIFE_BITS
            self._lanes = {s.name: Lane(disk, s, first, segment_bytes) for s in lanes}
            self._replay_losses()
            for lane in self._lanes.values():
                self._mend(lane, now_ms)
            self._keep_ballast()
        except (OSError, ValueError) as error:
            raise SpoolError(f"{disk}: the spool cannot be opened: {error}") from error

    @property
    def status(self) -> list[LaneStatus]:
        """What lies in each lane, the most urgent first."""
        ordered = sorted(self._lanes.values(), key=lambda lane: lane.spec.priority)
        return [
            LaneStatus(x.spec.name, x.records, x.rows, x.size, x.spec.max_bytes, x.oldest_ms)
            for x in ordered
        ]

    def append(
        self, lane: str, records: Sequence[Record], now_ms: int, *, claim: bool = False
    ) -> list[Entry]:
        """Store records: on disk when this returns, so they may be acknowledged.

        :param claim: whether whoever calls sends them at once.
        :raises SpoolFullError: if there is no room and the lane gives nothing up.
        :raises SpoolError: if the disk fails.
        """
        target = self._lanes[lane]
        try:
            self._make_room(target, sum(record.size for record in records), now_ms)
        except OSError as error:
            raise SpoolError(f"{self._disk}/{lane}: no room can be made: {error}") from error
        while True:
            try:
                return target.append(records, claim=claim)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise SpoolError(f"{self._disk}/{lane}: cannot be written: {error}") from error
                _DISK_FULL.inc()
                if not self._free_a_segment(target, now_ms):
                    raise SpoolFullError(f"{self._disk}/{lane}: the disk is full") from error

    def claim(self, lane: str, max_rows: int, max_bytes: int) -> list[Entry]:
        """Take on the oldest waiting records of a lane, at least one if there is one.

        :raises SpoolError: if they cannot be read.
        """
        try:
            return self._lanes[lane].claim(max_rows, max_bytes)
        except OSError as error:
            raise SpoolError(f"{self._disk}/{lane}: cannot be read: {error}") from error

    def release(self, entries: Sequence[Entry]) -> None:
        """Give claimed records back: they wait again."""
        for entry in entries:
            self._lanes[entry.lane].release((entry,))

    def confirm(self, entries: Sequence[Entry]) -> None:
        """Note that records are in Kafka; what a full disk does not note is sent again later."""
        for name in {entry.lane for entry in entries}:
            try:
                self._lanes[name].confirm([e for e in entries if e.lane == name])
            except OSError:
                _DISK_FULL.inc()

    def refuse(self, entries: Sequence[Entry], detail: str, now_ms: int) -> None:
        """Give up records that the gateway will never take, and enter them in the ledger.

        :raises SpoolError: if the ledger cannot be written.
        """
        for lane, segment in sorted({(e.lane, e.segment) for e in entries}):
            mine = [e for e in entries if (e.lane, e.segment) == (lane, segment)]
            self._lose(
                self._lanes[lane], segment, mine, reason="refused", now_ms=now_ms, detail=detail
            )

    def expire(self, now_ms: int, running_ms: int) -> None:
        """Give up what is too old.

        :param running_ms: now, by the clock that stamped the records.
        :raises SpoolError: if the ledger cannot be written.
        """
        for lane in self._lanes.values():
            for number in expired(lane.facts(), lane.spec, running_ms):
                lane.seal()
                self._lose(lane, number, lane.waiting(number), reason="expired", now_ms=now_ms)

    def close(self) -> None:
        """Close all files."""
        self._disk.close_all()

    # -- room ---------------------------------------------------------------------------------

    def _make_room(self, lane: Lane, incoming_bytes: int, now_ms: int) -> None:
        while lane.size + incoming_bytes > lane.spec.max_bytes:
            room = make_room(lane.facts(), lane.spec, incoming_bytes)
            if room.refused:
                raise SpoolFullError(
                    f"{self._disk}/{lane.spec.name}: {lane.size} of {lane.spec.max_bytes} bytes "
                    "are taken by what the gateway has not confirmed"
                )
            for number in room.thin:
                if not self._thin(lane, number, now_ms):
                    self._lose(lane, number, lane.waiting(number), reason="dropped", now_ms=now_ms)
            for number in room.give_up:
                self._lose(lane, number, lane.waiting(number), reason="dropped", now_ms=now_ms)

    def _free_a_segment(self, lane: Lane, now_ms: int) -> bool:
        """Give up the oldest segment of a lane that may, because the disk itself is full."""
        if lane.spec.when_full is WhenFull.REFUSE:
            return False
        facts = [s for s in lane.facts() if not s.claimed and s.waiting]
        if not facts:
            return False
        lane.seal()
        self._lose(
            lane, facts[0].number, lane.waiting(facts[0].number), reason="dropped", now_ms=now_ms
        )
        return True

    def _thin(self, lane: Lane, number: int, now_ms: int) -> bool:
        """Thin a segment; False if the disk has no room for what is left of it."""
        before = lane.waiting(number)
        kept = self._thinned(before)
        rows = sum(e.record.rows for e in before) - sum(record.rows for record in kept)
        try:
            lane.stage(number, kept)
        except OSError:
            return False
        if rows:
            loss = self._loss_of(lane, number, before, reason="thinned", now_ms=now_ms)
            self._tell(replace(loss, readings=rows, devices=self._gone(before, kept)), now_ms)
        lane.swap(number, kept)
        return True

    def _gone(self, before: Sequence[Entry], kept: Sequence[Record]) -> dict[str, int]:
        """Readings by device that thinning leaves out."""
        count = self._contents.devices
        had, _ = losses.top_devices([count(entry.record.payload) for entry in before])
        have, _ = losses.top_devices([count(record.payload) for record in kept])
        return {name: n - have.get(name, 0) for name, n in had.items() if n > have.get(name, 0)}

    def _thinned(self, before: Sequence[Entry]) -> list[Record]:
        kept = self._contents.thin([entry.record for entry in before])
        return [replace(record, flags=record.flags | THIN) for record in kept]

    # -- the ledger ---------------------------------------------------------------------------

    def _lose(
        self,
        lane: Lane,
        number: int,
        entries: Sequence[Entry],
        *,
        reason: str,
        now_ms: int,
        detail: str = "",
    ) -> None:
        loss = self._loss_of(lane, number, entries, reason=reason, now_ms=now_ms, detail=detail)
        self._tell(loss, now_ms)
        try:
            lane.forget(number, loss.places)
        except OSError:
            # The ledger has it: the next start takes it away.
            _DISK_FULL.inc()
        self._keep_ballast()

    def _loss_of(
        self,
        lane: Lane,
        number: int,
        entries: Sequence[Entry],
        *,
        reason: str,
        now_ms: int,
        detail: str = "",
    ) -> Loss:
        records = [entry.record for entry in entries]
        counted = lane.spec.name == "readings"
        counts = [self._contents.devices(r.payload) for r in records] if counted else []
        devices, others = losses.top_devices(counts)
        return Loss(
            lane=lane.spec.name,
            reason=reason,
            at_ms=now_ms,
            segment=number,
            places=_ranges(entries),
            readings=sum(record.rows for record in records),
            from_ms=min((record.oldest_ms for record in records), default=None),
            to_ms=max((record.oldest_ms for record in records), default=None),
            detail=detail,
            devices=devices,
            other_devices=others,
        )

    def _tell(self, loss: Loss, now_ms: int) -> None:
        record = Record(loss.encode(), 1, now_ms, now_ms)
        ledger = self._lanes[LOSSES]
        if ledger.size + record.size > ledger.spec.max_bytes:
            raise SpoolFullError(
                f"{self._disk}/{LOSSES}: the loss ledger is full, so nothing more is given up"
            )
        try:
            ledger.append([record], claim=False)
        except OSError:
            try:
                self._disk.remove(_BALLAST)
                ledger.append([record], claim=False)
            except OSError as error:
                raise SpoolError(f"{self._disk}/{LOSSES}: cannot be written: {error}") from error
        _LOST.labels(loss.lane, loss.reason).inc(loss.readings or 0)
        self.lost[loss.reason] = self.lost.get(loss.reason, 0) + (loss.readings or 0)

    def _keep_ballast(self) -> None:
        """Hold room for the ledger and the next start: on a full disk, what there is of it."""
        if _BALLAST in self._disk.names("."):
            return
        for size in range(_BALLAST_BYTES, 0, -_BALLAST_STEP_BYTES):
            try:
                self._disk.append(_BALLAST, bytes(size))
            except OSError:
                self._disk.remove(_BALLAST)
            else:
                self._disk.close(_BALLAST)
                return

    # -- a start ------------------------------------------------------------------------------

    def _begin_life(self, mint: Callable[[], str]) -> tuple[str, int]:
        """Return id and life; a life numbers its segments above those of every life before."""
        state: dict[str, Any] = {"version": _VERSION, "id": "", "life": 0}
        if _STATE in self._disk.names("."):
            state = orjson.loads(self._disk.read(_STATE))
        if state["version"] != _VERSION:
            raise SpoolError(
                f"{self._disk}: has version {state['version']}, this code reads {_VERSION}: it was "
                "written by another version of Headwater; run that one until it is empty"
            )
        found, life = str(state["id"]) or mint(), int(state["life"]) + 1
        self._disk.replace(_STATE, orjson.dumps({"version": _VERSION, "id": found, "life": life}))
        return found, life

    def _replay_losses(self) -> None:
        """Take away what the ledger says is gone: a crash may have come between the two."""
        ledger = self._lanes[LOSSES]
        for facts in ledger.facts():
            for entry in ledger.waiting(facts.number):
                loss = losses.decode(entry.record.payload)
                lane = self._lanes.get(loss.lane)
                if lane is None or not lane.has(loss.segment):
                    continue
                if loss.reason != "thinned":
                    lane.forget(loss.segment, loss.places)
                elif not any(s.thin for s in lane.facts() if s.number == loss.segment):
                    kept = self._thinned(lane.waiting(loss.segment))
                    lane.stage(loss.segment, kept)
                    lane.swap(loss.segment, kept)

    def _mend(self, lane: Lane, now_ms: int) -> None:
        """Move what is whole out of damaged segments, and enter the rest in the ledger."""
        damaged, lane.damage = lane.damage, []
        for number in sorted({number for number, _ in damaged}):
            if not lane.has(number):
                continue
            whole = [entry.record for entry in lane.waiting(number)]
            moved = None
            try:
                moved = lane.add_segment(whole) if whole else None
                for _, damage in (each for each in damaged if each[0] == number):
                    self._tell(_damage_loss(lane.spec.name, number, damage, now_ms), now_ms)
            except (OSError, SpoolError):
                # No room to move it: it stays as it is, readable, until a start that has room.
                _DISK_FULL.inc()
                if moved is not None:
                    lane.remove(moved)
                continue
            lane.remove(number)


def _damage_loss(lane: str, number: int, damage: Damage, now_ms: int) -> Loss:
    where = "at the end, perhaps never acknowledged" if damage.at_end else "inside"
    return Loss(
        lane=lane,
        reason="damaged",
        at_ms=now_ms,
        segment=number,
        places=((0, 1 << 62),),
        readings=damage.rows,
        detail=f"{damage.size} bytes of segment {number} are no whole record: {where}",
    )


def _ranges(entries: Sequence[Entry]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for entry in entries:
        end = entry.place + HEAD_BYTES + len(entry.record.payload)
        if found and found[-1][1] == entry.place:
            found[-1] = (found[-1][0], end)
        else:
            found.append((entry.place, end))
    return tuple(found)
