"""The cloud's commands: requests and reports in, statuses and word to the edges out.

Every command of a device is decided here, by the order and the time of the log alone: so it ends
once, and a replay ends it the same way. What is told again after a crash has the same number.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from prometheus_client import Counter, Gauge

from crdt.core.commands.book import Book, Outcome
from crdt.core.commands.wire import decode_call, decode_report
from crdt.core.errors import TwinError, WireError
from streams.adapters.command_records import (
    CALLED,
    CANCEL,
    CLOUD,
    REPORT,
    SEND,
    limits_of,
    parse_cancel,
    parse_command,
    standing_record,
    status_record,
)
from streams.adapters.replica_keys import Registry
from streams.adapters.twin_records import KIND, SITE, refused
from streams.errors import StateError
from streams.ports import LogicFactory, LogRecord, PartitionLogic, Produce, header, is_time_marker
from streams.settings import Settings
from streams.topics import COMMANDS, COMMANDS_DOWN

_STATUSES = Counter("headwater_worker_command_statuses", "Statuses of commands told.", ["state"])
_REJECTED = Counter("headwater_worker_command_rejected", "Refused records.", ["reason"])
_LATE = Counter("headwater_worker_command_late_ends", "Ends reported behind another end.")
_FORGOTTEN = Counter(
    "headwater_worker_command_ids_forgotten", "Ids forgotten early, for commands.max_remembered."
)
_OPEN = Gauge("headwater_worker_commands_open", "Commands that have not ended.", ["partition"])


class CommandLogic(PartitionLogic):
    """Owns the commands of one partition's devices. State keys are ``tenant/device``."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self._settings = settings.commands
        self._limits = limits_of(settings.commands)
        self._max_rejected_bytes = settings.gateway.max_rejected_bytes
        registry = settings.twins.registry
        self._registry = None if registry is None else Registry(registry)
        self._partition = partition
        self._books: dict[str, Book] = {}
        self._stamps: dict[str, int] = {}
        self._dirty: dict[str, int] = {}
        self._next_ms: dict[str, int] = {}
        """When something happens by itself, for devices with open commands."""
        self._due: list[tuple[int, str]] = []
        """The same as a heap; entries that ``_next_ms`` does not confirm are outdated."""
        self._now_ms = 0

    # -- PartitionLogic -----------------------------------------------------------------------

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Fold each record; a bad one goes to ``rejected``."""
        made: list[Produce] = []
        for record in records:
            self._now_ms = max(self._now_ms, record.timestamp)
            made += self._pass_time(record.offset)
            if is_time_marker(record):
                continue
            key = (record.key or b"").decode(errors="replace")
            if record.offset <= self._stamps.get(key, -1):
                continue
            try:
                made += self._fold_one(key, record)
            except TwinError as error:
                made += self._reject(record, error)
        _OPEN.labels(str(self._partition)).set(sum(book.open for book in self._books.values()))
        return made

    def dirty(self) -> Mapping[str, int]:
        """Return the devices changed since their snapshot."""
        return self._dirty

    def snapshot(self, key: str) -> bytes:
        """Return a device's commands."""
        self._dirty.pop(key, None)
        return self._books[key].freeze()

    def restore(self, key: str, stamp: int, state: bytes) -> None:
        """Load a device's commands.

        :raises StateError: if they are of another version, or damaged.
        """
        try:
            book = Book.thaw(state, self._limits)
        except (WireError, ValueError, TypeError) as error:
            raise StateError(
                f"the stored commands of {key} cannot be read: {error}; they were written by "
                "another version of Headwater, or are damaged (docs/upgrading.md)"
            ) from error
        self._books[key], self._stamps[key] = book, stamp
        self._schedule(key, book)

    def wants_time(self) -> bool:
        """Whether a deadline is waited for."""
        return bool(self._next_ms)

    # -- records ------------------------------------------------------------------------------

    def _pass_time(self, offset: int) -> list[Produce]:
        made: list[Produce] = []
        while self._due and self._due[0][0] <= self._now_ms:
            at_ms, key = heapq.heappop(self._due)
            if self._next_ms.get(key) == at_ms:
                made += self._told(key, self._books[key].tick(self._now_ms), offset)
        return made

    def _fold_one(self, key: str, record: LogRecord) -> list[Produce]:
        tenant, slash, device = key.partition("/")
        if not (tenant and slash and device):
            raise WireError("bad-key", f"{key[:80]!r}: the key is tenant/device")
        kind, book = header(record, KIND) or b"", self._books.get(key) or Book(self._limits)
        match kind:
            case b"send":
                command = parse_command(record.value, CLOUD, self._settings)
                found = book.send(command, self._now_ms)
            case b"cancel":
                found = book.cancel(parse_cancel(record.value), self._now_ms)
            case b"report":
                site = _site(record)
                self._check(tenant, site, device)
                report = decode_report(record.value or b"", site, self._limits)
                found = book.report(site, report, self._now_ms)
            case b"call":
                return self._call(tenant, _site(record), decode_call(record.value or b""))
            case _:
                kinds = b", ".join((SEND, CANCEL, REPORT, CALLED)).decode()
                raise WireError("bad-kind", f"header {KIND} is {kind[:20]!r}; expected {kinds}")
        if found.statuses:
            self._books[key] = book
        return self._told(key, found, record.offset)

    def _check(self, tenant: str, site: str, device: str) -> None:
        """Check that a site may speak of a device."""
        if self._registry is None:
            return
        self._registry.refresh()
        grant = self._registry.grant(tenant, site)
        if grant is None:
            raise WireError("unknown-key", f"no key of {tenant}/{site} counts")
        grant.check_sender(device, grant.actors)

    def _call(self, tenant: str, site: str, echo: str) -> list[Produce]:
        """Tell a site of all that is open there."""
        return [
            standing_record(key, site, standing, self._partition)
            for key, book in self._books.items()
            if key.partition("/")[0] == tenant
            for standing in book.call(site, echo, self._now_ms)
        ]

    def _told(self, key: str, found: Outcome, offset: int) -> list[Produce]:
        """Note what has changed; return what is to be told."""
        if key in self._books:
            self._dirty.setdefault(key, offset)
            self._schedule(key, self._books[key])
        _LATE.inc(found.late)
        _FORGOTTEN.inc(found.forgotten)
        for entry in found.statuses:
            _STATUSES.labels(str(entry.state)).inc()
        return [
            *(status_record(key, entry, self._partition) for entry in found.statuses),
            *(
                standing_record(key, site, standing, self._partition)
                for site, standing in found.standings
            ),
        ]

    def _schedule(self, key: str, book: Book) -> None:
        next_ms = book.next_ms()
        if next_ms is None:
            self._next_ms.pop(key, None)
        elif self._next_ms.get(key) != next_ms:
            self._next_ms[key] = next_ms
            heapq.heappush(self._due, (next_ms, key))

    def _reject(self, record: LogRecord, error: TwinError) -> list[Produce]:
        """Put a record aside, and tell the site that it came from."""
        _REJECTED.labels(error.reason).inc()
        return refused(
            record,
            error,
            topic=COMMANDS,
            down=COMMANDS_DOWN,
            partition=self._partition,
            max_bytes=self._max_rejected_bytes,
        )


def _site(record: LogRecord) -> str:
    site = (header(record, SITE) or b"").decode(errors="replace")
    if not site:
        raise WireError("bad-site", f"a record of an edge needs the header {SITE}")
    return site


def make_commands(settings: Settings) -> LogicFactory:
    """Return the factory of the logic of commands."""

    def make(partition: int, partitions: int) -> CommandLogic:
        return CommandLogic(settings, partition)

    return make
