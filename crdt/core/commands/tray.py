"""The edge's side of one command: pure steps from what is held to what is to be held.

Whoever makes a step stores what it returns before acting on it, so a crash at any moment leaves one
of the two. Deadlines are kept as time remaining on a monotonic clock, never by the wall clock: an
answer of the cloud says how much is left, and counts from when its question was asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from crdt.core import cbor
from crdt.core.commands.model import ENDS, Command, Json, State
from crdt.core.commands.wire import Report, Standing
from crdt.core.errors import WireError


class Stage(StrEnum):
    """How far a command has come at the edge."""

    WAITING = "waiting"
    """The cloud does not know yet that it is here, or no trusted time is known."""
    READY = "ready"
    """A device may take it, until its deadline."""
    STARTED = "started"
    """A device has it."""
    ENDED = "ended"
    """The cloud is to hear of the end."""
    CLOSED = "closed"
    """The cloud knows the end: only the id is remembered."""


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment on the monotonic clock of one boot of the machine."""

    boot: str
    ms: int

    def echo(self) -> str:
        """Return it as text that a report carries."""
        return f"{self.boot}:{self.ms}"


@dataclass(frozen=True, slots=True)
class Held:
    """One command at the edge."""

    device: str
    command: Command
    stage: Stage
    number: int
    """Of the last thing to report."""
    heard: int = 0
    """Of the last report that the cloud has heard."""
    boot: str = ""
    deadline_ms: int = 0
    """On the monotonic clock of that boot; means something from ``READY`` on."""
    end: State | None = None
    reason: str = ""
    result: Json = None
    cancel: bool = False

    def encode(self) -> bytes:
        """Return it for the disk."""
        c = self.command
        return cbor.dumps(
            [
                *(1, self.device, c.id, c.name, c.args, c.ttl_ms, c.site, c.origin),
                *(str(self.stage), self.number, self.heard, self.boot, self.deadline_ms),
                *(None if self.end is None else str(self.end), self.reason, self.result),
                self.cancel,
            ]
        )


def decode_held(data: bytes) -> Held:
    """Return what :meth:`Held.encode` made.

    :raises WireError: if it is damaged, or of another version.
    """
    fields: Any = cbor.loads(data, "a held command")
    match fields:
        case [1, str(device), id_, name, args, ttl_ms, site, origin, str(stage), *rest]:
            number, heard, boot, deadline_ms, end, reason, result, cancel = rest
            return Held(
                device,
                Command(id_, name, args, ttl_ms, site, origin),
                Stage(stage),
                number=number,
                heard=heard,
                boot=boot,
                deadline_ms=deadline_ms,
                end=None if end is None else State(end),
                reason=reason,
                result=result,
                cancel=cancel,
            )
    raise WireError("unknown-version", "a held command: expected version 1")


def issued(device: str, command: Command, now: Instant) -> Held:
    """Begin a command that the edge itself issues: it may be taken at once."""
    deadline_ms = now.ms + command.ttl_ms
    return Held(device, command, Stage.READY, 1, boot=now.boot, deadline_ms=deadline_ms)


def offered(device: str, standing: Standing, *, room: bool) -> Held | None:
    """Begin a command that the cloud tells of; None if there is nothing to begin.

    :param room: whether another one may be open for this device.
    """
    command = standing.command
    if command is None or standing.state in ENDS:
        return None
    held = Held(device, command, Stage.WAITING, 0)
    if standing.heard:
        # A life of this edge that the disk knows nothing of may have started it.
        return _ended(replace(held, number=standing.heard), State.FAILED, "forgotten")
    if not room:
        return _ended(held, State.FAILED, "too-many-open")
    return replace(held, number=1)


def told(held: Held, standing: Standing, now: Instant) -> Held:
    """Take what the cloud says of a command that is held."""
    if standing.state in ENDS:
        return replace(held, stage=Stage.CLOSED, end=standing.state, heard=held.number)
    held = replace(held, heard=max(held.heard, min(standing.heard, held.number)))
    if held.stage is Stage.WAITING and held.heard:
        held = _permitted(held, standing, now)
    if standing.cancel and held.stage in (Stage.WAITING, Stage.READY):
        return _ended(held, State.CANCELLED, "")
    return replace(held, cancel=held.cancel or standing.cancel)


def _permitted(held: Held, standing: Standing, now: Instant) -> Held:
    boot, _, said_ms = standing.echo.rpartition(":")
    if boot != now.boot or not said_ms.isdigit():
        return held
    # Counted from the question: the answer cannot have been given before.
    deadline_ms = int(said_ms) + standing.remaining_ms
    held = replace(held, stage=Stage.READY, boot=boot, deadline_ms=deadline_ms)
    return expired(held, now)


def expired(held: Held, now: Instant) -> Held:
    """Let time pass: what nothing started until its deadline has ended."""
    due = held.stage is Stage.READY and held.boot == now.boot and now.ms >= held.deadline_ms
    return _ended(held, State.EXPIRED, "") if due else held


def started(held: Held) -> Held:
    """Hand a ready command to its device."""
    return replace(held, stage=Stage.STARTED, number=held.number + 1)


def finished(held: Held, state: State, reason: str, result: Json) -> Held:
    """End a started command as its device says."""
    return _ended(replace(held, result=result), state, reason)


def cancelled(held: Held) -> Held:
    """Take a command back at the edge: ended if nothing started it, else its device is told."""
    if held.stage in (Stage.WAITING, Stage.READY):
        return _ended(held, State.CANCELLED, "")
    return replace(held, cancel=True)


def reopened(held: Held, now: Instant) -> Held:
    """Go on after a restart of the process, or of the machine."""
    if held.stage is Stage.STARTED:
        # Whether it was done cannot be known; it is not done twice.
        return _ended(held, State.FAILED, "interrupted")
    if held.stage is Stage.READY and held.boot != now.boot:
        if not held.heard:
            return _ended(held, State.FAILED, "rebooted")
        return replace(held, stage=Stage.WAITING)
    return held


def report_of(held: Held, now: Instant) -> Report:
    """Return what the cloud is to hear of a command."""
    state = State.DELIVERED
    if held.stage is Stage.STARTED:
        state = State.ACCEPTED
    elif held.end is not None:
        state = held.end
    own = held.command.origin != "cloud" and not held.heard
    remaining_ms = max(0, held.deadline_ms - now.ms) if own and held.boot == now.boot else 0
    return Report(
        *(held.command.id, held.number, state, held.reason, held.result, now.echo()),
        *(remaining_ms, held.command if own else None),
    )


def _ended(held: Held, state: State, reason: str) -> Held:
    return replace(held, stage=Stage.ENDED, number=held.number + 1, end=state, reason=reason)
