"""The cloud's twins in the driver: a crash anywhere changes nothing, an edge meets them."""

from __future__ import annotations

import random

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.core.messages import decode_batch, decode_message
from crdt.core.sync import Session
from crdt.replica import Replica
from streams.adapters.twin_records import compact_record, edit_record, reading_of, sync_record
from streams.agents.twins import TwinLogic, make_twins
from streams.ports import Produce
from streams.settings import Settings
from streams.testing import Driver

SETTINGS = Settings(
    twins={"paths": [{"path": "desired.limit*", "policy": "edge-wins"}], "max_live": 1}
)
READING = reading_of(SETTINGS.twins)
DEVICES = ("pump-1", "pump-2")


class Site:
    """An edge: replicas of the devices, and the sync records it would publish."""

    def __init__(self, life: int = 1, stored: dict[str, bytes] | None = None) -> None:
        self.life = life
        self.replicas = {
            device: Replica(
                f"edge:north:{life}", READING, [stored[device]] if stored else (), lambda: 5_000
            )
            for device in DEVICES
        }
        self.sessions = {device: Session("cloud") for device in DEVICES}

    def reborn(self) -> Site:
        return Site(self.life + 1, {d: r.stored() for d, r in self.replicas.items()})

    def hellos(self) -> list[Produce]:
        return [self._up(d, s.hello(self.replicas[d], want=True)) for d, s in self.sessions.items()]

    def edit(self, device: str, path: str, value: int, now_ms: int) -> list[Produce]:
        self.replicas[device].edit({path: value}, (), now_ms=now_ms)
        pending = self.sessions[device].pending(self.replicas[device])
        return [self._up(device, message) for message in pending]

    def compact(self, device: str) -> list[Produce]:
        self.replicas[device].compact(f"site{self.life}")
        pending = self.sessions[device].pending(self.replicas[device])
        return [self._up(device, message) for message in pending]

    def hear(self, down: bytes) -> list[Produce]:
        answers = []
        for device, data in decode_batch(down):
            session, replica = self.sessions[device], self.replicas[device]
            found = session.receive(decode_message(data), replica)
            answers += [self._up(device, message) for message in found]
        return answers

    def _up(self, device, message) -> Produce:
        return sync_record("t", "north", device, message.encode(), 1)


class Meeting:
    """A site and the cloud, joined by lists that lose, double and reorder what they are told to."""

    def __init__(self, seed: int) -> None:
        self.site = Site()
        self.cloud = Driver(make_twins(SETTINGS))
        self.wild = random.Random(seed)
        self.up: list[Produce] = []
        self.told = 0
        self.now_ms = 1_000

    def carry(self, *, wild: bool) -> bool:
        """Carry what is on its way in both directions; say whether there was anything."""
        up, self.up = self._through(self.up, wild), []
        for record in up:
            self.append(record)
        self.cloud.run()
        made = [p.value for p in self.cloud.output if p.topic == "twin.down" and p.value]
        down, self.told = self._through(made[self.told :], wild), len(made)
        for envelope in down:
            self.up += self.site.hear(envelope)
        return bool(up or down)

    def append(self, record: Produce) -> None:
        self.now_ms += 1
        self.cloud.append(record.value, at_ms=self.now_ms, key=record.key, headers=record.headers)

    def settle(self) -> None:
        for _ in range(2):
            self.up += self.site.hellos()
            for _ in range(100):
                if not self.carry(wild=False):
                    break
            else:
                raise AssertionError("the conversation does not end")

    def states(self) -> dict[str, dict]:
        values = [orjson.loads(value) for value in self.cloud.values("twin.state")]
        return {value["device"]: value for value in values}

    def _through(self, items: list, wild: bool) -> list:
        if not wild:
            return items
        items = [item for item in items for _ in range(self.wild.choice((0, 1, 1, 2)))]
        self.wild.shuffle(items)
        return items


devices = st.sampled_from(DEVICES)
paths = st.sampled_from(["desired.limit", "desired.speed", "tags.room"])
steps = st.one_of(
    st.tuples(st.just("edge"), devices, paths, st.integers(0, 9), st.integers(0, 10**6)),
    st.tuples(st.just("cloud"), devices, paths, st.integers(0, 9)),
    st.tuples(st.just("edge compacts"), devices),
    st.tuples(st.just("cloud compacts"), devices),
    st.tuples(st.just("carry")),
    st.tuples(st.just("hello")),
    st.tuples(st.just("reborn")),
    st.tuples(st.just("crash")),
    st.tuples(st.just("checkpoint"), st.integers(1, 2)),
)


@settings(max_examples=150)
@given(st.lists(steps, max_size=30), st.integers(0, 2**32))
def test_edge_and_cloud_agree_after_any_cut_crash_and_restart(history: list, seed: int) -> None:
    meeting = Meeting(seed)
    for step in history:
        match step:
            case ("edge", device, path, value, now_ms):
                meeting.up += meeting.site.edit(device, path, value, now_ms)
            case ("cloud", device, path, value):
                meeting.append(edit_record("t", device, {path: value}, 1))
            case ("edge compacts", device):
                meeting.up += meeting.site.compact(device)
            case ("cloud compacts", device):
                meeting.append(compact_record("t", device, 1))
            case ("carry",):
                meeting.carry(wild=True)
            case ("hello",):
                meeting.up += meeting.site.hellos()
            case ("reborn",):
                meeting.site = meeting.site.reborn()
            case ("crash",):
                meeting.cloud.crash()
            case ("checkpoint", keys):
                meeting.cloud.checkpoint(keys)
    meeting.settle()
    states = meeting.states()
    for device, replica in meeting.site.replicas.items():
        if not replica.twin.fields:
            continue
        assert states[device]["digest"] == replica.twin.digest()
        assert states[device]["ledger_digest"] == replica.twin.ledger_digest()
        # Whose clock is believed depends on the reader's own: here the time of the cloud.
        trusted_until_ms = states[device]["updated_ms"] + READING.skew_ms
        found = replica.twin.read(READING.policies, trusted_until_ms)
        read = {path: r.value for path, r in found.items()}
        assert {p: f["value"] for p, f in states[device]["fields"].items()} == read


@settings(max_examples=100)
@given(st.data())
def test_a_crash_anywhere_and_any_batching_leave_the_same_twins(data: st.DataObject) -> None:
    meeting = Meeting(0)
    for step in data.draw(st.lists(steps, max_size=20)):
        match step:
            case ("edge", device, path, value, now_ms):
                meeting.up += meeting.site.edit(device, path, value, now_ms)
            case ("cloud", device, path, value):
                meeting.append(edit_record("t", device, {path: value}, 1))
            case ("edge compacts", device):
                meeting.up += meeting.site.compact(device)
            case ("cloud compacts", device):
                meeting.append(compact_record("t", device, 1))
            case ("carry",) | ("checkpoint", _) | ("crash",):
                meeting.carry(wild=False)
            case _:
                meeting.up += meeting.site.hellos()
    calm = meeting.cloud
    calm.run()
    torn = Driver(make_twins(SETTINGS))
    torn.log = list(calm.log)
    for _ in range(data.draw(st.integers(0, 12))):
        match data.draw(st.sampled_from(["step", "step", "checkpoint", "crash"])):
            case "step":
                torn.step(data.draw(st.integers(1, 5)))
            case "checkpoint":
                torn.checkpoint(data.draw(st.integers(1, 2)))
            case "crash":
                torn.crash()
    torn.run()
    assert final_states(torn) == final_states(calm)
    assert sync_states(torn) == sync_states(calm)


def final_states(driver: Driver) -> dict[str, dict]:
    return {s["device"]: s for s in map(orjson.loads, driver.values("twin.state"))}


def sync_states(driver: Driver) -> dict[str, tuple]:
    """What the logic would tell each site next."""
    assert isinstance(driver.logic, TwinLogic)
    found = {}
    for device in DEVICES:
        key = f"t/{device}"
        if key in final_states_keys(driver):
            twin = driver.logic.device(key)
            found[key] = (
                twin.replica.digest(),
                twin.replica.outbox.seq,
                [(s.peer, s.incarnation, s.applied, s.acked) for s in twin.sessions.values()],
            )
    return found


def final_states_keys(driver: Driver) -> set[str]:
    return {f"t/{device}" for device in final_states(driver)}
