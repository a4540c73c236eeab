"""Commands: what should happen once, where desired state says what should be.

A command has an id and a deadline. Its states, and who says them::

    pending ── delivered ── accepted ──▶ done, failed      the edge, for the device
       │           │            │
       │           └─ deadline ─┴─▶ unknown ──▶ lost       the cloud; unknown is no end
       ├─ deadline ─▶ expired                              the cloud
       └─ cancel ──▶ cancelled                             the cloud

An edge starts nothing before the cloud has said that it knows of the delivery. So what is *pending*
when its deadline passes was never started anywhere, nor ever will be. A delivered one that nothing
started is ended by the edge, as expired or cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from crdt.core import cbor
from crdt.core.errors import TwinError
from crdt.core.values import MAX_DEPTH, check_value

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_MAX_ID = 64
_MAX_NAME = 128


class CommandError(TwinError):
    """A command cannot be taken; nothing of it was."""


class State(StrEnum):
    """Where a command stands."""

    PENDING = "pending"
    """Issued; the edge has not said that it has it."""
    DELIVERED = "delivered"
    """On the disk of the edge."""
    ACCEPTED = "accepted"
    """The device has it: it may have begun."""
    UNKNOWN = "unknown"
    """Its deadline has passed without a word from the edge that has it."""
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"
    """Nothing started it before its deadline."""
    CANCELLED = "cancelled"
    """Somebody took it back before anything started it."""
    LOST = "lost"
    """Unknown for so long that nobody waits any more."""
    REFUSED = "refused"
    """Too many are open for this device."""


ENDS = frozenset(
    {State.DONE, State.FAILED, State.EXPIRED, State.CANCELLED, State.LOST, State.REFUSED}
)
REPORTED = frozenset(
    {
        *(State.DELIVERED, State.ACCEPTED, State.DONE),
        *(State.FAILED, State.EXPIRED, State.CANCELLED),
    }
)
"""What an edge may say."""


@dataclass(frozen=True, slots=True)
class CommandLimits:
    """Bounds; see ``[commands]`` in the settings."""

    max_open: int = 64
    max_remembered: int = 1_024
    max_args_bytes: int = 16_384
    max_ttl_ms: int = 604_800_000
    retention_ms: int = 86_400_000
    remember_ms: int = 2_592_000_000


@dataclass(frozen=True, slots=True)
class Command:
    """What is asked of a device."""

    id: str
    name: str
    args: Json
    ttl_ms: int
    """How long after it was issued it may still be started."""
    site: str
    """Of the edge that carries it out."""
    origin: str
    """``cloud``, or ``edge:SITE`` where it was issued."""

    def check(self, limits: CommandLimits) -> None:
        """Check every part.

        :raises CommandError: if one is not what it should be.
        """
        check_name("id", self.id, _MAX_ID)
        check_name("name", self.name, _MAX_NAME)
        check_name("site", self.site, _MAX_NAME)
        if not 0 < self.ttl_ms <= limits.max_ttl_ms:
            raise CommandError(
                "bad-ttl", f"ttl_ms is {self.ttl_ms}; expected 1 to {limits.max_ttl_ms}"
            )
        check_json(self.args, "args", limits)

    def fingerprint(self) -> bytes:
        """Return bytes that are equal for equal commands."""
        return cbor.dumps([self.name, self.args, self.ttl_ms, self.site, self.origin])


def check_name(what: str, name: str, most: int) -> None:
    """Check an id or a name.

    :raises CommandError: if it is empty, too long or cannot be printed.
    """
    if not 0 < len(name) <= most or not name.isprintable() or "/" in name:
        raise CommandError(
            f"bad-{what}", f"{what} {name[:40]!r}: 1 to {most} printable characters, no slash"
        )


def check_json(value: object, where: str, limits: CommandLimits) -> None:
    """Check that a value is JSON, of 64-bit integers and finite numbers, and not too long.

    :raises CommandError: if it is not.
    """
    try:
        _check_json(value, where, 0)
        size = len(cbor.dumps(value))
    except CommandError:
        raise
    except (TwinError, RecursionError) as error:
        raise CommandError("bad-value", str(error)) from error
    if size > limits.max_args_bytes:
        raise CommandError(
            "too-big", f"{where}: {size} bytes; commands.max_args_bytes = {limits.max_args_bytes}"
        )


def _check_json(value: object, where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise CommandError("too-deep", f"{where}: may nest {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise CommandError("bad-value", f"{where}: {key!r}: keys are text")
            check_value(key, where)
            _check_json(item, f"{where}.{key[:40]}", depth + 1)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check_json(item, f"{where}[{number}]", depth + 1)
    elif isinstance(value, bytes):
        raise CommandError("bad-value", f"{where}: bytes are no JSON")
    else:
        check_value(value, where)
