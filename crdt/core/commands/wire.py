"""What edge and cloud say to each other about commands, and its encoding: deterministic CBOR.

Up go reports, ``[1, id, number, state, reason, result, echo, remaining_ms, command]``, and calls
for all that is open, ``[1, echo]``. Down goes how a command stands in the cloud: ``[1, id, state,
heard, remaining_ms, cancel, echo, command]``. A command is null or ``[name, args, ttl_ms,
origin]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from crdt.core import cbor
from crdt.core.commands.model import (
    REPORTED,
    Command,
    CommandError,
    CommandLimits,
    Json,
    State,
    check_json,
    check_name,
)
from crdt.core.errors import WireError

CALL: Final = "\x00open/"
"""Begins the name, in place of a device, of a call for what is open in a partition."""
_VERSION = 1
_MAX_INT = 2**63 - 1
_MAX_TEXT = 1_024
_MAX_ID = 64


@dataclass(frozen=True, slots=True)
class Report:
    """What an edge says of a command."""

    id: str
    number: int
    """Counts the reports of one command, from 1."""
    state: State
    reason: str = ""
    result: Json = None
    echo: str = ""
    """Comes back in the answer: when, on the edge's own clock, this was said."""
    remaining_ms: int = 0
    """Of a command that the edge issued."""
    command: Command | None = None
    """The whole of one that the edge issued, until the cloud has heard of it."""

    def encode(self) -> bytes:
        """Return the deterministic encoding."""
        return cbor.dumps(
            [
                *(_VERSION, self.id, self.number, str(self.state), self.reason, self.result),
                *(self.echo, self.remaining_ms, _body(self.command)),
            ]
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """How a command stands in the cloud, said to the edge that carries it out."""

    id: str
    state: State
    heard: int
    """The greatest number of a report that was heard of."""
    remaining_ms: int
    """Until its deadline."""
    cancel: bool = False
    """Somebody wants it taken back."""
    echo: str = ""
    """Of the report or the call that this answers; empty if it answers none."""
    command: Command | None = None

    def encode(self) -> bytes:
        """Return the deterministic encoding."""
        return cbor.dumps(
            [
                *(_VERSION, self.id, str(self.state), self.heard, self.remaining_ms),
                *(self.cancel, self.echo, _body(self.command)),
            ]
        )


def encode_call(echo: str) -> bytes:
    """Return a call for all that is open."""
    return cbor.dumps([_VERSION, echo])


def decode_call(data: bytes) -> str:
    """Return the echo of a call.

    :raises WireError: if the bytes are none.
    """
    match cbor.loads(data, "call for commands"):
        case [1, str(echo)] if len(echo) <= _MAX_TEXT:
            return echo
    raise WireError("bad-message", "expected [1, echo], a call for commands")


def decode_report(data: bytes, site: str, limits: CommandLimits) -> Report:
    """Decode a report of a site.

    :raises WireError: if the bytes are none.
    """
    match cbor.loads(data, "report of a command"):
        case [
            1,
            str(id_),
            int(number),
            str(state),
            str(reason),
            result,
            str(echo),
            int(remaining_ms),
            body,
        ] if (
            len(id_) <= _MAX_ID
            and 0 < number <= _MAX_INT
            and state in set(REPORTED)
            and max(len(reason), len(echo)) <= _MAX_TEXT
            and 0 <= remaining_ms <= _MAX_INT
        ):
            command = _command(id_, body, site, limits)
            _check(id_, result, limits)
            return Report(
                *(id_, number, State(state), reason, result, echo),
                *(min(remaining_ms, limits.max_ttl_ms), command),
            )
    raise WireError("bad-message", "expected a report of a command; see docs/wire.md")


def decode_standing(data: bytes, site: str, limits: CommandLimits) -> Standing:
    """Decode what the cloud says to a site.

    :raises WireError: if the bytes are not that.
    """
    match cbor.loads(data, "standing of a command"):
        case [
            1,
            str(id_),
            str(state),
            int(heard),
            int(remaining_ms),
            bool(cancel),
            str(echo),
            body,
        ] if (
            len(id_) <= _MAX_ID
            and 0 <= heard <= _MAX_INT
            and state in set(State)
            and len(echo) <= _MAX_TEXT
            and abs(remaining_ms) <= _MAX_INT
        ):
            command = _command(id_, body, site, limits)
            return Standing(id_, State(state), heard, remaining_ms, cancel, echo, command)
    raise WireError("bad-message", "expected how a command stands; see docs/wire.md")


def _body(command: Command | None) -> list[Any] | None:
    return None if command is None else [command.name, command.args, command.ttl_ms, command.origin]


def _command(id_: str, body: Any, site: str, limits: CommandLimits) -> Command | None:
    match body:
        case None:
            return None
        case [str(name), args, int(ttl_ms), str(origin)] if len(origin) <= _MAX_TEXT:
            command = Command(id_, name, args, ttl_ms, site, origin)
        case _:
            raise WireError("bad-message", "expected [name, args, ttl_ms, origin] or null")
    try:
        command.check(limits)
    except CommandError as error:
        raise WireError(error.reason, error.detail) from error
    return command


def _check(id_: str, result: object, limits: CommandLimits) -> None:
    try:
        check_name("id", id_, _MAX_ID)
        check_json(result, "result", limits)
    except CommandError as error:
        raise WireError(error.reason, error.detail) from error
