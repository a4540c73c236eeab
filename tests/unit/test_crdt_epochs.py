"""Epochs: a Doc stays small for ever, and whoever compacted apart or slept meets without loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from crdt.core.edits import Increment
from crdt.core.epochs import Epoch
from crdt.core.errors import WireError
from crdt.core.messages import Kind, Message, decode_message
from crdt.core.policies import Policies
from crdt.doc import CellDoc
from crdt.log import Log
from crdt.replica import Reading, Replica
from edge.node import EdgeNode
from tests.unit.test_crdt_replica import talk, value_of

READING = Reading(Policies((("reported.starts", "counter"),)))


def overwritten(replica: Replica, times: int) -> None:
    for number in range(times):
        replica.edit({f"desired.f{number % 20}": number}, (), now_ms=number)
        if replica.wants_compaction():
            replica.compact(f"t{number}")


def test_a_doc_that_is_overwritten_for_ever_stays_small() -> None:
    replica = Replica("edge:s:1-x", READING)
    overwritten(replica, 20_000)
    assert replica.epoch.number > 5
    assert len(replica.stored()) < 8_192
    assert [value_of(replica, f"desired.f{n}") for n in (0, 19)] == [19_980, 19_999]
    assert len(replica.twin.cells()) == 20


def test_a_log_on_disk_stays_small_and_holds_the_newest_epoch(tmp_path: Path) -> None:
    node = EdgeNode(Log(tmp_path / "twins.db"), "north", READING, lambda: 1_000)
    for number in range(600):
        node.edit("pump-1", {f"desired.f{number % 20}": number}, ())
    node.compact("pump-1")
    before = node.view("pump-1")
    node.close()
    log = Log(tmp_path / "twins.db")
    assert sum(map(len, log.load()["pump-1"])) < 8_192
    again = EdgeNode(log, "north", READING, lambda: 1_000)
    after = again.view("pump-1")
    again.close()
    assert before is not None
    assert after is not None
    assert after["digest"] == before["digest"]
    assert after["epoch"] == before["epoch"] > 0


def test_replicas_that_compacted_apart_join_in_the_greater_epoch_without_loss() -> None:
    edge, cloud = Replica("edge:s:1-x", READING), Replica("cloud:0", READING)
    edge.edit({"desired.a": 1}, (), [Increment("reported.starts", 2)], now_ms=1)
    talk(edge, cloud)
    edge.compact("bbbb")
    edge.edit({"desired.edge": 1}, (), now_ms=2)
    cloud.compact("aaaa")
    cloud.edit({"desired.cloud": 1}, (), [Increment("reported.starts", 3)], now_ms=2)
    talk(edge, cloud)
    for side in (edge, cloud):
        assert side.epoch == Epoch(1, "bbbb")
        assert value_of(side, "reported.starts") == 5
        assert {"desired.a", "desired.edge", "desired.cloud"} <= side.twin.fields.keys()
    assert edge.digest() == cloud.digest()


def test_a_replica_that_slept_through_many_epochs_loses_nothing() -> None:
    edge, cloud = Replica("edge:s:1-x", READING), Replica("cloud:0", READING)
    edge.edit({"desired.a": 1}, (), now_ms=1)
    talk(edge, cloud)
    edge.edit({"desired.b": "while asleep"}, (), now_ms=2)
    asleep = edge.stored()
    for number in range(30):
        cloud.edit({"desired.a": number}, (), now_ms=number)
        cloud.compact(f"c{number}")
    edge = Replica("edge:s:2-y", READING, [asleep])
    talk(edge, cloud)
    for side in (edge, cloud):
        assert (value_of(side, "desired.a"), value_of(side, "desired.b")) == (29, "while asleep")
        assert side.epoch.number == 30


def test_compaction_carries_what_ended_lives_counted() -> None:
    stored: tuple[bytes, ...] = ()
    for life in range(1, 9):
        replica = Replica(f"edge:s:{life}-x", READING, stored)
        replica.edit({}, (), [Increment("reported.starts")], now_ms=life)
        stored = (replica.stored(),)
    assert len(replica.twin.fields["reported.starts"]) == 8
    replica.compact("t", now_ms=9, carries=True)
    assert list(replica.twin.fields["reported.starts"]) == ["edge:s:8-x"]
    assert value_of(replica, "reported.starts") == 8


def test_an_epoch_from_the_future_or_another_than_the_docs_is_refused() -> None:
    target = Replica("cloud:0", READING)
    target.edit({"desired.a": 1}, (), now_ms=1)
    before = target.digest()
    doc = CellDoc()
    doc.begin(Epoch(5, "five"))
    liar = Message(
        Kind.SNAPSHOT, "x", 1, b"", "", 0, updates=(doc.update(),), epoch=Epoch(6, "six")
    )
    with pytest.raises(WireError, match="the Doc says"):
        target.take(liar, "s")
    doc = CellDoc()
    doc.begin(Epoch(2**33, "t"))
    future = Message(
        Kind.SNAPSHOT, "x", 1, b"", "", 0, updates=(doc.update(),), epoch=Epoch(2**33, "t")
    )
    with pytest.raises(WireError, match="from the future"):
        target.take(future, "s")
    for number, token in ((2**63, "t"), (-1, "t"), (1, ""), (0, "t"), (1, "t" * 100)):
        forged = Message(Kind.ACK, "x", 1, b"", "", 0, epoch=Epoch(number, token))
        with pytest.raises(WireError, match="epoch"):
            decode_message(forged.encode())
    assert target.digest() == before
    assert target.epoch.number == 0


def test_an_update_that_would_change_the_epoch_is_taken_back_whole() -> None:
    target, peer = Replica("cloud:0", READING), Replica("edge:s:1-x", READING)
    target.edit({"desired.a": 1}, (), now_ms=1)
    before = (target.digest(), target.stored(), target.outbox.seq)
    doc = CellDoc([target.stored()])
    doc.begin(Epoch(3, "three"))
    liar = Message(Kind.DELTA, "x", 1, b"", "", 0, updates=(doc.update(target.vector()),))
    with pytest.raises(WireError, match="the Doc says"):
        target.take(liar, "s")
    assert (target.digest(), target.stored(), target.outbox.seq) == before
    target.edit({"desired.a": 2}, (), now_ms=2)
    talk(peer, target)
    assert value_of(peer, "desired.a") == 2


def test_a_message_of_the_first_epoch_has_the_bytes_it_had_before_there_were_epochs() -> None:
    first = Message(Kind.ACK, "x", 1, b"", "", 0)
    assert first.encode()[:2] == b"\x8e\x01"
    later = Message(Kind.ACK, "x", 1, b"", "", 0, epoch=Epoch(1, "t"))
    assert later.encode()[:2] == b"\x8f\x02"
    assert decode_message(later.encode()) == later
