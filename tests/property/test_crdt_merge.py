"""The laws of merging, on cells that really could have been written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crdt.core.edits import Stamp
from crdt.core.hlc import Hlc
from crdt.core.policies import NAMES, Policies, resolve
from crdt.core.twin import Twin

LATEST = Policies()
PATHS = ("desired.a", "desired.b", "desired.b.c")
ACTORS = ("cloud:0", "edge:s1:1", "edge:s2:1")

writes = st.tuples(
    st.just("write"),
    st.integers(0, 2),
    st.sampled_from(PATHS),
    st.none() | st.integers(0, 3),
    st.integers(0, 50),
)
meetings = st.tuples(st.just("meet"), st.integers(0, 2), st.integers(0, 2))
histories = st.lists(st.one_of(writes, writes, meetings), max_size=25)


def twins_of(history: list) -> list[Twin]:
    """Three replicas that wrote and met as the history says."""
    twins = [Twin(), Twin(), Twin()]
    counters = [0, 0, 0]
    for step in history:
        match step:
            case ("write", who, path, value, clock_ms):
                counters[who] += 1
                sets, deletes = ({}, [path]) if value is None else ({path: value}, [])
                stamp = Stamp(ACTORS[who], counters[who], Hlc(clock_ms, 0))
                cells = twins[who].edit(sets, deletes, stamp=stamp, policies=LATEST)
                twins[who].merge(cells, {}, LATEST)
            case ("meet", one, other):
                join(twins[one], twins[other])
    return twins


def join(into: Twin, other: Twin) -> Twin:
    into.merge(other.cells().values(), other.ledger, LATEST)
    return into


def joined(*parts: Twin) -> tuple[str, object]:
    """Digest and values of the parts, merged from left to right."""
    total = Twin()
    for part in parts:
        join(total, part)
    return total.digest(), {p: (r.value, r.winner) for p, r in total.read(LATEST).items()}


@given(histories)
def test_merging_is_commutative_associative_and_idempotent(history: list) -> None:
    a, b, c = twins_of(history)
    assert joined(a, b) == joined(b, a)
    ab, bc = join(join(Twin(), a), b), join(join(Twin(), b), c)
    assert joined(ab, c) == joined(a, bc)
    assert joined(a, a, b, b, a) == joined(a, b)


@given(histories)
def test_ledgers_of_all_meet_in_the_same_union_whatever_the_order(history: list) -> None:
    a, b, c = twins_of(history)
    for order in ((a, b, c), (c, b, a), (b, a, c)):
        total = Twin()
        for part in order:
            join(total, part)
        for part in (a, b, c):
            assert part.ledger.keys() <= total.ledger.keys()


@given(histories, st.integers(0, 2), st.integers(0, 9), st.sampled_from(NAMES))
def test_a_causally_later_edit_wins_whatever_the_clocks_say(
    history: list, who: int, value: int, policy: str
) -> None:
    twins = twins_of(history)
    writer = join(join(join(Twin(), twins[0]), twins[1]), twins[2])
    stamp = Stamp(ACTORS[who], 1_000, Hlc(0, 0))
    cells = writer.edit({"desired.a": value}, [], stamp=stamp, policies=LATEST)
    for twin in twins:
        join(writer, twin)
        twin.merge(cells, {}, LATEST)
        join(twin, writer)
        found = resolve(tuple(twin.fields["desired.a"].values()), policy)
        assert (found.value, found.others) == (value, ())


@given(histories)
def test_no_write_is_lost_without_a_trace(history: list) -> None:
    """What a replica shows after all have met, or an entry of the ledger, or a later write."""
    twins = twins_of(history)
    total = Twin()
    for twin in twins:
        join(total, twin)
    for twin in twins:
        for cell in twin.cells().values():
            present = total.fields[cell.path].values()
            assert any(other == cell or other.dominates(cell) for other in present)
    for path, by_actor in total.fields.items():
        found = resolve(tuple(by_actor.values()), "latest")
        for loser in found.others:
            dots = {found.winner.dot, loser.dot}
            assert any(
                {e.winner.dot, e.loser.dot} == dots and e.winner.path == path
                for e in total.ledger.values()
            )
