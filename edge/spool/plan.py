"""What is given up when there is no room, or when it is too old. Pure.

Room is made by whole segments, the oldest first: a segment is small beside its lane, and a file
that is removed gives its room back at once. Records that are on their way to the gateway
(*claimed*) are never given up: they may be in Kafka already, and would be told twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class WhenFull(Enum):
    """What a lane does with a record that it has no room for."""

    REFUSE = "refuse"
    """Not taken: who sent it keeps it. Nothing that was acknowledged is lost."""
    DROP_OLDEST = "drop-oldest"
    """The oldest segment goes, and is entered in the loss ledger."""
    THIN = "thin"
    """Old segments keep of each series and window the first, last, least and greatest reading;
    when all are thin, the oldest goes."""


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """One lane: a kind of records with its own room. Lanes of lower number go first."""

    name: str
    priority: int
    max_bytes: int
    expiry_ms: int
    """Records older than this are given up; 0: never."""
    when_full: WhenFull


@dataclass(frozen=True, slots=True)
class SegmentFacts:
    """What a plan needs to know of a segment."""

    number: int
    size: int
    waiting: int
    """Records that are neither confirmed nor claimed."""
    claimed: int
    """Records on their way to the gateway."""
    newest_ms: int
    """Of its records, the latest write."""
    active: bool
    """Whether it is still written to."""
    thin: bool


@dataclass(frozen=True, slots=True)
class Room:
    """How room is made: what to thin, what to give up, in that order; or that there is none."""

    thin: tuple[int, ...] = ()
    give_up: tuple[int, ...] = ()
    refused: bool = False


def expired(segments: Sequence[SegmentFacts], spec: LaneSpec, now_ms: int) -> list[int]:
    """Return the numbers of segments of which all records are too old."""
    if not spec.expiry_ms:
        return []
    return [
        s.number
        for s in segments
        if not s.claimed and s.waiting and now_ms - s.newest_ms > spec.expiry_ms
    ]


def make_room(segments: Sequence[SegmentFacts], spec: LaneSpec, incoming_bytes: int) -> Room:
    """Return what has to go, so that *incoming_bytes* fit into the lane.

    Thinning is asked for one segment at a time, because what it frees is known only afterwards:
    ask again then.
    """
    over = sum(s.size for s in segments) + incoming_bytes - spec.max_bytes
    if over <= 0:
        return Room()
    if spec.when_full is WhenFull.REFUSE:
        return Room(refused=True)
    movable = [s for s in segments if not s.active and not s.claimed]
    if spec.when_full is WhenFull.THIN:
        thick = next((s.number for s in movable if not s.thin), None)
        if thick is not None:
            return Room(thin=(thick,))
    chosen: list[int] = []
    for segment in movable:
        chosen.append(segment.number)
        over -= segment.size
        if over <= 0:
            return Room(give_up=tuple(chosen))
    return Room(refused=True)
