"""The cloud's side: all commands of one device, and the one place where their ends are decided.

Time is that of the log, given with every call. Nothing here is random, so a replay of the log ends
every command as it was ended before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from crdt.core import cbor
from crdt.core.commands.model import ENDS, Command, CommandError, CommandLimits, Json, State
from crdt.core.commands.wire import Report, Standing
from crdt.core.errors import WireError

_VERSION = 1
_EDGES = 4
"""Edges keep to ``max_open`` by themselves; so many may have issued as many for one device."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A command and how it stands; also what its status stream tells."""

    command: Command
    state: State
    number: int
    """Counts the statuses of this command, from 1."""
    issued_ms: int
    deadline_ms: int
    changed_ms: int
    heard: int = 0
    """The greatest number of a report of the edge."""
    cancel: bool = False
    reason: str = ""
    result: Json = None

    @property
    def ended(self) -> bool:
        """Whether this is the end."""
        return self.state in ENDS


@dataclass(frozen=True, slots=True)
class Ended:
    """What is remembered of a command that has ended."""

    state: State
    heard: int
    at_ms: int
    fingerprint: bytes


@dataclass(slots=True)
class Outcome:
    """What came of a call: statuses to publish, and what sites are to be told."""

    statuses: list[Entry] = field(default_factory=list)
    standings: list[tuple[str, Standing]] = field(default_factory=list)
    late: int = 0
    """Reports of an end that came behind another end."""
    forgotten: int = 0
    """Ids that had to be forgotten before their time."""


class Book:
    """The commands of one device."""

    def __init__(self, limits: CommandLimits) -> None:
        self._limits = limits
        self._open: dict[str, Entry] = {}
        self._ended: dict[str, Ended] = {}

    # -- what is asked ------------------------------------------------------------------------

    def send(self, command: Command, now_ms: int) -> Outcome:
        """Take a command of the cloud; one that is known is not taken again.

        :raises CommandError: if its id is that of another command.
        """
        found = Outcome()
        self._forget(now_ms)
        if self._is_known(command):
            return found
        entry = self._begin(command, State.PENDING, now_ms, command.ttl_ms, found)
        if entry is not None:
            found.standings.append((command.site, self._standing(entry, now_ms, whole=True)))
        return found

    def cancel(self, id_: str, now_ms: int) -> Outcome:
        """Take a command back: at once while nobody may have started it, else the edge decides.

        :raises CommandError: if there is none of that id.
        """
        found = Outcome()
        entry = self._open.get(id_)
        if entry is None:
            if id_ not in self._ended:
                raise CommandError("unknown-command", f"no command {id_[:64]!r} of this device")
            return found
        if entry.state is State.PENDING:
            self._end(entry, State.CANCELLED, now_ms, found)
        elif not entry.cancel:
            entry = self._put(replace(entry, cancel=True), now_ms, found)
            found.standings.append((entry.command.site, self._standing(entry, now_ms)))
        return found

    def report(self, site: str, report: Report, now_ms: int) -> Outcome:
        """Take what an edge says; it is answered with how the command stands.

        :raises CommandError: if the command is another site's.
        """
        found = Outcome()
        self._forget(now_ms)
        entry = self._open.get(report.id)
        if entry is None and report.id not in self._ended and report.command is not None:
            entry = self._registered(site, report, report.command, now_ms, found)
        if entry is None:
            self._answer_ended(site, report, found)
            return found
        if entry.command.site != site:
            raise CommandError("not-permitted", f"command {report.id} is not of site {site[:80]!r}")
        if report.number > entry.heard:
            entry = self._heard(entry, report, now_ms, found)
        if not entry.ended:
            standing = replace(self._standing(entry, now_ms), echo=report.echo)
            found.standings.append((site, standing))
        return found

    def call(self, site: str, echo: str, now_ms: int) -> Iterator[Standing]:
        """Yield how all open commands of a site stand."""
        for entry in self._open.values():
            if entry.command.site == site:
                yield replace(self._standing(entry, now_ms, whole=True), echo=echo)

    # -- time ---------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> Outcome:
        """Let time pass: deadlines, and what nobody waits for any more."""
        found = Outcome()
        for entry in list(self._open.values()):
            if now_ms < self._due_ms(entry):
                continue
            if entry.state is State.PENDING:
                self._end(entry, State.EXPIRED, now_ms, found)
                continue
            late = entry
            if entry.state is not State.UNKNOWN:
                late = self._put(replace(entry, state=State.UNKNOWN), now_ms, found)
            if now_ms >= self._due_ms(late):
                self._end(late, State.LOST, now_ms, found)
        return found

    def next_ms(self) -> int | None:
        """Return when something happens by itself; None if nothing will."""
        return min((self._due_ms(entry) for entry in self._open.values()), default=None)

    @property
    def open(self) -> int:
        """Commands that have not ended."""
        return len(self._open)

    # -- inside -------------------------------------------------------------------------------

    def _forget(self, now_ms: int) -> None:
        """Forget the ids that were remembered long enough: the oldest come first."""
        until_ms = now_ms - self._limits.remember_ms
        while self._ended:
            oldest = next(iter(self._ended))
            if self._ended[oldest].at_ms > until_ms:
                return
            del self._ended[oldest]

    def _is_known(self, command: Command) -> bool:
        entry, ended = self._open.get(command.id), self._ended.get(command.id)
        if entry is None and ended is None:
            return False
        known = _print(entry.command) if entry is not None else ended.fingerprint  # type: ignore[union-attr] # one of the two is there
        if known != _print(command):
            raise CommandError("id-taken", f"command {command.id} is another one already")
        return True

    def _begin(
        self, command: Command, state: State, now_ms: int, ttl_ms: int, found: Outcome
    ) -> Entry | None:
        """Enter a command; None if there are too many, which is its end."""
        entry = Entry(command, state, 0, now_ms, now_ms + ttl_ms, now_ms)
        if state is State.PENDING and len(self._open) >= self._limits.max_open:
            reason = f"too-many-open: commands.max_open = {self._limits.max_open}"
            self._end(replace(entry, reason=reason), State.REFUSED, now_ms, found)
            return None
        return self._put(entry, now_ms, found)

    def _registered(
        self, site: str, report: Report, command: Command, now_ms: int, found: Outcome
    ) -> Entry | None:
        """Enter a command that an edge issued, with its first report that comes through."""
        if command.origin != f"edge:{site}":
            raise CommandError("forged-origin", f"{command.origin[:80]!r} is not edge:{site}")
        # Its device may have begun it, so it cannot be ended here as refused.
        if len(self._open) >= _EDGES * self._limits.max_open:
            raise CommandError("too-many-open", f"{len(self._open)} commands are open")
        return self._begin(command, State.DELIVERED, now_ms, report.remaining_ms, found)

    def _heard(self, entry: Entry, report: Report, now_ms: int, found: Outcome) -> Entry:
        entry = replace(entry, heard=report.number)
        self._open[report.id] = entry
        if report.state in ENDS:
            said = replace(entry, reason=report.reason, result=report.result)
            return self._end(said, report.state, now_ms, found)
        later = {State.PENDING: 0, State.DELIVERED: 1, State.ACCEPTED: 2, State.UNKNOWN: 3}
        if later[report.state] > later[entry.state]:
            return self._put(replace(entry, state=report.state), now_ms, found)
        return entry

    def _answer_ended(self, site: str, report: Report, found: Outcome) -> None:
        ended = self._ended.get(report.id)
        state = State.LOST if ended is None else ended.state
        found.late += report.state in ENDS and report.state is not state
        standing = Standing(report.id, state, report.number, 0, echo=report.echo)
        if not any(told.id == report.id for _, told in found.standings):
            found.standings.append((site, standing))

    def _put(self, entry: Entry, now_ms: int, found: Outcome) -> Entry:
        entry = replace(entry, number=entry.number + 1, changed_ms=now_ms)
        self._open[entry.command.id] = entry
        found.statuses.append(entry)
        return entry

    def _end(self, entry: Entry, state: State, now_ms: int, found: Outcome) -> Entry:
        entry = self._put(replace(entry, state=state), now_ms, found)
        command = entry.command
        del self._open[command.id]
        self._ended[command.id] = Ended(state, entry.heard, now_ms, _print(command))
        while len(self._ended) > self._limits.max_remembered:
            del self._ended[next(iter(self._ended))]
            found.forgotten += 1
        found.standings.append((command.site, Standing(command.id, state, entry.heard, 0)))
        return entry

    def _due_ms(self, entry: Entry) -> int:
        unknown = entry.state is State.UNKNOWN
        return entry.deadline_ms + (self._limits.retention_ms if unknown else 0)

    def _standing(self, entry: Entry, now_ms: int, *, whole: bool = False) -> Standing:
        remaining_ms = entry.deadline_ms - now_ms
        command = entry.command if whole else None
        return Standing(
            entry.command.id, entry.state, entry.heard, remaining_ms, entry.cancel, "", command
        )

    # -- to and from bytes --------------------------------------------------------------------

    def freeze(self) -> bytes:
        """Return everything, encoded."""
        return cbor.dumps(
            [
                _VERSION,
                [_frozen(entry) for entry in self._open.values()],
                [
                    [id_, str(e.state), e.heard, e.at_ms, e.fingerprint]
                    for id_, e in self._ended.items()
                ],
            ]
        )

    @staticmethod
    def thaw(data: bytes, limits: CommandLimits) -> Book:
        """Return what :meth:`freeze` encoded.

        :raises WireError: if the bytes are of another version, or damaged.
        """
        book = Book(limits)
        match cbor.loads(data, "commands of a device"):
            case [1, list(entries), list(ended)]:
                book._open = {e.command.id: e for e in map(_thawed, entries)}
                for id_, state, heard, at_ms, fingerprint in ended:
                    book._ended[id_] = Ended(State(state), heard, at_ms, fingerprint)
                return book
        raise WireError("unknown-version", f"commands of a device: expected version {_VERSION}")


def _frozen(entry: Entry) -> list[Any]:
    c = entry.command
    return [
        *(c.id, c.name, c.args, c.ttl_ms, c.site, c.origin, str(entry.state), entry.number),
        *(entry.issued_ms, entry.deadline_ms, entry.changed_ms, entry.heard, entry.cancel),
        *(entry.reason, entry.result),
    ]


def _thawed(fields: list[Any]) -> Entry:
    state, *rest = fields[6:]
    return Entry(Command(*fields[:6]), State(state), *rest)


def _print(command: Command) -> bytes:
    return sha256(command.fingerprint()).digest()[:16]
