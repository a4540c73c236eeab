"""The edge's replicas: local edits and the cloud's messages in, durable before acknowledged.

No sockets here: what is to be sent comes out through ``send``. All methods belong to one
thread, because every Doc has one owner.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Counter

from crdt.core.edits import Operation
from crdt.core.errors import EditError, WireError
from crdt.core.messages import MAX_BATCH, Message, decode_batch, decode_message, encode_batch
from crdt.core.policies import Policies
from crdt.core.refusals import NAME as REFUSED
from crdt.core.refusals import Refusal, decode_refusal
from crdt.core.rolls import NAME, Roll
from crdt.core.sync import Session
from crdt.core.values import Value
from crdt.core.view import view
from crdt.log import Log
from crdt.replica import Reading, Replica
from streams.log import get_logger

_log = get_logger(__name__)
_EDITS = Counter("headwater_edge_edits", "Local edits stored.")
_REFUSED = Counter("headwater_edge_refused_messages", "Messages refused, by reason.", ["reason"])
_TOLD = Counter("headwater_edge_refusals", "Times the hub refused what was sent.", ["reason"])
_AHEAD = Counter("headwater_edge_twin_clocks_ahead", "Writes whose clock was not believed.")
_COMPACTIONS = Counter("headwater_edge_twin_compactions", "Epochs begun.")
_MAX_DEVICE = 128
_ENVELOPE_BYTES = 131_072
_REFUSED_MS = 300_000
"""A device of which something was refused is left alone for so long, unless it is edited."""
_ANSWER_MS = 10_000
"""How long a roll call is waited for before each device says hello by itself."""
CLOUD = "cloud"


@dataclass(slots=True)
class _Device:
    replica: Replica
    session: Session
    unsaved: list[bytes] = field(default_factory=list)
    replaced: bool = False
    """Whether they are of another Doc than what is stored."""
    equal: bool = False
    """Whether a roll call said so, and nothing changed since."""
    refused: tuple[int, Refusal] | None = None
    """When the hub refused something of it, and why."""
    agreed: bool = False
    """Whether this life was once equal with the cloud: then all that ended lives said is here."""


class EdgeNode:
    """All twins of one site."""

    def __init__(
        self,
        log: Log,
        site: str,
        reading: Reading,
        clock: Callable[[], int],
        devices: Iterable[str] = (),
    ) -> None:
        """Load what the log has; begin a new life.

        :param clock: wall time, milliseconds since the epoch.
        :param devices: devices to sync even if the log has nothing of them yet.
        :raises LogError: if the log cannot be used.
        :raises WireError: if an update in the log is damaged.
        """
        self._log = log
        self._reading = reading
        self._clock = clock
        self._life = f"edge:{site}:{log.mint()}"
        self._devices: dict[str, _Device] = {}
        self.seal: Callable[[Sequence[tuple[str, bytes]]], bytes] = encode_batch
        """Makes an envelope of messages; signs it where that is asked for."""
        self.open: Callable[[bytes], Sequence[tuple[str, bytes]]] = decode_batch
        """Opens one, or raises :class:`WireError`."""
        self.answer: Callable[[bytes], None] = _nowhere
        """Takes the challenge that is to be given back in every envelope from now on."""
        self.send: Callable[[bytes], None] = _nowhere
        """Takes envelopes for the cloud; what is lost is repaired by the next hello."""
        self.changed: Callable[[str], None] = _nobody
        """Is told of devices whose twin has changed, when that is on disk."""
        self._partition_of: Callable[[str], int] | None = None
        self._rolls: dict[int, Roll] = {}
        self._called_ms: dict[int, int] = {}
        for device, updates in log.load().items():
            self._open(device, updates)
        for device in devices:
            self._get(device)

    @property
    def policies(self) -> Policies:
        """Kinds and policies of the fields."""
        return self._reading.policies

    def devices(self) -> list[str]:
        """Return the names of all devices, sorted."""
        return sorted(self._devices)

    def view(self, device: str) -> dict[str, Any] | None:
        """Return a device's twin as data (see :func:`crdt.core.view.view`); None if unknown."""
        found = self._devices.get(device)
        if found is None:
            return None
        return {
            "device": device,
            "in_sync": _in_sync(found),
            "epoch": found.replica.epoch.number,
            "stored_bytes": len(found.replica.stored()),
            "refused": _refused(found),
            **view(found.replica.twin, self.policies, found.replica.trusted_until_ms()),
        }

    def edit(
        self,
        device: str,
        sets: Mapping[str, Value],
        deletes: Sequence[str],
        operations: Sequence[Operation] = (),
    ) -> None:
        """Make an edit; it is on disk when this returns.

        :raises EditError: if the edit cannot be made; nothing of it was.
        :raises LogError: if it could not be stored: it shows, but a restart may forget it.
        """
        found = self._get(device)
        found.refused = None
        found.replica.edit(*(sets, deletes, operations), now_ms=self._clock(), carries=found.agreed)
        self._save(device, found)
        _EDITS.inc()
        messages = found.session.pending(found.replica)
        if not found.session.incarnation:
            messages = [found.session.hello(found.replica, want=True)]
        self._tell([(device, m) for m in messages])

    def compact(self, device: str) -> None:
        """Begin a new epoch for a device, whatever the size of its Doc.

        :raises KeyError: if there is no such device.
        :raises LogError: if it could not be stored.
        """
        found = self._devices[device]
        self._compact(found)
        self._save(device, found)
        self._tell([(device, m) for m in found.session.pending(found.replica)])

    def hear(self, envelope: bytes) -> None:
        """Take what the cloud says; refuse bytes that are not what they should be.

        :raises LogError: if it could not be stored.
        """
        try:
            parts = self.open(envelope)
        except WireError as error:
            self._refuse("?", error)
            return
        for device, data in parts:
            if device.startswith(REFUSED):
                self._told_refusal(device.removeprefix(REFUSED), data)
                continue
            if device.startswith(NAME):
                self._answered(device, data)
                continue
            try:
                found = self._get(device)
                answers = found.session.receive(decode_message(data), found.replica)
            except (WireError, EditError) as error:
                self._refuse(device, error)
                continue
            found.agreed |= found.session.agreed
            self._report(device, found.replica.ahead())
            self._save(device, found)
            self._tell([(device, m) for m in answers])

    def keep_rolls(self, partition_of: Callable[[str], int]) -> None:
        """Compare all devices by roll calls from now on, one for each partition."""
        self._partition_of = partition_of
        for device, found in self._devices.items():
            self._enroll(device, found)

    def call(self) -> int:
        """Ask which devices differ, instead of a hello for each; return how many are compared."""
        for partition, roll in self._rolls.items():
            self._called_ms[partition] = self._clock()
            self.send(self.seal([(f"{NAME}{partition}", roll.call())]))
        return len(self._devices) if self._rolls else 0

    def greet(self, *, all_devices: bool) -> int:
        """Say hello for all devices, or for those not known to be in sync; return how many.

        Those that a roll call is about are left out while its answer may still come.
        """
        now_ms = self._clock()
        chosen = [
            (n, d)
            for n, d in self._devices.items()
            if all_devices or not (_in_sync(d) or self._awaits(n, now_ms) or _left_alone(d, now_ms))
        ]
        self._tell([(n, d.session.hello(d.replica, want=True)) for n, d in chosen])
        return len(chosen)

    def _told_refusal(self, device: str, data: bytes) -> None:
        """Note what the hub refused; answer its challenge, if it gives one."""
        try:
            refusal = decode_refusal(data)
        except WireError as error:
            self._refuse(device, error)
            return
        _TOLD.labels(refusal.reason).inc()
        _log.warning("the hub refused", device=device, reason=refusal.reason, detail=refusal.detail)
        found = self._devices.get(device)
        if found is not None:
            found.refused = (self._clock(), refusal)
        if refusal.challenge:
            self.answer(refusal.challenge)
            if not self.call():
                self.greet(all_devices=True)

    def _awaits(self, device: str, now_ms: int) -> bool:
        """Whether the answer to a roll call may still tell of a device."""
        if self._partition_of is None or not self._called_ms:
            return False
        called_ms = self._called_ms.get(self._partition_of(device))
        return called_ms is not None and 0 <= now_ms - called_ms < _ANSWER_MS

    def status(self) -> dict[str, Any]:
        """Return life, devices and how many of them are in sync."""
        return {
            "life": self._life,
            "devices": len(self._devices),
            "in_sync": sum(_in_sync(d) for d in self._devices.values()),
        }

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def _get(self, device: str) -> _Device:
        if device not in self._devices:
            if not 0 < len(device) <= _MAX_DEVICE or not device.isprintable():
                raise EditError(
                    "bad-device", f"{device[:40]!r}: 1 to {_MAX_DEVICE} printable characters"
                )
            self._open(device, ())
        return self._devices[device]

    def _open(self, device: str, updates: Sequence[bytes]) -> None:
        replica = Replica(self._life, self._reading, updates, self._clock)
        found = self._devices[device] = _Device(replica, Session(CLOUD))
        self._enroll(device, found)
        if replica.wants_compaction():
            self._compact(found)

    def _enroll(self, device: str, found: _Device) -> None:
        if self._partition_of is not None:
            roll = self._rolls.setdefault(self._partition_of(device), Roll())
            roll.put(device, found.replica.digest())

    def _answered(self, name: str, data: bytes) -> None:
        """Note who is equal, and talk about those who are not."""
        try:
            partition = int(name.removeprefix(NAME))
            roll = self._rolls[partition]
            apart, equal = roll.differing(data)
        except (ValueError, KeyError):
            self._refuse("?", WireError("bad-roll", f"no roll call is of {name[:40]!r}"))
            return
        except WireError as error:
            self._refuse("?", error)
            return
        self._called_ms.pop(partition, None)
        messages: list[tuple[str, Message]] = []
        for device in equal:
            self._devices[device].equal = self._devices[device].agreed = True
        for device in sorted(apart):
            found = self._devices[device]
            found.equal = found.session.agreed = False
            messages += [(device, m) for m in found.session.resume(found.replica)]
        self._tell(messages)

    def _compact(self, found: _Device) -> None:
        token, now_ms = secrets.token_hex(4), self._clock()
        found.replica.compact(token, now_ms=now_ms, carries=found.agreed)
        _COMPACTIONS.inc()

    def _save(self, device: str, found: _Device) -> None:
        # What a full disk refused is kept for the next time.
        if found.replica.wants_compaction():
            self._compact(found)
        made, replaced = found.replica.drain()
        if made:
            found.equal = False
            self._enroll(device, found)
        found.replaced |= replaced
        found.unsaved = made if replaced else found.unsaved + made
        if found.unsaved:
            whole = found.replica.stored
            self._log.append(device, found.unsaved, whole, replace=found.replaced)
            found.unsaved, found.replaced = [], False
            self.changed(device)

    def _tell(self, messages: Sequence[tuple[str, Message]]) -> None:
        """Send messages, several to an envelope as far as they fit."""
        batch: list[tuple[str, bytes]] = []
        size = 0
        for device, message in messages:
            data = message.encode()
            if batch and (len(batch) == MAX_BATCH or size + len(data) > _ENVELOPE_BYTES):
                self.send(self.seal(batch))
                batch, size = [], 0
            batch.append((device, data))
            size += len(data)
        if batch:
            self.send(self.seal(batch))

    def _report(self, device: str, ahead: Sequence[str]) -> None:
        for name in ahead:
            _AHEAD.inc()
            _log.warning("the clock of a writer is ahead", device=device, cell=name)

    def _refuse(self, device: str, error: WireError | EditError) -> None:
        _REFUSED.labels(error.reason).inc()
        _log.warning("message refused", device=device, reason=error.reason, detail=error.detail)


def _in_sync(device: _Device) -> bool:
    heard = device.session.agreed and device.session.acked == device.replica.outbox.seq
    return device.equal or heard


def _nobody(_device: str) -> None:
    return None


def _left_alone(device: _Device, now_ms: int) -> bool:
    return device.refused is not None and 0 <= now_ms - device.refused[0] < _REFUSED_MS


def _refused(device: _Device) -> dict[str, str] | None:
    """Return what was refused of a device and is not settled since, as data."""
    if device.refused is None or _in_sync(device):
        return None
    refusal = device.refused[1]
    return {"reason": refusal.reason, "detail": refusal.detail}


def _nowhere(_: bytes) -> None:
    return None
