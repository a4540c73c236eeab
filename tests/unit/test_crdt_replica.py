"""A replica of a real Doc: damaged updates change nothing, an older cell never comes back."""

from __future__ import annotations

import gc
import random
import weakref

import pytest
from pycrdt import Doc, Map

from crdt.core.errors import EditError, WireError
from crdt.core.limits import Limits
from crdt.core.messages import Kind, Message, decode_message
from crdt.core.policies import Policies
from crdt.core.sync import Session
from crdt.core.view import conflict_view, view
from crdt.replica import Reading, Replica

LATEST = Policies()


def message(*updates: bytes, **more: object) -> Message:
    return Message(Kind.DELTA, "x", 1, b"", "", 0, updates=updates, **more)


def value_of(replica: Replica, path: str) -> object:
    return replica.twin.read(replica.reading.policies)[path].value


def test_random_damage_never_changes_what_a_replica_says_without_an_error_or_a_valid_cell() -> None:
    source = Replica("edge:s:1", Reading())
    source.edit({"desired.a": 1, "desired.b": "text"}, (), now_ms=1)
    good = source.stored()
    wild = random.Random(7)
    refused = 0
    for _ in range(300):
        damaged = bytearray(good)
        damaged[wild.randrange(len(damaged))] ^= 1 << wild.randrange(8)
        target = Replica("cloud:0", Reading())
        target.edit({"tags.mine": 1}, (), now_ms=1)
        before = target.digest()
        try:
            target.take(message(bytes(damaged)), "s")
        except WireError:
            refused += 1
            assert target.digest() == before
        assert value_of(target, "tags.mine") == 1
    assert refused > 100


@pytest.mark.parametrize("value", [5, "text", 2.5, None])
def test_a_root_map_with_anything_but_bytes_is_refused_whole(value: object) -> None:
    doc: Doc = Doc({"cells": Map({"desired.a@edge:s:1": value})})
    target = Replica("cloud:0", Reading())
    before = target.digest()
    with pytest.raises(WireError, match="instead of bytes"):
        target.take(message(doc.get_update()), "s")
    assert target.digest() == before
    assert target.encoded() == ([], [])


def test_where_yjs_shows_an_older_cell_the_doc_is_rewritten_from_the_cells() -> None:
    older, newer = Replica("edge:s:1", Reading()), Replica("edge:s:1", Reading())
    older.edit({"desired.a": 1}, (), now_ms=1)
    first = older.stored()
    newer.take(message(first), "x")
    cell = dict(newer.encoded()[0])
    newer.edit({"desired.a": 2}, (), now_ms=2, counter=2)
    # A peer that puts the older cell back, later in the eyes of Yjs.
    doc: Doc = Doc({"cells": Map(), "ledger": Map()})
    doc.apply_update(newer.stored())
    for name, data in cell.items():
        doc["cells"][name] = data
    newer.take(message(doc.get_update()), "x")
    assert value_of(newer, "desired.a") == 2
    again = Replica("cloud:0", Reading(), [newer.stored()])
    assert value_of(again, "desired.a") == 2


def test_two_writers_apart_make_one_conflict_that_both_explain_alike() -> None:
    reading = Reading(Policies((("desired.*", "edge-wins"),)))
    edge, cloud = Replica("edge:s:1", reading), Replica("cloud:0", reading)
    edge.edit({"desired.speed": 40}, (), now_ms=1_000)
    cloud.edit({"desired.speed": 55}, (), now_ms=2_000)
    talk(edge, cloud)
    assert view(edge.twin, reading.policies) == view(cloud.twin, reading.policies)
    (conflict,) = view(edge.twin, reading.policies)["conflicts"]
    assert (conflict["winner"]["value"], conflict["loser"]["value"]) == (40, 55)
    assert conflict["why"] == (
        "the edge and the cloud wrote without having seen each other; "
        "edge-wins: the write of the edge counts"
    )
    taken = cloud.edit({"desired.speed": 55}, (), now_ms=3)
    assert taken.conflicts == ()
    talk(edge, cloud)
    assert value_of(edge, "desired.speed") == 55
    assert [conflict_view(e)["key"] for e in edge.twin.ledger.values()] == [conflict["key"]]


def test_the_longer_path_counts_and_the_ledger_says_so() -> None:
    edge, cloud = Replica("edge:s:1", Reading()), Replica("cloud:0", Reading())
    edge.edit({"desired.cfg": [1]}, (), now_ms=1)
    cloud.edit({"desired.cfg.b": 2}, (), now_ms=1)
    talk(edge, cloud)
    assert list(edge.twin.read(LATEST)) == ["desired.cfg.b"]
    (entry,) = edge.twin.ledger.values()
    assert entry.policy == "longer-path"


def test_an_edit_that_breaks_a_rule_changes_nothing() -> None:
    replica = Replica("edge:s:1", Reading(limits=Limits(max_fields=2, max_value_bytes=10)))
    before = replica.digest()
    cases = {
        "bad-path": {"speed": 1},
        "too-big": {"desired.a": "x" * 20},
        "integer-too-big": {"desired.a": 2**63},
        "not-finite": {"desired.a": float("nan")},
        "contradiction": {"desired.a": 1, "desired.a.b": 2},
        "too-many-fields": {"desired.a": 1, "desired.b": 1, "desired.c": 1},
        "bad-type": {"desired.a": [{}]},
    }
    for reason, sets in cases.items():
        with pytest.raises(EditError) as caught:
            replica.edit(sets, (), now_ms=1)
        assert caught.value.reason == reason
    assert replica.digest() == before
    assert replica.drain() == ([], False)


def test_a_twin_has_a_size_and_deleting_is_always_allowed() -> None:
    replica = Replica("edge:s:1", Reading(limits=Limits(max_bytes=100)))
    replica.edit({"desired.a": "x" * 60}, (), now_ms=1)
    with pytest.raises(EditError, match="max_bytes"):
        replica.edit({"desired.b": "x" * 60}, (), now_ms=2)
    replica.edit({}, ["desired.a"], now_ms=3)
    replica.edit({"desired.b": "x" * 60}, (), now_ms=4)


def test_the_ledger_keeps_the_newest_conflicts_and_both_sides_keep_the_same() -> None:
    reading = Reading(limits=Limits(max_ledger_bytes=1_200))
    edge, cloud = Replica("edge:s:1", reading), Replica("cloud:0", reading)
    for number in range(12):
        edge.edit({f"desired.f{number}": "edge"}, (), now_ms=number)
        cloud.edit({f"desired.f{number}": "cloud"}, (), now_ms=number)
    talk(edge, cloud)
    assert edge.twin.ledger.keys() == cloud.twin.ledger.keys()
    assert 3 < len(edge.twin.ledger) < 12
    kept = {entry.winner.path for entry in edge.twin.ledger.values()}
    assert kept == {f"desired.f{number}" for number in range(12 - len(kept), 12)}


def test_a_peer_that_was_away_for_longer_than_the_outbox_gets_a_snapshot() -> None:
    edge, cloud = Replica("edge:s:1", Reading()), Replica("cloud:0", Reading())
    talk(edge, cloud)
    up, down = Session("cloud"), Session("edge")
    for said in down.receive(up.hello(edge, want=True), cloud):
        up.receive(said, edge)
    for number in range(300):
        edge.edit({"desired.n": number}, (), now_ms=number)
    assert [said.kind for said in up.pending(edge)] == [Kind.SNAPSHOT]
    talk(edge, cloud)
    assert value_of(cloud, "desired.n") == 299


def test_a_clock_ten_years_ahead_is_merged_but_not_adopted() -> None:
    ahead = Replica("edge:s:1", Reading())
    ahead.edit({"desired.a": 1}, (), now_ms=10**13)
    sane = Replica("edge:t:1", Reading(), clock=lambda: 1_000)
    sane.take(message(ahead.stored()), "x")
    assert value_of(sane, "desired.a") == 1
    sane.edit({"desired.b": 1}, (), now_ms=1_000)
    assert sane.twin.cell("desired.b@edge:t:1").hlc.ms == 1_000


def test_messages_survive_their_encoding_and_other_bytes_are_refused() -> None:
    full = message(b"u", want=True, cells=(("a", b"1"),), ledger=(("k", b"2"),), vector=b"v")
    assert decode_message(full.encode()) == full
    for bad in (b"", b"\x80", full.encode()[:-1], full.encode() + b"\x00", b"\xa0", b"\x9f" * 5000):
        with pytest.raises(WireError):
            decode_message(bad)


def talk(edge: Replica, cloud: Replica) -> None:
    """Say hello and go on until both are silent."""
    up, down = Session("cloud"), Session("edge")
    waiting = [(cloud, down, up.hello(edge, want=True))]
    while waiting:
        replica, session, said = waiting.pop(0)
        answers = session.receive(said, replica)
        other = (edge, up) if replica is cloud else (cloud, down)
        waiting += [(*other, answer) for answer in answers]
    assert up.agreed
    assert down.agreed


def test_a_replica_that_nobody_holds_leaves_memory_with_its_doc() -> None:
    # A Doc holds its subscribers outside Python: one that stayed would keep all of it for ever.
    replica = Replica("cloud:0", Reading())
    replica.edit({"desired.a": 1}, (), now_ms=1)
    replica.compact("t")
    replica.edit({"desired.a": 2}, (), now_ms=2)
    known = [weakref.ref(replica), weakref.ref(replica._doc), weakref.ref(replica._doc._doc)]
    del replica
    gc.collect()
    assert [ref() for ref in known] == [None, None, None]
