"""Kinds at their boundary: what edits may do, what two sides see, which bytes are refused."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest

from crdt.core import cbor
from crdt.core.cell_codec import decode
from crdt.core.cells import Cell, recent
from crdt.core.edits import Alter, Increment, Latch, Take
from crdt.core.errors import EditError, WireError
from crdt.core.hlc import Hlc
from crdt.core.kinds import SET, Dots
from crdt.core.limits import Limits
from crdt.core.policies import Policies
from crdt.core.sums import members
from crdt.core.view import view
from crdt.replica import Reading, Replica
from tests.unit.test_crdt_replica import message, talk, value_of

STARTS, ROLES, STOP = "reported.starts", "tags.roles", "desired.stop"
READING = Reading(Policies(((STARTS, "counter"), (ROLES, "set"), (STOP, "latch"))))


def edge(life: int = 1, stored: tuple[bytes, ...] = ()) -> Replica:
    return Replica(f"edge:s:{life}-x", READING, stored)


def cloud() -> Replica:
    return Replica("cloud:0", READING)


def test_both_sides_of_a_cut_link_count_add_and_stop_and_nothing_is_lost() -> None:
    site, hub = edge(), cloud()
    site.edit({}, (), [Increment(STARTS, 3), Alter(ROLES, ("spare", "old"))], now_ms=1)
    talk(site, hub)
    site.edit({}, (), [Increment(STARTS, 2), Alter(ROLES, ("spare",)), Latch(STOP, True)], now_ms=2)
    hub.edit({}, (), [Increment(STARTS, -1), Alter(ROLES, ("new",), ("spare", "old"))], now_ms=3)
    hub.edit({}, (), [Latch(STOP, False)], now_ms=4)
    talk(site, hub)
    for side in (site, hub):
        assert value_of(side, STARTS) == 4
        assert value_of(side, ROLES) == ["new", "spare"]
        assert value_of(side, STOP) is True
    assert view(site.twin, READING.policies) == view(hub.twin, READING.policies)
    (conflict,) = view(hub.twin, READING.policies)["conflicts"]
    assert (conflict["policy"], conflict["winner"]["value"]) == ("latch", True)
    hub.edit({}, (), [Latch(STOP, False)], now_ms=5)
    talk(site, hub)
    assert value_of(site, STOP) is False


def test_lives_of_an_edge_leave_one_cell_once_their_parts_are_carried() -> None:
    hub, stored = cloud(), ()
    for life in range(1, 6):
        site = edge(life, stored)
        talk(site, hub)
        done = [Increment(STARTS, life), Alter(ROLES, (life,), (life - 1,))]
        site.edit({}, (), done, now_ms=life, carries=True)
        talk(site, hub)
        stored = (site.stored(),)
    assert value_of(hub, STARTS) == 15
    assert value_of(hub, ROLES) == [5]
    assert list(hub.twin.fields[STARTS]) == ["edge:s:5-x"]
    assert list(hub.twin.fields[ROLES]) == ["edge:s:5-x"]
    # A replica that slept since the second life adds nothing that is counted already.
    old = edge(2, ())
    old.edit({}, (), [Increment(STARTS, 2)], now_ms=2)
    hub.take(message(old.stored()), "s")
    assert value_of(hub, STARTS) == 15


@pytest.mark.parametrize(
    ("sets", "operations", "reason"),
    [
        ({STARTS: 5}, [], "wrong-kind"),
        ({STOP: True}, [], "wrong-kind"),
        ({}, [Increment("desired.speed")], "wrong-kind"),
        ({}, [Latch(ROLES, True)], "wrong-kind"),
        ({}, [Increment(STARTS, 2**63)], "integer-too-big"),
        ({}, [Increment(STARTS, 2**63 - 1)], "integer-too-big"),
        ({}, [Alter(ROLES, (["x"],))], "bad-type"),
        ({}, [Alter(ROLES, (float("nan"),))], "not-finite"),
        ({}, [Alter(ROLES, (1,), (1,))], "contradiction"),
        ({}, [Increment(STARTS), Increment(STARTS)], "contradiction"),
        ({}, [Alter(ROLES, ("x" * 70_000,))], "too-big"),
        ({}, [Take("no such key")], "no-such-conflict"),
        ({"desired.stop.now": 1}, [], "contradiction"),
    ],
)
def test_an_edit_that_a_kind_does_not_know_changes_nothing(
    sets: dict[str, Any], operations: list, reason: str
) -> None:
    site = edge()
    site.edit({}, (), [Increment(STARTS), Latch(STOP, True)], now_ms=1)
    before = site.digest()
    with pytest.raises(EditError) as caught:
        site.edit(sets, (), operations, now_ms=2)
    assert caught.value.reason == reason
    assert site.digest() == before


def test_a_latch_is_never_deleted_and_a_counter_begins_again_at_nothing() -> None:
    site = edge()
    site.edit({}, (), [Increment(STARTS, 7), Latch(STOP, True)], now_ms=1)
    with pytest.raises(EditError, match="released, never deleted"):
        site.edit({}, [STOP], now_ms=2)
    site.edit({}, [STARTS], now_ms=3)
    assert STARTS not in site.twin.read(READING.policies)
    site.edit({}, (), [Increment(STARTS)], now_ms=4)
    assert value_of(site, STARTS) == 1


def test_two_elements_that_python_takes_for_equal_are_two() -> None:
    site = edge()
    site.edit({}, (), [Alter(ROLES, (1, 1.5, True, "1", b"1"))], now_ms=1)
    assert value_of(site, ROLES) == [1, b"1", "1", True, 1.5]


def test_a_change_of_kind_takes_hold_with_the_next_write() -> None:
    old = Replica("edge:s:1-x", Reading())
    old.edit({STARTS: "three"}, (), now_ms=1)
    new = Replica("cloud:0", READING)
    talk(old, new)
    assert value_of(new, STARTS) == "three"
    new.edit({}, (), [Increment(STARTS, 2)], now_ms=2)
    old.edit({STARTS: "four"}, (), now_ms=3)
    talk(old, new)
    for side in (old, new):
        assert value_of(side, STARTS) == 2
        (entry,) = side.twin.ledger.values()
        assert (entry.policy, entry.loser.value) == ("kinds-differ", "four")


MINUTE_MS = 60_000
TEN = 10 * 60 * MINUTE_MS


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        ("latest", 70),
        ("edge-wins", 40),
        ("cloud-wins", 70),
        ("min", 40),
        ("max", 70),
        ("keep-all", [70, 40]),
    ],
)
@pytest.mark.parametrize("north_first", [True, False])
def test_what_each_policy_does_in_the_case_of_three_that_the_documentation_tells(
    policy: str, shown: object, north_first: bool
) -> None:
    reading = Reading(Policies((("desired.limit", policy),)))
    north, south = (Replica(f"edge:{name}:1-x", reading) for name in ("north", "south"))
    hub = Replica("cloud:0", reading)
    hub.edit({"desired.limit": 50}, (), now_ms=TEN - 60 * MINUTE_MS)
    talk(north, hub)
    talk(south, hub)
    north.edit({"desired.limit": 60}, (), now_ms=TEN)
    hub.edit({"desired.limit": 70}, (), now_ms=TEN + MINUTE_MS)
    south.take(message(north.stored()), "north")
    south.edit({"desired.limit": 40}, (), now_ms=TEN - 2 * MINUTE_MS)
    for side in (north, south, north) if north_first else (south, north, south):
        talk(side, hub)
    for side in (north, south, hub):
        assert value_of(side, "desired.limit") == shown
        held = {c.value for c in side.twin.fields["desired.limit"].values()}
        assert held == {70, 40}


def test_a_value_of_five_megabytes_is_refused_by_edit_and_by_wire() -> None:
    site = Replica("edge:s:1-x", Reading(limits=Limits(max_value_bytes=10**7, max_bytes=10**8)))
    site.edit({"desired.a": "x" * 5_000_000}, (), now_ms=1)
    hub = cloud()
    before = hub.digest()
    with pytest.raises(WireError, match="at most 65536 are kept"):
        hub.take(message(site.stored()), "s")
    with pytest.raises(EditError, match="max_value_bytes"):
        hub.edit({"desired.a": "x" * 5_000_000}, (), now_ms=1)
    assert hub.digest() == before


@pytest.mark.parametrize(
    "path",
    ["desired..a", "desired.", "desired.a\x00b", "desired.a\nb", "a.b", "desired", "", "\ud800"],
)
def test_odd_paths_are_refused(path: str) -> None:
    with pytest.raises(EditError, match="bad-path"):
        edge().edit({path: 1}, (), now_ms=1)


@pytest.mark.parametrize("path", ["desired.ä ö/+#", "desired.a@b", "tags.🛑.x"])
def test_paths_of_any_printable_characters_travel(path: str) -> None:
    site, hub = edge(), cloud()
    site.edit({path: 1}, (), now_ms=1)
    talk(site, hub)
    assert value_of(hub, path) == 1


def test_take_the_other_writes_what_was_not_chosen_and_ends_the_conflict() -> None:
    site, hub = edge(), cloud()
    site.edit({"desired.limit": 5}, (), now_ms=1)
    hub.edit({"desired.limit": 6}, (), now_ms=2)
    talk(site, hub)
    assert value_of(site, "desired.limit") == 6
    (key,) = site.twin.ledger
    site.edit({}, (), [Take(key)], now_ms=3)
    talk(site, hub)
    for side in (site, hub):
        assert value_of(side, "desired.limit") == 5
        assert side.twin.read(READING.policies)["desired.limit"].others == ()


def test_a_clock_ten_years_ahead_loses_against_a_sane_one_and_is_reported() -> None:
    ahead = Replica("edge:far:1-x", Reading())
    ahead.edit({"desired.a": "future"}, (), now_ms=10**13)
    sane = Replica("cloud:0", Reading(), clock=lambda: 1_000)
    sane.edit({"desired.a": "now"}, (), now_ms=1_000)
    sane.take(message(ahead.stored()), "far")
    trusted = sane.trusted_until_ms()
    shown = view(sane.twin, Policies(), trusted)
    assert shown["fields"]["desired.a"]["value"] == "now"
    (conflict,) = shown["conflicts"]
    assert conflict["why"].endswith("was too far ahead to be believed")
    assert sane.ahead() == ("desired.a@edge:far:1-x",)
    assert sane.ahead() == ()
    # Alone it stands, and says what is wrong with it.
    alone = Replica("cloud:1", Reading(), [ahead.stored()], lambda: 1_000)
    field = view(alone.twin, Policies(), alone.trusted_until_ms())["fields"]["desired.a"]
    assert (field["value"], field["clock_ahead"]) == ("future", True)


def test_a_field_with_more_writers_than_declared_is_refused_whole() -> None:
    hub = Replica("cloud:0", Reading(limits=Limits(max_actors=3, max_fields=2)))
    for number in range(5):
        site = Replica(f"edge:s{number}:1-x", Reading())
        site.edit({"desired.a": number}, (), now_ms=number)
        if number < 3:
            hub.take(message(site.stored()), "s")
        else:
            with pytest.raises(WireError, match="max_actors"):
                hub.take(message(site.stored()), "s")
    wide = Replica("edge:wide:1-x", Reading(limits=Limits(max_fields=10_000)))
    wide.edit({f"desired.f{n}": n for n in range(10_000)}, (), now_ms=1)
    before = hub.digest()
    with pytest.raises(WireError, match="10001 fields"):
        hub.take(message(wide.stored()), "s")
    assert hub.digest() == before


def test_a_version_vector_forgets_lives_that_ended_long_ago() -> None:
    vector = {f"edge:s:{n}-x": n for n in range(1, 41)} | {"cloud:0": 3, "edge:t:1-x": 1}
    kept = recent(vector, ["edge:s:2-x"])
    lives = sorted(int(a.split(":")[2].split("-")[0]) for a in kept if a.startswith("edge:s"))
    assert lives == [2, *range(25, 41)]
    assert {"cloud:0", "edge:t:1-x"} <= kept.keys()


def _with(content: object, kind: int, **changed: object) -> bytes:
    fields = {"counter": 1, "seen": {}, "hlc": [1, 0], **changed}
    return cbor2.dumps([kind, content, *fields.values()], canonical=True)


@pytest.mark.parametrize(
    "data",
    [
        _with([1, -1], 1),
        _with([1], 1),
        _with([1, 2.5], 1),
        _with([1, 2, {"edge:a:1": [1, 2]}], 1),
        _with([1, 2, {}], 1),
        _with([1, 2, {"edge:a:1": [1]}], 1, seen={"edge:a:1": 1}),
        _with([2**64, 0], 1),
        _with([[["b", 1], ["a", 1]], []], 2),
        _with([[["a", 1], ["a", 2]], []], 2),
        _with([[["a", -1]], []], 2),
        _with([[[None, 1]], []], 2),
        _with([[["a", 1, 2]], []], 2),
        _with([[], {}], 2),
        _with([{}, []], 2),
        _with([[], [["x", {}]]], 2),
        _with([[], [["x", {"e": -1}]]], 2),
        _with([[], [["x", {"": 1}]]], 2),
        _with([[], [["x", {1: 1}]]], 2),
        _with([[], [["x", 1]]], 2),
        _with([[], [["x"]]], 2),
        _with([1, {}], 3),
        _with([True], 3),
        _with([True, {"x": -1}], 3),
        _with([True, {}], 4),
        _with([1], 0, seen={f"a{n}": 1 for n in range(2_000)}),
        _with([1], 0, hlc=[2**70, 0]),
        _with([float("nan")], 0),
        _with([2**64], 0),
        _with([1], 0, counter=True),
        b"",
        b"\xff" * 40,
    ],
)
def test_bytes_that_are_no_cell_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode("desired.a@edge:s:1-x", data, 65_536)


def test_every_flipped_byte_of_every_kind_is_refused_or_a_cell_with_just_those_bytes() -> None:
    site = edge()
    everything = [Increment(STARTS, 3), Alter(ROLES, ("a", 2)), Latch(STOP, True)]
    site.edit({"desired.speed": 40}, (), everything, now_ms=5)
    site.edit({}, (), [Alter(ROLES, (), ("a",)), Latch(STOP, False)], now_ms=6)
    for name, data in site.encoded()[0]:
        for position in range(len(data)):
            for bit in range(8):
                damaged = bytearray(data)
                damaged[position] ^= 1 << bit
                try:
                    found = decode(name, bytes(damaged), 65_536)
                except WireError:
                    continue
                assert found.encode() == damaged


def test_a_register_cell_has_the_bytes_it_had_before_there_were_kinds() -> None:
    cell = Cell("desired.a", "edge:s:1", 3, {"cloud:0": 2}, Hlc(5, 1), 7)
    assert cell.encode() == cbor2.dumps([0, [7], 3, {"cloud:0": 2}, [5, 1]], canonical=True)


def test_what_one_carrier_of_a_part_knows_to_be_over_does_not_come_back_with_another() -> None:
    # Whoever removed "a" saw that it is listed no more, and remembers the removal no more.
    part = {key: cbor.dumps(key) for key in ("a", "b")}
    whole = Dots({part["a"]: 3, part["b"]: 2})
    trimmed = Dots({part["b"]: 2})
    ended = "edge:north:1-x"
    cells = [
        Cell("tags.roles", f"edge:north:{life}-x", 1, {ended: 5}, Hlc(1, 0), kind=SET,
             state=Dots(), carried={ended: found})
        for life, found in ((2, whole), (3, trimmed))
    ]  # fmt: skip
    assert members(cells) == members(cells[::-1]) == ["b"]
