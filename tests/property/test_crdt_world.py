"""Hypothesis drives the world that ``headwater torture`` plays; it shrinks what goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from typer.testing import CliRunner

from crdt.core.cells import Cell
from crdt.core.edits import Take
from crdt.core.sums import carrying
from crdt.torture.run import Outcome, play, play_all, replicas_of
from crdt.torture.world import HUB, REGISTERS, ROLES, STARTS, STOP, World, operation
from streams.cli.main import app

HOUR_MS = 3_600_000
names = st.sampled_from([HUB, "s1", "s2", "s3"])
links = st.sampled_from([link for n in ("s1", "s2", "s3") for link in ((HUB, n), (n, HUB))])


class Replicas(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.world = World(3)
        self.tokens = 0

    @rule(name=names, path=st.sampled_from(REGISTERS), value=st.none() | st.integers(0, 9))
    def write(self, name: str, path: str, value: int | None) -> None:
        self.world.edit(name, *(({}, [path]) if value is None else ({path: value}, [])))

    @rule(
        name=names,
        path=st.sampled_from([STARTS, ROLES, STOP]),
        number=st.integers(0, 9),
        other=st.booleans(),
        crash=st.sampled_from([False, False, False, True]),
    )
    def operate(self, name: str, path: str, number: int, other: bool, crash: bool) -> None:
        did = operation(path, number, other=other)
        self.world.edit(name, {}, (), [did], crash_before_disk=crash)

    @rule(name=names, number=st.integers(0, 100))
    def take_the_other(self, name: str, number: int) -> None:
        ledger = sorted(self.world.sides[name].replica.twin.ledger)
        if ledger:
            self.world.edit(name, {}, (), [Take(ledger[number % len(ledger)])])

    @rule(link=links)
    def deliver(self, link: tuple[str, str]) -> None:
        self.world.deliver(link, range(len(self.world.waiting[link])))

    @rule(link=links, order=st.lists(st.integers(0, 9), max_size=8))
    def lose_double_and_reorder(self, link: tuple[str, str], order: list[int]) -> None:
        self.world.deliver(link, order)

    @rule(link=links, position=st.integers(0, 9), byte=st.integers(0), bit=st.integers(0, 7))
    def corrupt(self, link: tuple[str, str], position: int, byte: int, bit: int) -> None:
        self.world.corrupt(link, position, byte, bit)

    @rule(link=links)
    def cut_or_heal(self, link: tuple[str, str]) -> None:
        self.world.toggle(link)

    @rule(name=names)
    def hello(self, name: str) -> None:
        self.world.hello(name)

    @rule(name=names)
    def crash(self, name: str) -> None:
        self.world.crash(name)

    @rule(name=names)
    def back_up(self, name: str) -> None:
        self.world.back_up(name)

    @rule(name=names)
    def restore(self, name: str) -> None:
        self.world.restore(name)

    @rule(name=names, by_ms=st.sampled_from([-HOUR_MS, HOUR_MS, 100_000 * HOUR_MS]))
    def jump(self, name: str, by_ms: int) -> None:
        self.world.jump(name, by_ms)

    @rule(name=names)
    def compact(self, name: str) -> None:
        self.tokens += 1
        self.world.compact(name, f"t{self.tokens}")

    @rule(name=names, version=st.integers(0, 4))
    def change_policies(self, name: str, version: int) -> None:
        self.world.change_policies(name, version)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()
            self.world.check()


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(max_examples=60, stateful_step_count=40)


def test_the_same_seed_gives_the_same_history() -> None:
    histories: list[list[dict]] = [[], []]
    outcomes = [play(11, 4, 100, told.append) for told in histories]
    assert histories[0] == histories[1]
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].edits > 5
    assert {"step", "event", "acknowledged"} <= histories[0][0].keys()
    assert [event["final"] for event in histories[0][100:]] == [HUB, "s1", "s2", "s3"]


def test_a_lost_write_is_found_and_its_seed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetting(cell: Cell, cells: Sequence[Cell]) -> Cell:
        return replace(carrying(cell, cells), carried={})

    monkeypatch.setattr("crdt.core.edits.carrying", forgetting)
    found = [o for o in (play(seed, 3, 200) for seed in range(30, 40)) if o.violation]
    assert found
    assert "the history says" in found[0].violation
    again = CliRunner().invoke(app, ["torture", "--seed", f"{found[0].seed}", "--replicas", "3"])
    assert again.exit_code == 1
    assert found[0].violation in again.output
    assert f"headwater torture --seed {found[0].seed} --replicas 3 --steps 200" in again.output


def test_several_processes_play_the_same_as_one() -> None:
    one, two = (list(play_all(range(7), range(3, 6), 60, jobs)) for jobs in (1, 2))
    assert one == two
    assert [outcome.seed for outcome in one] == list(range(7))
    assert replicas_of(4, range(3, 6)) == 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--replicas", "5-3"], "expected a number such as 4, or two such as 3-5"),
        (["--replicas", "1"], "of 2 to 16"),
        (["--jobs", "2", "--history", "out"], "expected one job"),
    ],
)
def test_what_cannot_be_played_is_refused(options: list[str], says: str) -> None:
    found = CliRunner().invoke(app, ["torture", *options])
    assert found.exit_code == 1
    assert says in str(found.exception)


def test_two_docs_that_are_each_written_over_by_the_other_come_to_rest() -> None:
    # A change that one Doc lacks, so that its cell stays hidden there.
    assert play(5226, 3, 200).violation == ""


def test_to_list_no_more_what_another_removed_is_no_removal() -> None:
    # An element that was removed, added again elsewhere, and then dropped by who had it first.
    assert play(1052, 4, 200).violation == ""


def test_who_has_no_life_left_does_not_crash_half() -> None:
    assert play(2634, 3, 200).violation == ""


def test_seeds_hold() -> None:
    for seed in range(15):
        outcome = play(seed, 3 + seed % 3, 120)
        assert outcome.violation == "", outcome


@pytest.mark.long
def test_ten_thousand_seeds_hold(request: pytest.FixtureRequest) -> None:
    broken: list[Outcome] = []
    for seed in range(request.config.getoption("--seeds")):
        outcome = play(seed, 3 + seed % 3, 200)
        if outcome.violation:
            broken.append(outcome)
    assert broken == []
