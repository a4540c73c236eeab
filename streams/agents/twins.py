"""The cloud's replicas: edge messages and cloud edits in, merged twins and answers out.

One record of ``twin.updates`` concerns one device. The cloud actor of a device is named by the
first record of the device, and its counter is the offset of the record that makes an edit, its
clock that record's log time: a replay, or another owner, derives the very same cells.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import cbor2
import orjson
from prometheus_client import Counter

from crdt.core.errors import TwinError, WireError
from crdt.core.hlc import ZERO
from crdt.core.messages import Message, decode_message
from crdt.core.rolls import Roll
from crdt.core.sync import Outbox, Session
from crdt.core.view import view
from crdt.replica import Reading, Replica
from streams.adapters.replica_keys import Registry
from streams.adapters.twin_edits import parse_edit
from streams.adapters.twin_records import (
    COMPACT,
    EDIT,
    KIND,
    ROLL,
    SITE,
    SYNC,
    answer_record,
    down_record,
    reading_of,
    refused,
)
from streams.errors import StateError
from streams.ports import LogicFactory, LogRecord, PartitionLogic, Produce, header, is_time_marker
from streams.settings import Settings
from streams.topics import TWIN_DOWN, TWIN_STATE, TWIN_UPDATES

_RECORDS = Counter("headwater_worker_twin_records", "Records of twin.updates folded.", ["kind"])
_CONFLICTS = Counter("headwater_worker_twin_conflicts", "New entries of conflict ledgers.")
_REJECTED = Counter("headwater_worker_twin_rejected", "Refused records.", ["reason"])
_AHEAD = Counter("headwater_worker_twin_clocks_ahead", "Writes whose clock was not believed.")
_COMPACTIONS = Counter("headwater_worker_twin_compactions", "Epochs begun.")
_STATE_VERSION = 1
_CBOR_ARRAY = 4
"""Major type (RFC 8949, 3.1)."""
_KINDS = {EDIT: "edit", SYNC: "sync", COMPACT: "compact", ROLL: "roll"}
_MAX_SITES = 16
"""Sites that may sync one device."""


@dataclass(slots=True)
class DeviceTwin:
    """One device: the cloud's replica and a session per site."""

    replica: Replica
    sessions: dict[str, Session] = field(default_factory=dict)

    def freeze(self) -> bytes:
        """Return everything, encoded."""
        sessions = [
            [s.peer, s.incarnation, s.applied, s.acked, s.sent, s.agreed, list(s.repaired)]
            for s in self.sessions.values()
        ]
        outbox = self.replica.outbox
        entries = [list(entry) for entry in outbox.entries]
        stored = self.replica.stored()
        return cbor2.dumps(
            [_STATE_VERSION, self.replica.incarnation, stored, outbox.seq, entries, sessions]
        )

    @staticmethod
    def thaw(state: bytes, reading: Reading, clock: Callable[[], int]) -> DeviceTwin:
        """Return what :meth:`freeze` encoded.

        :raises StateError: if the bytes are of another version, or damaged.
        """
        try:
            version, incarnation, stored, seq, entries, sessions = cbor2.loads(state)
            _check_version(version)
            replica = Replica(incarnation, reading, [stored], clock)
        except (cbor2.CBORError, ValueError, TypeError, WireError) as error:
            raise StateError(f"a twin's stored state is damaged: {error}") from error
        kept = deque((origin, update) for origin, update in entries)
        outbox = Outbox(seq, kept, sum(len(update) for _, update in kept))
        replica.resume(outbox, counter=0, hlc=ZERO)
        named = [
            Session(peer, life, applied, acked, sent, agreed, (ours, theirs))
            for peer, life, applied, acked, sent, agreed, (ours, theirs) in sessions
        ]
        return DeviceTwin(replica, {session.peer: session for session in named})


def _check_version(version: object) -> None:
    if version != _STATE_VERSION:
        raise StateError(
            f"a twin's stored state has version {version}, expected {_STATE_VERSION}: it was "
            "written by another version of Headwater; run that one, or take a new worker.id, which "
            "reads twin.updates again as far as its retention reaches (docs/upgrading.md)"
        )


class TwinLogic(PartitionLogic):
    """Owns the twins of one partition's devices. State keys are ``tenant/device``."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self._reading = reading_of(settings.twins)
        registry = settings.twins.registry
        self._registry = None if registry is None else Registry(registry)
        self._max_live = settings.twins.max_live
        self._max_rejected_bytes = settings.gateway.max_rejected_bytes
        self._partition = partition
        self._live: OrderedDict[str, DeviceTwin] = OrderedDict()
        self._frozen: dict[str, bytes] = {}
        self._stamps: dict[str, int] = {}
        self._dirty: dict[str, int] = {}
        self._log_ms = 0
        self._rolls: dict[tuple[str, str], Roll] = {}
        """(tenant, site) -> its twins here, from its first roll call on."""

    # -- PartitionLogic -----------------------------------------------------------------------

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Fold each record into its device's twin; a bad one goes to ``rejected``."""
        made: list[Produce] = []
        for record in records:
            self._log_ms = record.timestamp
            if is_time_marker(record):
                continue
            key = (record.key or b"").decode(errors="replace")
            if record.offset <= self._stamps.get(key, -1):
                continue
            try:
                made += self._fold_one(key, record)
            except TwinError as error:
                made += self._reject(record, error)
        return made

    def dirty(self) -> Mapping[str, int]:
        """Return the devices changed since their snapshot."""
        return self._dirty

    def snapshot(self, key: str) -> bytes:
        """Return a device's whole state."""
        self._dirty.pop(key, None)
        twin = self._live.get(key)
        return self._frozen[key] if twin is None else twin.freeze()

    def restore(self, key: str, stamp: int, state: bytes) -> None:
        """Load a device's state; its Doc is made when a record asks for it.

        :raises StateError: if it is of another version.
        """
        # The number in front: a worker that cannot read its twins says so before it begins.
        _check_version(state[1] if len(state) > 1 and state[0] >> 5 == _CBOR_ARRAY else None)
        self._stamps[key] = stamp
        self._frozen[key] = state

    def wants_time(self) -> bool:
        """Twins wait for nothing: time reaches them with their records."""
        return False

    # -- records ------------------------------------------------------------------------------

    def _fold_one(self, key: str, record: LogRecord) -> list[Produce]:
        tenant, slash, device = key.partition("/")
        if not (tenant and slash and device):
            raise WireError("bad-key", f"{key[:80]!r}: the key is tenant/device")
        kind = header(record, KIND) or b""
        _RECORDS.labels(_KINDS.get(kind, "unknown")).inc()
        if kind == EDIT:
            return self._edit(key, record)
        if kind == SYNC:
            return self._sync(key, record)
        if kind == COMPACT:
            return self._compact(key, record)
        if kind == ROLL:
            answer = self._roll(tenant, device).answer(record.value or b"")
            return [answer_record(tenant, device, answer, self._partition)]
        raise WireError(
            "bad-kind", f"header {KIND} is {kind[:20]!r}; expected edit, sync, compact, roll"
        )

    def _check(self, key: str, site: str, message: Message, replica: Replica) -> None:
        """Check who speaks, and have what is new checked before it is merged."""
        if self._registry is None:
            return
        self._registry.refresh()
        tenant, _, device = key.partition("/")
        grant = self._registry.grant(tenant, site)
        if grant is None:
            raise WireError("unknown-key", f"no key of {tenant}/{site} counts")
        grant.check_sender(device, message.sender)
        replica.guard = grant.check_writes

    def _compact(self, key: str, record: LogRecord) -> list[Produce]:
        twin = self.device(key)
        if twin is None:
            raise WireError("unknown-device", f"{key[:80]!r} has no twin to compact")
        self._begin_epoch(twin, record)
        self._keep(key, twin, record)
        return self._tell_all(key, twin)

    def _begin_epoch(self, twin: DeviceTwin, record: LogRecord) -> None:
        # Of the log alone: a replay begins the very same epoch.
        twin.replica.compact(f"{self._partition}.{record.offset}")
        _COMPACTIONS.inc()

    def _edit(self, key: str, record: LogRecord) -> list[Produce]:
        asked = parse_edit(record.value, self._reading.policies)
        twin = self.device(key) or self._new(record)
        before = len(twin.replica.twin.ledger)
        # Offsets begin at 0, counters at 1.
        twin.replica.edit(
            *(asked.sets, asked.deletes, asked.operations),
            now_ms=record.timestamp,
            counter=record.offset + 1,
        )
        self._keep(key, twin, record)
        _CONFLICTS.inc(max(0, len(twin.replica.twin.ledger) - before))
        return [self._state(key, twin, record), *self._tell_all(key, twin)]

    def _sync(self, key: str, record: LogRecord) -> list[Produce]:
        message = decode_message(record.value or b"")
        site = (header(record, SITE) or b"").decode(errors="replace")
        if not site:
            raise WireError("bad-site", f"a sync message needs the header {SITE}")
        twin = self.device(key) or self._new(record)
        session = twin.sessions.get(site) or Session(site)
        if site not in twin.sessions and len(twin.sessions) >= _MAX_SITES:
            raise WireError("too-many-sites", f"{key} is synced by {_MAX_SITES} sites already")
        self._check(key, site, message, twin.replica)
        known = key in self._live
        before, entries = twin.replica.digest(), len(twin.replica.twin.ledger)
        answers = session.receive(message, twin.replica)
        _AHEAD.inc(len(twin.replica.ahead()))
        twin.sessions[site] = session
        self._keep(key, twin, record)
        made = self._down(key, site, answers)
        if twin.replica.digest() != before or not known:
            _CONFLICTS.inc(max(0, len(twin.replica.twin.ledger) - entries))
            made = [self._state(key, twin, record), *made, *self._tell_all(key, twin)]
        return made

    # -- outputs ------------------------------------------------------------------------------

    def _tell_all(self, key: str, twin: DeviceTwin) -> list[Produce]:
        made: list[Produce] = []
        for site, session in twin.sessions.items():
            made += self._down(key, site, session.pending(twin.replica))
        return made

    def _down(self, key: str, site: str, messages: Sequence[Message]) -> list[Produce]:
        tenant, _, device = key.partition("/")
        return [down_record(tenant, site, device, m, self._partition) for m in messages]

    def _state(self, key: str, twin: DeviceTwin, record: LogRecord) -> Produce:
        tenant, _, device = key.partition("/")
        shown = {
            "tenant": tenant,
            "device": device,
            "sites": sorted(twin.sessions),
            "offset": record.offset,
            "updated_ms": record.timestamp,
            **view(twin.replica.twin, self._reading.policies, twin.replica.trusted_until_ms()),
        }
        headers = {"content-type": b"application/json"}
        return Produce(TWIN_STATE, orjson.dumps(shown), key.encode(), self._partition, headers)

    def _reject(self, record: LogRecord, error: TwinError) -> list[Produce]:
        """Put a record aside, and tell the site that it came from."""
        _REJECTED.labels(error.reason).inc()
        return refused(
            record,
            error,
            topic=TWIN_UPDATES,
            down=TWIN_DOWN,
            partition=self._partition,
            max_bytes=self._max_rejected_bytes,
        )

    # -- live and frozen twins ----------------------------------------------------------------

    def device(self, key: str) -> DeviceTwin | None:
        """Return a device's twin, thawed if need be; None if there is none."""
        twin = self._live.get(key)
        if twin is None and key in self._frozen:
            twin = self._live[key] = DeviceTwin.thaw(
                self._frozen.pop(key), self._reading, self._now_ms
            )
        if twin is not None:
            self._live.move_to_end(key)
            self._evict()
        return twin

    def _now_ms(self) -> int:
        """Return the time of the record being folded: the only clock here."""
        return self._log_ms

    def _new(self, record: LogRecord) -> DeviceTwin:
        """Return an empty twin; it is kept once a record made something of it."""
        # Of the log alone, and unlike any other life, should the topics be made anew.
        life = f"cloud:{self._partition}.{record.offset}.{record.timestamp}"
        return DeviceTwin(Replica(life, self._reading, clock=self._now_ms))

    def _roll(self, tenant: str, site: str) -> Roll:
        """Return the roll of a site; the first time all twins are looked at."""
        roll = self._rolls.get((tenant, site))
        if roll is None:
            roll = self._rolls[tenant, site] = Roll()
            for key in [*self._live, *self._frozen]:
                whose, _, device = key.partition("/")
                twin = self._live.get(key) if whose == tenant else None
                if whose == tenant and twin is None:
                    twin = DeviceTwin.thaw(self._frozen[key], self._reading, self._now_ms)
                if twin is not None and site in twin.sessions:
                    roll.put(device, twin.replica.digest())
        return roll

    def _keep(self, key: str, twin: DeviceTwin, record: LogRecord) -> None:
        if twin.replica.wants_compaction():
            self._begin_epoch(twin, record)
        twin.replica.drain()
        tenant, _, device = key.partition("/")
        for site in twin.sessions:
            if (tenant, site) in self._rolls:
                self._rolls[tenant, site].put(device, twin.replica.digest())
        twin.replica.outbox.trim(min((s.acked for s in twin.sessions.values()), default=0))
        self._live[key] = twin
        self._dirty.setdefault(key, record.offset)
        self._evict()

    def _evict(self) -> None:
        """Freeze the twins that were used longest ago."""
        while len(self._live) > self._max_live:
            key, twin = self._live.popitem(last=False)
            self._frozen[key] = twin.freeze()


def make_twins(settings: Settings) -> LogicFactory:
    """Return the factory of the twin logic."""

    def make(partition: int, partitions: int) -> TwinLogic:
        return TwinLogic(settings, partition)

    return make
