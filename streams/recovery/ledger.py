"""What was decided about held records: the topic ``redrives``, and how it is read.

Theory of operation. Kafka has no compare-and-set, but a partition has an order. Whoever wants
to act on a record writes *begun* under its identity and reads the partition up to there: the
first to have begun owns it, all others leave it. What the owner writes carries the identity in
its header ``hw-redriven``; then it writes *done*. If it dies in between, a later command takes
over with an entry that *replaces* the old one, looks behind the offsets noted in it for what
had been written already, and writes only the rest. So two commands at once, or one repeated
after a crash, therefore put nothing back twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

import orjson

from streams.errors import DecodeError

VERSION = 1
ABANDONED_MS = 120_000
"""A decision begun this long ago and not done was left by a command that died: a producer gives
up much earlier."""

COUNTING = "counting"
"""Not a record but a turn: revisions of windows are made by one command at a time. Unlike a
record, it can be begun again once it is done."""


class Action(StrEnum):
    """What is done with a held record."""

    RELEASE = "release"
    """Put back as it is (or with a corrected time), on an operator's word."""
    REDRIVE = "redrive"
    """Judged again with today's settings."""
    COUNT = "count"
    """A late reading: counted into its windows by a further revision."""
    DROP = "drop"
    """Never to be put back."""


class Status(StrEnum):
    """How far a decision is carried out."""

    BEGUN = "begun"
    DONE = "done"


class State(StrEnum):
    """How a held record stands."""

    WAITING = "waiting"
    UNDER_WAY = "under way"
    UNFINISHED = "unfinished"
    RELEASED = "released"
    REDRIVEN = "redriven"
    COUNTED = "counted"
    DROPPED = "dropped"


_FINAL = {
    Action.RELEASE: State.RELEASED,
    Action.REDRIVE: State.REDRIVEN,
    Action.COUNT: State.COUNTED,
    Action.DROP: State.DROPPED,
}


@dataclass(frozen=True, slots=True)
class Decision:
    """One entry of the ledger. ``run`` is the command's id, ``at_ms`` its clock."""

    identity: str
    run: str
    action: Action
    status: Status
    at_ms: int
    shift_ms: int = 0
    ends: Mapping[str, int] = field(default_factory=dict)
    """``topic/partition`` -> end offset before anything was written: where to look for it."""
    replaces: str = ""
    """Id of the run that died, whose decision this one takes over."""

    def encode(self) -> bytes:
        """Return the value of the entry's record; its key is the identity."""
        return orjson.dumps({"version": VERSION, **asdict(self)})

    @staticmethod
    def decode(value: bytes) -> Decision:
        """Read the value of a record.

        :raises DecodeError: ``redrive-entry`` if it is not one of a version we know.
        """
        try:
            content = orjson.loads(value)
            version = content.pop("version")
            if version != VERSION:
                raise DecodeError("redrive-entry", f"version {version}; this reader knows 1")
            kinds = {"action": Action(content["action"]), "status": Status(content["status"])}
            return Decision(**{**content, **kinds})
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise DecodeError("redrive-entry", f"no entry of redrives: {error}") from error


class Ledger:
    """The decisions that hold, by identity."""

    def __init__(self) -> None:
        self._held: dict[str, Decision] = {}

    def add(self, entry: Decision, written_ms: int | None = None) -> None:
        """Take the next entry, in order of the log; the first to begin owns the record.

        :param written_ms: its log time, which is one clock for all commands.
        """
        if written_ms is not None:
            entry = replace(entry, at_ms=written_ms)
        standing = self._held.get(entry.identity)
        if standing is None or _may_follow(entry, standing):
            self._held[entry.identity] = entry

    def of(self, identity: str) -> Decision | None:
        """Return the decision that holds for a record, if there is one."""
        return self._held.get(identity)

    def owns(self, run: str, identity: str) -> bool:
        """Whether the record is the run's to carry out."""
        standing = self._held.get(identity)
        return standing is not None and standing.run == run

    def state(self, identity: str, now_ms: int) -> State:
        """Return how a record stands."""
        standing = self._held.get(identity)
        if standing is None:
            return State.WAITING
        if standing.status is Status.DONE:
            return _FINAL[standing.action]
        age_ms = now_ms - standing.at_ms
        return State.UNFINISHED if age_ms >= ABANDONED_MS else State.UNDER_WAY

    def counted(self, status: Status = Status.DONE) -> set[str]:
        """Return the identities of late readings that a further revision counts, or may count."""
        return {
            identity
            for identity, decision in self._held.items()
            if decision.action is Action.COUNT and decision.status is status
        }


def _may_follow(entry: Decision, standing: Decision) -> bool:
    if standing.status is Status.BEGUN:
        return standing.run in (entry.run, entry.replaces)
    return entry.identity == COUNTING
