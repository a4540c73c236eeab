"""Counters, sets and latches beside a model that knows the whole history."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

from hypothesis import example, given
from hypothesis import strategies as st

from crdt.core.cell_codec import decode
from crdt.core.edits import Alter, Increment, Latch, Operation, Stamp
from crdt.core.hlc import Hlc
from crdt.core.policies import Policies
from crdt.core.twin import Twin

STARTS, ROLES, STOP = "reported.starts", "tags.roles", "desired.stop"
POLICIES = Policies(((STARTS, "counter"), (ROLES, "set"), (STOP, "latch")))
MAX_BYTES = 65_536

elements = st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True).map(tuple)
operations = st.one_of(
    st.builds(Increment, st.just(STARTS), st.integers(-3, 5)),
    st.builds(Alter, st.just(ROLES), elements, st.just(())),
    st.builds(Alter, st.just(ROLES), st.just(()), elements),
    st.builds(Latch, st.just(STOP), st.booleans()),
)
who = st.integers(0, 3)
steps = st.one_of(
    st.tuples(st.just("do"), who, operations, st.booleans()),
    st.tuples(st.just("do"), who, operations, st.booleans()),
    st.tuples(st.just("meet"), who, who),
    st.tuples(st.just("reborn"), who),
    st.tuples(st.just("restore"), who),
)
histories = st.lists(steps, max_size=30)


@dataclass
class Replica:
    """A twin, and what the model says that it knows: every operation by its number."""

    name: int
    twin: Twin = field(default_factory=Twin)
    life: int = 1
    """Unlike any other replica's, where two share a name."""
    counter: int = 0
    known: set[int] = field(default_factory=set)

    @property
    def actor(self) -> str:
        return f"edge:s{self.name}:{self.life}-x"


@dataclass
class World:
    """Three replicas and a copy of the first, and the history: (done, what its writer knew)."""

    replicas: list[Replica] = field(
        default_factory=lambda: [Replica(0), Replica(1), Replica(2), Replica(3)]
    )
    lives: int = 1
    done: list[tuple[Operation, frozenset[int]]] = field(default_factory=list)

    def play(self, history: list) -> None:
        for step in history:
            match step:
                case ("do", name, operation, carries):
                    self.do(self.replicas[name], operation, carries)
                case ("meet", one, other):
                    self.meet(self.replicas[one], self.replicas[other])
                case ("reborn", name):
                    self.begin_life(self.replicas[name])
                case ("restore", name):
                    # A backup starts while the original still runs: both go on as one replica.
                    copy, original = self.replicas[3], self.replicas[name]
                    copy.twin, copy.known = deepcopy(original.twin), set(original.known)
                    copy.name = original.name
                    self.begin_life(copy)
            for replica in self.replicas:
                assert shown(replica.twin) == self.expected(replica.known)

    def begin_life(self, replica: Replica) -> None:
        self.lives += 1
        replica.life, replica.counter = self.lives, 0

    def do(self, replica: Replica, operation: Operation, carries: bool) -> None:
        replica.counter += 1
        stamp = Stamp(replica.actor, replica.counter, Hlc(len(self.done), 0), carries)
        cells = replica.twin.edit({}, (), [operation], stamp=stamp, policies=POLICIES)
        for cell in cells:
            assert decode(cell.name, cell.encode(), MAX_BYTES) == cell
        replica.twin.merge(cells, {}, POLICIES)
        self.done.append((operation, frozenset(replica.known)))
        replica.known.add(len(self.done) - 1)

    def meet(self, into: Replica, other: Replica) -> None:
        into.twin.merge(other.twin.cells().values(), other.twin.ledger, POLICIES)
        into.known |= other.known

    def expected(self, known: set[int]) -> tuple[int, list[int], bool]:
        did = {number: self.done[number] for number in known}
        total = sum(op.by for op, _ in did.values() if isinstance(op, Increment))
        alters = {number: did[number] for number in did if isinstance(did[number][0], Alter)}
        held = {
            element
            for number, (op, _) in alters.items()
            for element in op.adds
            if not any(element in o.removes and number in had for o, had in alters.values())
        }
        sets = {n for n, (op, _) in did.items() if isinstance(op, Latch) and op.on}
        released = any(
            isinstance(op, Latch) and not op.on and sets <= had | {n}
            for n, (op, had) in did.items()
        )
        return total, sorted(held), bool(sets) and not released


def shown(twin: Twin) -> tuple[object, object, object]:
    found = {path: r.value for path, r in twin.read(POLICIES).items()}
    return found.get(STARTS, 0), found.get(ROLES, []), found.get(STOP, False)


@example(
    [("do", n, Latch(STOP, on=on), False) for on in (True, False) for n in (0, 1)]
    + [("meet", 0, 1)]
)
@example(
    [
        ("do", 0, Increment(STARTS, 1), False),
        ("restore", 0),
        ("do", 3, Increment(STARTS, 1), True),
        ("do", 0, Increment(STARTS, 5), False),
        ("meet", 0, 3),
        ("meet", 3, 0),
    ]
)
@example(
    [
        ("do", 0, Alter(ROLES, (7,)), False),
        ("meet", 1, 0),
        ("do", 1, Alter(ROLES, (), (7,)), False),
        ("do", 0, Alter(ROLES, (7,)), False),
        ("meet", 0, 1),
    ]
)
@given(histories)
def test_every_replica_shows_what_it_knows_of_at_any_time(history: list) -> None:
    World().play(history)


@given(histories, st.permutations(range(4)), st.permutations(range(4)))
@example(
    # Only who hears of 1 and 2 before 0 sees that they differ: 0 had seen 2, and says as 1 does.
    [
        ("do", 2, Latch(STOP, True), False),
        ("meet", 0, 2),
        ("do", 0, Latch(STOP, False), False),
        ("do", 1, Latch(STOP, False), False),
    ],
    [0, 1, 2, 3],
    [1, 2, 0, 3],
)
def test_all_meet_in_the_same_cells_in_any_order(history: list, one: list, other: list) -> None:
    world = World()
    world.play(history)
    totals = []
    for order in (one, other, [*one, *other]):
        total = Twin()
        for name in order:
            twin = world.replicas[name].twin
            total.merge(twin.cells().values(), twin.ledger, POLICIES)
        totals.append(total)
    assert len({total.digest() for total in totals}) == 1
    # A ledger has what its replica or another has seen: they are the same once all have met.
    for total in totals:
        for met in totals:
            total.merge(met.cells().values(), met.ledger, POLICIES)
    for total in totals[:-1]:
        total.merge((), totals[-1].ledger, POLICIES)
    assert len({(total.digest(), total.ledger_digest()) for total in totals}) == 1


@given(histories)
def test_policies_change_what_is_read_but_no_digest(history: list) -> None:
    world = World()
    world.play(history)
    plain, keen = Twin(), Twin()
    for replica in world.replicas:
        plain.merge(replica.twin.cells().values(), {}, Policies())
        keen.merge(replica.twin.cells().values(), {}, POLICIES)
    assert plain.digest() == keen.digest()
    assert shown(plain) == shown(keen)
