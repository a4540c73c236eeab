"""Replicas of real Docs over a bad network: after repair all are equal, whatever happened."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.core.messages import decode_message
from crdt.core.policies import Policies
from crdt.core.sync import Session
from crdt.replica import Reading, Replica

PATHS = ("desired.a", "desired.b", "desired.b.c", "tags.x")
READING = Reading(Policies((("desired.b*", "edge-wins"),)))


@dataclass
class Side:
    """A replica with its sessions and the bytes on their way to each peer."""

    replica: Replica
    sessions: dict[str, Session]
    sending: dict[str, list[bytes]] = field(default_factory=dict)

    def send(self, peer: str, messages: list) -> None:
        self.sending.setdefault(peer, []).extend(m.encode() for m in messages)

    def spread(self) -> None:
        for peer, session in self.sessions.items():
            self.send(peer, session.pending(self.replica))


class World:
    """A hub and two spokes; ``wild`` chooses what is lost, doubled and reordered."""

    def __init__(self, seed: int) -> None:
        self.wild = random.Random(seed)
        self.lives = {"hub": 0, "s1": 0, "s2": 0}
        self.backups: dict[str, bytes] = {}
        self.sides = {
            "hub": Side(self._replica("hub"), {"s1": Session("s1"), "s2": Session("s2")}),
            "s1": Side(self._replica("s1"), {"hub": Session("hub")}),
            "s2": Side(self._replica("s2"), {"hub": Session("hub")}),
        }

    def _replica(self, name: str, updates: tuple[bytes, ...] = ()) -> Replica:
        kind = "cloud" if name == "hub" else "edge"
        return Replica(f"{kind}:{name}:{self.lives[name]}", READING, updates)

    def edit(self, name: str, path: str, value: int | None, clock_ms: int) -> None:
        side = self.sides[name]
        sets, deletes = ({}, [path]) if value is None else ({path: value}, [])
        side.replica.edit(sets, deletes, now_ms=clock_ms)
        side.spread()

    def back_up(self, name: str) -> None:
        self.backups[name] = self.sides[name].replica.stored()

    def restart(self, name: str, *, backup: bool = False) -> None:
        """A new life on the same disk, or an old one; what was on its way may still arrive."""
        side = self.sides[name]
        self.lives[name] += 1
        disk = self.backups.get(name) if backup else None
        side.replica = self._replica(name, (disk or side.replica.stored(),))
        side.sessions = {peer: Session(peer) for peer in side.sessions}
        self.hello(name)

    def compact(self, name: str) -> None:
        """A new epoch here, whatever the others do; nobody else knows of it yet."""
        side = self.sides[name]
        side.replica.compact(f"{self.wild.getrandbits(32):08x}")
        side.spread()

    def hello(self, name: str) -> None:
        side = self.sides[name]
        for peer, session in side.sessions.items():
            side.send(peer, [session.hello(side.replica, want=True)])

    def deliver(self, name: str, peer: str, *, wild: bool) -> None:
        """Carry messages from *name* to *peer*; wildly, some get lost, doubled, out of order."""
        waiting = self.sides[name].sending.pop(peer, [])
        if wild:
            waiting = [m for m in waiting for _ in range(self.wild.choice((0, 1, 1, 2)))]
            self.wild.shuffle(waiting)
        other = self.sides[peer]
        for data in waiting:
            answers = other.sessions[name].receive(decode_message(data), other.replica)
            other.send(name, answers)
            other.spread()

    def settle(self) -> None:
        """Repair the network and let every side say hello until nothing is on its way."""
        for _ in range(2):
            for name in self.sides:
                self.hello(name)
            for _ in range(200):
                routes = [(n, p) for n, s in self.sides.items() for p in s.sending if s.sending[p]]
                if not routes:
                    break
                for name, peer in routes:
                    self.deliver(name, peer, wild=False)
            else:
                raise AssertionError("the conversation does not end")

    def views(self) -> list[object]:
        return [
            (
                side.replica.digest(),
                {
                    p: (r.value, r.winner.dot)
                    for p, r in side.replica.twin.read(READING.policies).items()
                },
                {key: entry.encode() for key, entry in side.replica.twin.ledger.items()},
            )
            for side in self.sides.values()
        ]


names = st.sampled_from(["hub", "s1", "s2"])
edits = st.tuples(
    st.just("edit"),
    names,
    st.sampled_from(PATHS),
    st.none() | st.integers(0, 9),
    st.integers(0, 10**13),
)
routes = st.sampled_from([("hub", "s1"), ("s1", "hub"), ("hub", "s2"), ("s2", "hub")])
deliveries = st.tuples(st.just("deliver"), routes)
restarts = st.tuples(st.sampled_from(["restart", "back up", "restore", "compact"]), names)
hellos = st.tuples(st.just("hello"), names)
histories = st.lists(st.one_of(edits, edits, deliveries, deliveries, restarts, hellos), max_size=40)


@settings(max_examples=150)
@given(histories, st.integers(0, 2**32))
def test_any_loss_order_duplication_restart_or_old_backup_then_repair_gives_equal_twins_and_ledgers(
    history: list, seed: int
) -> None:
    world = World(seed)
    for step in history:
        match step:
            case ("edit", name, path, value, clock_ms):
                world.edit(name, path, value, clock_ms)
            case ("deliver", (name, peer)):
                world.deliver(name, peer, wild=True)
            case ("restart", name):
                world.restart(name)
            case ("back up", name):
                world.back_up(name)
            case ("restore", name):
                world.restart(name, backup=True)
            case ("hello", name):
                world.hello(name)
            case ("compact", name):
                world.compact(name)
    world.settle()
    hub, *spokes = world.views()
    assert all(view == hub for view in spokes)
    assert len({side.replica.epoch for side in world.sides.values()}) == 1
    assert all(s.agreed for side in world.sides.values() for s in side.sessions.values())
