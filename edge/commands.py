"""The edge's commands: durable before anything acts on them, and reported until the cloud knows.

No sockets here: what is to be sent comes out through ``send``. All methods belong to one thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prometheus_client import Counter, Gauge

from crdt.command_log import CommandLog
from crdt.core.commands import tray
from crdt.core.commands.model import (
    ENDS,
    Command,
    CommandError,
    CommandLimits,
    Json,
    State,
    check_json,
    check_name,
)
from crdt.core.commands.tray import Held, Instant, Stage
from crdt.core.commands.wire import CALL, Standing, decode_standing, encode_call
from crdt.core.errors import WireError
from crdt.core.messages import MAX_BATCH, decode_batch, encode_batch
from crdt.core.refusals import NAME as REFUSED
from crdt.core.refusals import decode_refusal
from streams.log import get_logger

_log = get_logger(__name__)
_ENDED = Counter("headwater_edge_commands_ended", "Commands that ended, by how.", ["state"])
_OPEN = Gauge("headwater_edge_commands_open", "Commands that the cloud is still to hear of.")
_REFUSED = Counter(
    "headwater_edge_refused_command_messages", "Messages about commands refused.", ["reason"]
)
_TOLD = Counter(
    "headwater_edge_command_refusals", "Times the hub refused what was sent.", ["reason"]
)
_REFUSED_MS = 300_000
"""Reports about a device of which one was refused wait for so long."""
_RESEND_MS = 5_000
"""What was not answered for so long is reported again."""
_CALL_MS = 60_000
"""Pause between calls for what is open, while all seems well."""
_MAX_REASON = 1_024
_OPEN_STAGES = (Stage.WAITING, Stage.READY, Stage.STARTED)
Key = tuple[str, str]
Parts = Sequence[tuple[str, bytes]]


class CommandDesk:
    """All commands of one site."""

    def __init__(
        self,
        log: CommandLog,
        site: str,
        limits: CommandLimits,
        clock: Callable[[], Instant],
        partitions: int,
    ) -> None:
        """Load what the disk has; what was started and not finished has failed, ``interrupted``.

        :param clock: a monotonic clock that names its boot, see :mod:`edge.boot_clock`.
        :param partitions: of the topic ``commands``, for calls.
        :raises LogError: if the log cannot be used.
        """
        self._log, self._site, self._limits = log, site, limits
        self._clock, self._partitions = clock, partitions
        self.seal: Callable[[Parts], bytes] = encode_batch
        """Makes an envelope of reports; signs it where that is asked for."""
        self.open: Callable[[bytes], Parts] = decode_batch
        """Opens one, or raises :class:`WireError`."""
        self.answer: Callable[[bytes], None] = _nowhere
        """Takes the challenge that is to be given back in every envelope from now on."""
        self.send: Callable[[bytes], None] = _nowhere
        """Takes envelopes for the cloud; what is lost is said again."""
        self._held: dict[Key, Held] = {}
        self._said_ms: dict[Key, int] = {}
        self._called_ms = 0
        self._waiting: set[asyncio.Event] = set()
        loaded = {(h.device, h.command.id): h for h in log.load()}
        now = clock()
        changed = [new for h in loaded.values() if (new := tray.reopened(h, now)) is not h]
        self._held = loaded
        self._keep(changed)

    # -- what devices and people ask ----------------------------------------------------------

    def issue(self, device: str, command: Command) -> Held:
        """Issue a command here; it is on disk when this returns.

        :raises CommandError: if it cannot be taken, or its id is that of another command.
        :raises LogError: if it could not be stored.
        """
        check_name("device", device, 128)
        command.check(self._limits)
        known = self._held.get((device, command.id))
        if known is not None:
            if known.command != command:
                raise CommandError("id-taken", f"command {command.id} is another one already")
            return known
        if not self._has_room(device):
            raise CommandError(
                "too-many-open", f"{device} has commands.max_open = {self._limits.max_open} open"
            )
        held = tray.issued(device, command, self._clock())
        self._keep([held])
        self._report([held])
        return held

    def take(self, device: str) -> Held | None:
        """Hand the oldest ready command to its device; that it has it is on disk before.

        :raises LogError: if that could not be stored: then the device does not get it.
        """
        self.pass_time()
        for held in self._held.values():
            if held.device == device and held.stage is Stage.READY:
                begun = tray.started(held)
                self._keep([begun])
                self._report([begun])
                return begun
        return None

    async def next(self, device: str, wait_s: float) -> Held | None:
        """As :meth:`take`; waits for a command if there is none."""
        arrived = asyncio.Event()
        self._waiting.add(arrived)
        try:
            async with asyncio.timeout(wait_s):
                while (found := self.take(device)) is None:
                    await arrived.wait()
                    arrived.clear()
        except TimeoutError:
            return None
        finally:
            self._waiting.discard(arrived)
        return found

    def finish(self, device: str, id_: str, state: State, reason: str, result: Json) -> Held:
        """Take a device's word for the end of a command that it has.

        :raises KeyError: if there is none of that id.
        :raises CommandError: if it was not started, has ended, or the words cannot be kept.
        :raises LogError: if it could not be stored.
        """
        held = self._held[device, id_]
        check_json(result, "result", self._limits)
        if len(reason) > _MAX_REASON or not (reason.isprintable() or not reason):
            raise CommandError("bad-reason", f"at most {_MAX_REASON} printable characters")
        if held.end is not None:
            if (held.end, held.reason, held.result) == (state, reason, result):
                return held
            raise CommandError("already-ended", f"command {id_} has ended: {held.end}")
        if held.stage is not Stage.STARTED:
            raise CommandError("not-started", f"command {id_} is {held.stage}; no device has it")
        ended = tray.finished(held, state, reason, result)
        self._keep([ended])
        self._report([ended])
        return ended

    def cancel(self, device: str, id_: str) -> Held:
        """Take a command back: ended if nothing started it, else its device is told.

        :raises KeyError: if there is none of that id.
        :raises LogError: if it could not be stored.
        """
        held = self._held[device, id_]
        if held.end is not None:
            return held
        changed = tray.cancelled(held)
        self._keep([changed])
        self._report([changed])
        return changed

    def commands(self, device: str) -> list[dict[str, Any]]:
        """Return what is known of a device's commands, the newest last."""
        return [shown(h) for (name, _), h in self._held.items() if name == device]

    def command(self, device: str, id_: str) -> dict[str, Any] | None:
        """Return one command; None if it is not known."""
        held = self._held.get((device, id_))
        return None if held is None else shown(held)

    # -- the cloud ----------------------------------------------------------------------------

    def hear(self, envelope: bytes) -> None:
        """Take what the cloud says; refuse bytes that are not what they should be.

        :raises LogError: if it could not be stored.
        """
        try:
            parts = self.open(envelope)
        except WireError as error:
            self._refuse("?", error)
            return
        changed: dict[Key, Held] = {}
        now = self._clock()
        for device, data in parts:
            if device.startswith(REFUSED):
                self._told_refusal(device.removeprefix(REFUSED), data)
                continue
            try:
                standing = decode_standing(data, self._site, self._limits)
            except WireError as error:
                self._refuse(device, error)
                continue
            key = (device, standing.id)
            held = self._step(device, standing, changed.get(key) or self._held.get(key), now)
            if held is not None:
                changed[key] = held
        self._keep([h for key, h in changed.items() if h != self._held.get(key)])
        self._report(h for h in changed.values() if h.number > h.heard)

    def call(self) -> None:
        """Ask for all that is open in the cloud, and say all that it has not heard."""
        self._called_ms = self._clock().ms
        echo = self._clock().echo()
        self._send([(f"{CALL}{number}", encode_call(echo)) for number in range(self._partitions)])
        self._report(h for h in self._held.values() if _unheard(h))

    def pass_time(self) -> None:
        """End what nothing started in time; say again what was not answered; call now and then.

        :raises LogError: if it could not be stored.
        """
        now = self._clock()
        if now.ms - self._called_ms >= _CALL_MS:
            self.call()
        open_ones = [h for h in self._held.values() if h.stage is not Stage.CLOSED]
        ended = [new for h in open_ones if (new := tray.expired(h, now)) is not h]
        self._keep(ended)
        self._report(
            h
            for h in self._held.values()
            if _unheard(h)
            and now.ms - self._said_ms.get((h.device, h.command.id), -_RESEND_MS) >= _RESEND_MS
        )

    def status(self) -> dict[str, Any]:
        """Return how many commands are at which stage."""
        stages = [held.stage for held in self._held.values()]
        return {str(stage): stages.count(stage) for stage in Stage}

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    # -- inside -------------------------------------------------------------------------------

    def _told_refusal(self, device: str, data: bytes) -> None:
        """Leave a device alone of which something was refused; answer a challenge."""
        try:
            refusal = decode_refusal(data)
        except WireError as error:
            self._refuse(device, error)
            return
        _TOLD.labels(refusal.reason).inc()
        _log.warning("the hub refused", device=device, reason=refusal.reason, detail=refusal.detail)
        until_ms = self._clock().ms + _REFUSED_MS
        self._said_ms |= {key: until_ms for key in self._held if key[0] == device}
        if refusal.challenge:
            self.answer(refusal.challenge)
            self.call()

    def _step(
        self, device: str, standing: Standing, held: Held | None, now: Instant
    ) -> Held | None:
        if held is None:
            return tray.offered(device, standing, room=self._has_room(device))
        return held if held.stage is Stage.CLOSED else tray.told(held, standing, now)

    def _has_room(self, device: str) -> bool:
        open_ones = sum(
            name == device and held.stage in _OPEN_STAGES for (name, _), held in self._held.items()
        )
        return open_ones < self._limits.max_open

    def _keep(self, changed: Sequence[Held]) -> None:
        """Store commands, and only then hold them as they are now."""
        if not changed:
            return
        self._log.save(changed)
        for held in changed:
            key = (held.device, held.command.id)
            before = self._held.get(key)
            if held.end is not None and (before is None or before.end is None):
                _ENDED.labels(str(held.end)).inc()
            self._held[key] = held
            if held.stage is Stage.CLOSED:
                self._said_ms.pop(key, None)
        self._forget()
        _OPEN.set(sum(h.stage is not Stage.CLOSED for h in self._held.values()))
        if any(h.stage is Stage.READY for h in changed):
            for event in self._waiting:
                event.set()

    def _forget(self) -> None:
        closed = [key for key, held in self._held.items() if held.stage is Stage.CLOSED]
        for key in closed[: -self._limits.max_remembered]:
            del self._held[key]

    def _report(self, some: Iterable[Held]) -> None:
        now = self._clock()
        parts = []
        for held in some:
            self._said_ms[held.device, held.command.id] = now.ms
            parts.append((held.device, tray.report_of(held, now).encode()))
        self._send(parts)

    def _send(self, parts: Parts) -> None:
        for first in range(0, len(parts), MAX_BATCH):
            self.send(self.seal(parts[first : first + MAX_BATCH]))

    def _refuse(self, device: str, error: WireError) -> None:
        _REFUSED.labels(error.reason).inc()
        _log.warning(
            "message about a command refused",
            device=device,
            reason=error.reason,
            detail=error.detail,
        )


def shown(held: Held) -> dict[str, Any]:
    """Return a command at the edge as data."""
    command = held.command
    return {
        "id": command.id,
        "device": held.device,
        "name": command.name,
        "args": command.args,
        "ttl_ms": command.ttl_ms,
        "site": command.site,
        "origin": command.origin,
        "state": str(held.end or held.stage),
        "ended": held.end in ENDS,
        "cancel": held.cancel,
        "reason": held.reason,
        "result": held.result,
        "reported": held.heard >= held.number,
    }


def _unheard(held: Held) -> bool:
    return held.stage is not Stage.CLOSED and held.number > held.heard


def _nowhere(_: bytes) -> None:
    return None
