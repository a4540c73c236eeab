"""Commands over a bad network: each ends once, is done at most once, and what is said is so."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from crdt.command_log import CommandLog
from crdt.core.commands.model import Command, CommandError, State
from crdt.core.commands.tray import Instant, Stage
from crdt.core.messages import encode_batch
from edge.commands import CommandDesk
from streams.adapters.command_records import (
    cancel_record,
    limits_of,
    send_record,
)
from streams.agents.commands import make_commands
from streams.gateway.link import Delivery
from streams.gateway.twin_bridge import down_batches, up_records
from streams.ports import Produce
from streams.settings import Settings
from streams.testing import Driver

SETTINGS = Settings(
    topics={"partitions": 1},
    commands={"max_open": 4, "retention_ms": 200_000, "max_remembered": 1_000},
)
DEVICES = ("pump-1", "pump-2")
TTL_MS = 30_000


class Record:
    """A record as the bridge gets it from Kafka."""

    def __init__(self, produce: Produce) -> None:
        self.headers, self.value = list(produce.headers.items()), produce.value


class World:
    """A cloud, an edge with two devices, and a network that loses, doubles and delays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_ms = 1_000_000
        self.boot = 1
        self.booted_ms = 0
        self.cloud = Driver(make_commands(SETTINGS))
        self.told = 0
        self.up: list[bytes] = []
        self.down: list[bytes] = []
        self.done: dict[str, int] = {}
        """When each command was begun by a device."""
        self.doing: dict[str, str] = {}
        self.ids = 0
        self.issued: set[str] = set()
        self.desk = self.open()

    def open(self) -> CommandDesk:
        log = CommandLog(self.folder / "commands.db", SETTINGS.commands.max_remembered)
        limits = limits_of(SETTINGS.commands)
        desk = CommandDesk(log, "north", limits, self.clock, SETTINGS.topics.partitions)
        desk.send = self.up.append
        return desk

    def clock(self) -> Instant:
        return Instant(f"boot{self.boot}", self.now_ms - self.booted_ms)

    def append(self, record: Produce) -> None:
        if record.topic == "commands":
            self.cloud.append(
                record.value, at_ms=self.now_ms, key=record.key, headers=record.headers
            )

    # -- what happens -------------------------------------------------------------------------

    def send(self, device: str, ttl_ms: int = TTL_MS) -> None:
        self.ids += 1
        command = Command(f"c{self.ids}", "go", {"n": self.ids}, ttl_ms, "north", "cloud")
        self.issued.add(command.id)
        for _ in range(1 + self.ids % 2):  # some are sent twice
            self.append(send_record("t", device, command, 1))

    def issue(self, device: str) -> None:
        self.ids += 1
        command = Command(f"e{self.ids}", "go", None, TTL_MS, "north", "edge:north")
        try:
            self.desk.issue(device, command)
        except CommandError as error:
            assert error.reason == "too-many-open"
        else:
            self.issued.add(command.id)

    def cancel(self, number: int) -> None:
        known = sorted(self.issued)
        if known:
            for device in DEVICES:
                self.append(cancel_record("t", device, known[number % len(known)], 1))

    def work(self, device: str) -> None:
        held = self.desk.take(device)
        if held is not None:
            assert held.command.id not in self.done
            self.done[held.command.id] = self.now_ms
            self.doing[held.command.id] = device

    def finish(self, number: int) -> None:
        if not self.doing:
            return
        id_ = sorted(self.doing)[number % len(self.doing)]
        device = self.doing.pop(id_)
        try:
            self.desk.finish(device, id_, State.DONE, "", {"at": self.now_ms})
        except CommandError as error:
            assert error.reason == "already-ended"

    def carry_up(self, *, lose: bool = False, twice: bool = False, last: bool = False) -> None:
        if not self.up:
            return
        envelope = self.up.pop(-1 if last else 0)
        for _ in range(0 if lose else 1 + twice):
            delivery = Delivery("hw/v1/t/north/cmd/status", envelope, 1, 1, 0)
            for record in up_records(delivery, SETTINGS):
                self.append(record)

    def carry_down(self, *, lose: bool = False, twice: bool = False, last: bool = False) -> None:
        self.fold()
        if not self.down:
            return
        envelope = self.down.pop(-1 if last else 0)
        for _ in range(0 if lose else 1 + twice):
            self.desk.hear(envelope)

    def fold(self) -> None:
        self.cloud.run()
        fresh = self.cloud.records("commands.down")[self.told :]
        self.told += len(fresh)
        self.down += [
            encode_batch(parts) for _, _, parts in down_batches([Record(r) for r in fresh])
        ]

    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.cloud.tick(at_ms=self.now_ms)
        self.desk.pass_time()

    def kill_edge(self, *, reboot: bool) -> None:
        self.desk.close()
        self.doing.clear()
        self.up.clear()
        if reboot:
            self.boot, self.booted_ms = self.boot + 1, self.now_ms - 5
        self.desk = self.open()

    def crash_cloud(self) -> None:
        self.cloud.crash()

    def call(self) -> None:
        self.desk.call()

    def settle(self) -> None:
        """Let all talk, and time pass until nobody waits for anything."""
        for _ in range(12):
            self.desk.call()
            while self.up or self.down or self.told < len(self.cloud.records("commands.down")):
                while self.up:
                    self.carry_up()
                self.carry_down()
            self.wait(40_000)

    # -- what must hold -----------------------------------------------------------------------

    def statuses(self) -> dict[str, dict[int, dict]]:
        """All statuses by id and number: what is told again is the same."""
        found: dict[str, dict[int, dict]] = {}
        for record in self.cloud.records("commands.status"):
            status = orjson.loads(record.value)
            known = found.setdefault(status["id"], {}).setdefault(status["number"], status)
            assert known == status
        return found

    def check(self) -> None:
        found = self.statuses()
        assert set(found) == self.issued
        for id_, by_number in found.items():
            assert sorted(by_number) == list(range(1, len(by_number) + 1))
            ends = [s for s in by_number.values() if s["ended"]]
            assert len(ends) == 1, (id_, by_number)
            assert ends[0]["number"] == len(by_number)
            state = ends[0]["state"]
            if state in ("expired", "cancelled", "refused"):
                assert id_ not in self.done, (state, by_number)
            if state == "done":
                assert id_ in self.done
            if id_ in self.done and id_.startswith("c"):
                assert self.done[id_] < by_number[1]["deadline_ms"]
        stages = self.desk.status()
        assert sum(stages.values()) == stages[str(Stage.CLOSED)]


def play(seed: int, folder: Path) -> Counter[str]:
    """Play a world of 200 random steps and check it; return how often each status was told."""
    rnd = random.Random(seed)
    world = World(folder)

    def how() -> dict[str, bool]:
        chances = {"lose": 0.2, "twice": 0.3, "last": 0.3}
        return {name: rnd.random() < chance for name, chance in chances.items()}

    steps: list[tuple[int, Callable[[], object]]] = [
        (2, lambda: world.send(rnd.choice(DEVICES))),
        (1, lambda: world.issue(rnd.choice(DEVICES))),
        (5, lambda: world.work(rnd.choice(DEVICES))),
        (1, lambda: world.cancel(rnd.randrange(50))),
        (4, lambda: world.finish(rnd.randrange(50))),
        (6, lambda: world.carry_up(**how())),
        (7, lambda: world.carry_down(**how())),
        (1, world.call),
        (3, lambda: world.wait(rnd.choice((5, 100, 1_000, 20_000)))),
        (1, lambda: rnd.random() < 0.3 and world.kill_edge(reboot=rnd.random() < 0.5)),
        (1, world.cloud.checkpoint),
        (1, world.crash_cloud),
    ]
    weights, doings = zip(*steps, strict=True)
    try:
        for doing in rnd.choices(doings, weights, k=200):
            doing()
        world.settle()
        world.check()
    finally:
        world.desk.close()
    found = [s for by_number in world.statuses().values() for s in by_number.values()]
    return Counter(s["state"] for s in found)


def test_whatever_happens_each_command_ends_once_and_truly(tmp_path: Path) -> None:
    told: Counter[str] = Counter()
    for seed in range(40):
        told += play(seed, tmp_path / str(seed))
    assert set(told) == {str(state) for state in State}


@pytest.mark.long
def test_whatever_happens_at_length(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    for seed in range(1_000, 1_000 + 10 * pytestconfig.getoption("seeds")):
        play(seed, tmp_path / str(seed))
        shutil.rmtree(tmp_path / str(seed))
