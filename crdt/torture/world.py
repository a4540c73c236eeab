"""Replicas over a bad network: a hub and spokes that edit, crash, sleep, compact and disagree.

Every method is one event; who calls them decides what happens, so that a seed or Hypothesis can.
Nothing here is random or reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from crdt.core.edits import Alter, Increment, Latch, Operation
from crdt.core.errors import EditError, WireError
from crdt.core.messages import Message, decode_message
from crdt.core.policies import Policies
from crdt.core.sync import Session
from crdt.core.values import Value
from crdt.replica import Reading, Replica
from crdt.torture.model import Model, known_in

HUB = "hub"
STARTS, ROLES, STOP = "reported.starts", "tags.roles", "desired.stop"
REGISTERS = ("desired.a", "desired.b", "desired.b.c")
_KINDS = ((STARTS, "counter"), (ROLES, "set"), (STOP, "latch"))
POLICIES = tuple(
    Policies((*_KINDS, ("desired.*", policy)))
    for policy in ("latest", "edge-wins", "cloud-wins", "max", "keep-all")
)
_MAX_LIVES = 12
"""Fewer than a version vector remembers, so that nothing may be forgotten."""
_MAX_WAITING = 200
_SEAL_BYTES = 8


class ViolationError(AssertionError):
    """An invariant does not hold."""


@dataclass(slots=True)
class Side:
    """A replica, its disk, its clock and its conversations."""

    name: str
    replica: Replica
    sessions: dict[str, Session]
    disk: list[bytes] = field(default_factory=list)
    life: int = 1
    clock_ms: int = 1_000_000
    policies: int = 0
    backup: tuple[list[bytes], dict[str, int]] | None = None
    """The disk, and how far each life of this side had got."""
    agreed: bool = False

    def save(self) -> None:
        """Store what was changed; only then is anything acknowledged or sent."""
        made, replaced = self.replica.drain()
        self.disk = [*([] if replaced else self.disk), *made]


class World:
    """See the module's docstring."""

    def __init__(self, spokes: int) -> None:
        self.model = Model()
        self.refused = 0
        self.lives: dict[str, dict[str, int]] = {}
        """Side -> its lives -> the number of its last acknowledged write."""
        names = [f"s{n}" for n in range(1, spokes + 1)]
        self.sides: dict[str, Side] = {}
        for name in (HUB, *names):
            peers = names if name == HUB else [HUB]
            side = Side(name, None, {})  # type: ignore[arg-type] # begun below
            side.sessions = {peer: Session(peer) for peer in peers}
            self.sides[name] = side
            self.lives[name] = {}
            self._begin(side)
        self.waiting: dict[tuple[str, str], list[bytes]] = {link: [] for link in self.links()}
        self.cut: set[tuple[str, str]] = set()

    def links(self) -> list[tuple[str, str]]:
        """Return all (from, to)."""
        return [(side.name, peer) for side in self.sides.values() for peer in side.sessions]

    # -- events -------------------------------------------------------------------------------

    def edit(
        self,
        name: str,
        sets: dict[str, Value],
        deletes: Sequence[str] = (),
        operations: Sequence[Operation] = (),
        *,
        crash_before_disk: bool = False,
    ) -> bool:
        """Edit; say whether it was acknowledged."""
        side = self.sides[name]
        # A side that has no life left does not crash: its write would stay, unacknowledged.
        crash_before_disk &= side.life < _MAX_LIVES
        side.clock_ms += 1
        before = known_in(side.replica.twin)
        try:
            change = side.replica.edit(
                *(sets, deletes, operations), now_ms=side.clock_ms, carries=side.agreed
            )
        except EditError:
            return False
        if crash_before_disk:
            self.crash(name)
            return False
        self._maybe_compact(side)
        side.save()
        for made in change.cells:
            cell = side.replica.twin.cell(made)
            self.model.acknowledge(before, cell)
            self.lives[name][cell.actor] = cell.counter
        self._spread(side)
        return True

    def deliver(self, link: tuple[str, str], order: Sequence[int]) -> None:
        """Carry the messages of a link in this order; left out are lost, repeated are doubled."""
        waiting, self.waiting[link] = self.waiting[link], []
        if link in self.cut:
            return
        for position in order:
            if position < len(waiting):
                self._receive(link, waiting[position])

    def corrupt(self, link: tuple[str, str], position: int, byte: int, bit: int) -> None:
        """Flip a bit of a message on its way."""
        waiting = self.waiting[link]
        if waiting:
            data = bytearray(waiting[position % len(waiting)])
            data[byte % len(data)] ^= 1 << bit
            self._try_forged(link, bytes(data[_SEAL_BYTES:]))
            waiting[position % len(waiting)] = bytes(data)

    def hello(self, name: str) -> None:
        """Say hello to all peers."""
        side = self.sides[name]
        for peer, session in side.sessions.items():
            self._send(side, peer, [session.hello(side.replica, want=True)])

    def crash(self, name: str) -> None:
        """A new life with what the disk has."""
        side = self.sides[name]
        if side.life < _MAX_LIVES:
            side.life += 1
            self._begin(side)

    def back_up(self, name: str) -> None:
        """Copy the disk."""
        side = self.sides[name]
        side.backup = (list(side.disk), dict(self.lives[name]))

    def restore(self, name: str) -> None:
        """A new life with an old copy of the disk: what was written since may be lost."""
        side = self.sides[name]
        if side.backup is None or side.life >= _MAX_LIVES:
            return
        disk, lives = side.backup
        side.disk = list(disk)
        for actor, number in self.lives[name].items():
            safe = lives.get(actor, 0)
            if number > safe:
                self.model.torn[actor] = min(safe, self.model.torn.get(actor, safe))
        side.life += 1
        self._begin(side)

    def jump(self, name: str, by_ms: int) -> None:
        """Move a clock."""
        side = self.sides[name]
        side.clock_ms = max(1, side.clock_ms + by_ms)

    def compact(self, name: str, token: str) -> None:
        """Begin a new epoch."""
        side = self.sides[name]
        before = known_in(side.replica.twin)
        side.replica.compact(token, now_ms=side.clock_ms, carries=side.agreed)
        side.save()
        for path, by_actor in side.replica.twin.fields.items():
            cell = by_actor.get(side.replica.incarnation)
            old = before.get(path, {}).get(side.replica.incarnation)
            if cell is not None and (old is None or old.counter < cell.counter):
                self.model.acknowledge(before, cell)
                self.lives[name][cell.actor] = cell.counter
        self._spread(side)

    def change_policies(self, name: str, version: int) -> None:
        """Read registers by other policies from now on."""
        side = self.sides[name]
        side.policies = version % len(POLICIES)
        side.replica.reading = Reading(POLICIES[side.policies])

    def toggle(self, link: tuple[str, str]) -> None:
        """Cut a link in one direction, or heal it."""
        self.cut ^= {link}

    # -- the end ------------------------------------------------------------------------------

    def settle(self) -> None:
        """Heal all links and let all talk until they are silent.

        :raises ViolationError: if they are not after a while.
        """
        self.cut.clear()
        for _ in range(3):
            for name in self.sides:
                self.hello(name)
            for _ in range(200):
                busy = [link for link, waiting in self.waiting.items() if waiting]
                if not busy:
                    break
                for link in busy:
                    self.deliver(link, range(len(self.waiting[link])))
            else:
                raise ViolationError("the conversation does not end")

    def check(self) -> None:
        """Check what must hold after :meth:`settle`.

        :raises ViolationError: if it does not; it says all that does not.
        """
        wrong = list(self._violations())
        if wrong:
            raise ViolationError("; ".join(wrong))

    def _violations(self) -> Iterator[str]:
        hub = self.sides[HUB].replica
        for name, side in self.sides.items():
            twin = side.replica.twin
            if twin.digest() != hub.twin.digest():
                yield f"{name} and hub hold different cells"
            if twin.ledger_digest() != hub.twin.ledger_digest():
                yield f"{name} and hub have different ledgers"
            if side.replica.epoch != hub.epoch:
                yield f"{name} is in epoch {side.replica.epoch}, hub in {hub.epoch}"
            again = Replica("edge:check:1", side.replica.reading, side.disk)
            if again.twin.digest() != twin.digest():
                yield f"the disk of {name} holds something else than it shows"
            for policies in POLICIES:
                if twin.read(policies) != hub.twin.read(policies):
                    yield f"{name} and hub read differently under the same policies"
                    break
        yield from self.model.violations(hub.twin)
        yield from self._untold(hub)

    def _untold(self, hub: Replica) -> Iterator[str]:
        """Yield concurrent writes that no ledger tells of."""
        told = {frozenset((e.winner.dot, e.loser.dot)) for e in hub.twin.ledger.values()}
        for path in REGISTERS:
            cells = list(hub.twin.fields.get(path, {}).values())
            for one in cells:
                for other in cells:
                    pair = frozenset((one.dot, other.dot))
                    if one.payload() != other.payload() and pair not in told:
                        yield f"{path}: no ledger has {sorted(pair)}"

    # -- inside -------------------------------------------------------------------------------

    def _begin(self, side: Side) -> None:
        kind = "cloud" if side.name == HUB else "edge"
        life = f"{kind}:{side.name}:{side.life}-{sha256(side.name.encode()).hexdigest()[:4]}"
        reading = Reading(POLICIES[side.policies])
        side.replica = Replica(life, reading, side.disk, lambda: side.clock_ms)
        side.sessions = {peer: Session(peer) for peer in side.sessions}
        side.agreed = False

    def _receive(self, link: tuple[str, str], sealed: bytes) -> None:
        peer, name = link
        side = self.sides[name]
        data = sealed[_SEAL_BYTES:]
        if sealed[:_SEAL_BYTES] != _seal(data):
            self.refused += 1  # as the signature of an envelope would say
            return
        answers = side.sessions[peer].receive(decode_message(data), side.replica)
        side.agreed |= side.sessions[peer].agreed
        self._maybe_compact(side)
        side.save()
        self._send(side, peer, answers)
        self._spread(side)

    def _try_forged(self, link: tuple[str, str], data: bytes) -> None:
        """What no signature protects must be refused, or be taken without harm to the process."""
        side = self.sides[link[1]]
        victim = Replica("edge:victim:1", side.replica.reading, side.disk)
        before = victim.digest()
        try:
            Session(link[0]).receive(decode_message(data), victim)
        except WireError:
            if victim.digest() != before:
                raise ViolationError("a refused message changed a replica") from None

    def _maybe_compact(self, side: Side) -> None:
        if side.replica.wants_compaction():
            token = sha256(f"{side.replica.incarnation} {side.replica.outbox.seq}".encode())
            side.replica.compact(token.hexdigest()[:8])

    def _spread(self, side: Side) -> None:
        for peer, session in side.sessions.items():
            self._send(side, peer, session.pending(side.replica))

    def _send(self, side: Side, peer: str, messages: Sequence[Message]) -> None:
        waiting = self.waiting[side.name, peer]
        for message in messages:
            data = message.encode()
            waiting.append(_seal(data) + data)
        del waiting[:-_MAX_WAITING]


def _seal(data: bytes) -> bytes:
    return sha256(data).digest()[:_SEAL_BYTES]


def operation(path: str, number: int, *, other: bool) -> Operation:
    """Return an operation of the kind of a path."""
    if path == STARTS:
        return Increment(path, -number if other else number + 1)
    if path == ROLES:
        elements = (number % 4,)
        return Alter(path, (), elements) if other else Alter(path, elements)
    return Latch(path, on=not other)
