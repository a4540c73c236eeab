"""Commands at their surfaces: HTTP at edge and cloud, the disk, bad bytes, permissions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import orjson
import pytest
from fastapi import FastAPI

from crdt.command_log import CommandLog
from crdt.core.commands.model import Command, State
from crdt.core.commands.tray import Instant, Stage, decode_held
from crdt.core.commands.wire import (
    Report,
    Standing,
    decode_report,
    decode_standing,
    encode_call,
)
from crdt.core.errors import WireError
from crdt.core.messages import encode_batch
from crdt.sqlite_file import LogError
from edge.command_http import add_commands
from edge.commands import CommandDesk
from streams.adapters.command_records import limits_of, report_record, send_record
from streams.agents.commands import make_commands
from streams.api.command_http import add_commands as add_cloud_commands
from streams.api.command_states import CommandStates
from streams.api.read_model import TwinStates
from streams.errors import StateError
from streams.gateway.link import Delivery
from streams.gateway.twin_bridge import up_records
from streams.pki import Pki
from streams.ports import Produce
from streams.settings import Settings
from streams.testing import Driver

SETTINGS = Settings(topics={"partitions": 1}, commands={"max_open": 2})
LIMITS = limits_of(SETTINGS.commands)
COMMAND = Command("c1", "reboot", {"delay_s": 5}, 60_000, "north", "cloud")
HELD = Standing("c1", State.PENDING, 0, 60_000, command=COMMAND)

# As version 1 was first written; a later version reads it too, or says that it cannot.
BOOK = bytes.fromhex(
    "8301818f626331667265626f6f74a16764656c61795f730519ea60656e6f72746865636c6f75646964656c69"
    "7665726564031903e819ee481909c401f560f681856263326765787069726564001907d050ac22af662ca088"
    "53318b35a46183f4c7"
)
STARTED = bytes.fromhex(
    "91016670756d702d31626331667265626f6f74a16764656c61795f730519ea60656e6f72746865636c6f7564"
    "6773746172746564020164626f6f7419ee48f660f6f4"
)


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = Instant("boot", 1_000)

    def __call__(self) -> Instant:
        return self.now

    def advance(self, ms: int) -> None:
        self.now = Instant(self.now.boot, self.now.ms + ms)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def open_desk(folder: Path, clock: Clock) -> CommandDesk:
    return CommandDesk(CommandLog(folder / "commands.db", 10), "north", LIMITS, clock, 1)


@pytest.fixture
def desk(tmp_path: Path, clock: Clock) -> Iterator[CommandDesk]:
    found = open_desk(tmp_path, clock)
    yield found
    found.close()


def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://edge")


def permit(desk: CommandDesk, clock: Clock, remaining_ms: int = 60_000) -> None:
    """Let the cloud offer a command and say that it knows of the delivery."""
    desk.hear(encode_batch([("pump-1", HELD.encode())]))
    known = Standing("c1", State.DELIVERED, 1, remaining_ms, echo=clock().echo())
    desk.hear(encode_batch([("pump-1", known.encode())]))


async def test_a_device_waits_for_a_command_takes_it_and_says_how_it_ended(
    desk: CommandDesk, clock: Clock
) -> None:
    app = FastAPI()
    add_commands(app, desk, "north", SETTINGS.commands)
    base = "/v1/devices/pump-1/commands"
    async with client(app) as http:
        assert (await http.post(f"{base}/next")).status_code == 204
        waiting = asyncio.create_task(http.post(f"{base}/next", params={"wait_ms": 30_000}))
        await asyncio.sleep(0)
        desk.hear(encode_batch([("pump-1", HELD.encode())]))
        assert (await http.get(f"{base}/c1")).json()["state"] == "waiting"
        permit(desk, clock)
        taken = (await waiting).json()
        assert (taken["id"], taken["name"], taken["args"]) == ("c1", "reboot", {"delay_s": 5})
        assert (await http.post(f"{base}/next")).status_code == 204
        done = {"state": "done", "result": [1]}
        for _ in range(2):
            assert (await http.post(f"{base}/c1/report", json=done)).status_code == 200
        answer = await http.post(f"{base}/c1/report", json={"state": "failed"})
        assert (answer.status_code, answer.json()["detail"]["reason"]) == (409, "already-ended")
        assert (await http.post(f"{base}/c9/report", json=done)).status_code == 404
        assert (await http.post(f"{base}/c9/cancel")).status_code == 404
        (shown,) = (await http.get(base)).json()
        assert (shown["state"], shown["result"], shown["reported"]) == ("done", [1], False)


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (b"{", 422, "malformed-json"),
        (b"[]", 422, "malformed-json"),
        (b"{}", 422, "bad-name"),
        (b'{"name": "a/b"}', 422, "bad-name"),
        (b'{"name": 1}', 422, "bad-name"),
        (b'{"name": "a", "why": 1}', 422, "bad-command"),
        (b'{"name": "a", "ttl_ms": 0}', 422, "bad-ttl"),
        (b'{"name": "a", "ttl_ms": true}', 422, "bad-ttl"),
        (b'{"name": "a", "args": 18446744073709551615}', 422, "bad-value"),
        (b'{"name": "a", "args": "' + b"x" * 20_000 + b'"}', 422, "too-big"),
        (b'{"name": "a", "args": ' + b"[" * 20 + b"]" * 20 + b"}", 422, "too-deep"),
        (b'{"name": "a", "id": ""}', 422, "bad-id"),
    ],
)
async def test_edge_and_cloud_refuse_a_bad_command_with_the_same_reason(
    desk: CommandDesk, body: bytes, code: int, reason: str
) -> None:
    written: list[Produce] = []

    async def write(record: Produce) -> tuple[int, int]:
        written.append(record)
        return 0, 0

    edge, cloud = FastAPI(), FastAPI()
    add_commands(edge, desk, "north", SETTINGS.commands)
    twins = TwinStates("nowhere:1", 1)
    known = b'{"sites":["north"],"offset":1,"updated_ms":1}'
    twins.take(type("Record", (), {"key": b"default/pump-1", "value": known}))
    states = CommandStates("nowhere:1", 1, 10)
    add_cloud_commands(cloud, states, twins, write, partitions=1, settings=SETTINGS.commands)
    for app in (edge, cloud):
        async with client(app) as http:
            answer = await http.post("/v1/devices/pump-1/commands", content=body)
        assert answer.status_code == code, answer.text
        assert answer.json()["detail"]["reason"] == reason
    assert written == []
    assert desk.commands("pump-1") == []
    async with client(cloud) as http:
        good = {"name": "reboot", "id": "c1"}
        lost = await http.post("/v1/devices/pump-2/commands", json=good)
        assert lost.json()["detail"]["reason"] == "bad-site"
        sent = await http.post("/v1/devices/pump-1/commands", json=good)
        assert (sent.status_code, sent.json()["site"], len(written)) == (202, "north", 1)


def test_the_edge_starts_nothing_that_the_disk_or_the_cloud_does_not_know(
    tmp_path: Path, clock: Clock
) -> None:
    desk = open_desk(tmp_path, clock)
    desk.hear(encode_batch([("pump-1", HELD.encode())]))
    assert desk.take("pump-1") is None
    permit(desk, clock)
    desk.close()
    again = open_desk(tmp_path, clock)
    assert again.take("pump-1") is not None
    again.close()
    after = open_desk(tmp_path, clock)
    assert after.take("pump-1") is None
    (shown,) = after.commands("pump-1")
    assert (shown["state"], shown["reason"]) == ("failed", "interrupted")
    with pytest.raises(LogError, match="locked"):
        open_desk(tmp_path, clock)
    after.close()


def test_a_deadline_counts_from_the_question_and_not_by_another_boot(
    tmp_path: Path, clock: Clock
) -> None:
    desk = open_desk(tmp_path, clock)
    desk.hear(encode_batch([("pump-1", HELD.encode())]))
    asked = clock().echo()
    clock.advance(40_000)
    slow = Standing("c1", State.DELIVERED, 1, 50_000, echo=asked)
    desk.hear(encode_batch([("pump-1", slow.encode())]))
    clock.advance(9_999)
    desk.close()
    clock.now = Instant("another", 5)
    desk = open_desk(tmp_path, clock)
    assert desk.take("pump-1") is None
    desk.hear(encode_batch([("pump-1", slow.encode())]))
    assert desk.take("pump-1") is None
    fresh = Standing("c1", State.DELIVERED, 1, 1, echo=clock().echo())
    desk.hear(encode_batch([("pump-1", fresh.encode())]))
    clock.advance(1)
    assert desk.take("pump-1") is None
    (shown,) = desk.commands("pump-1")
    assert shown["state"] == "expired"
    desk.close()


def test_an_edge_that_lost_its_disk_says_so_and_does_nothing_twice(
    desk: CommandDesk, clock: Clock
) -> None:
    known = Standing("c1", State.DELIVERED, 1, 60_000, echo=clock().echo(), command=COMMAND)
    desk.hear(encode_batch([("pump-1", known.encode())]))
    assert desk.take("pump-1") is None
    (shown,) = desk.commands("pump-1")
    assert (shown["state"], shown["reason"]) == ("failed", "forgotten")


def test_every_flipped_byte_of_a_message_is_refused_or_another_message() -> None:
    own = Command("e1", "go", [1.5, None], 5, "north", "edge:north")
    report = Report("e1", 1, State.DELIVERED, "why", {"a": [True]}, "b:1", 5, own).encode()
    assert decode_report(report, "north", LIMITS).encode() == report
    standing = HELD.encode()
    assert decode_standing(standing, "north", LIMITS).encode() == standing
    pairs = ((report, decode_report), (standing, decode_standing))
    for whole, decode in pairs:
        for position in range(len(whole)):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << position % 8
            for bad in (bytes(damaged), whole[:position]):
                try:
                    found = decode(bad, "north", LIMITS)
                except WireError:
                    continue
                assert found.encode() == bad


def test_what_an_edge_may_not_say_changes_nothing_and_is_put_aside(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    now = datetime(2026, 11, 1, tzinfo=UTC)
    pki.init(["localhost"], now)
    pki.issue("t", "north", now)
    pki.issue("t", "south", now, devices=["fan-*"])
    driver = Driver(make_commands(Settings(twins={"registry": pki.registry})))

    def append(record: Produce) -> None:
        driver.append(record.value, at_ms=1_000, key=record.key, headers=record.headers)

    append(send_record("t", "pump-1", COMMAND, 1))
    forged = Command("e1", "go", None, 5, "south", "edge:north")
    done = Report("c1", 1, State.DONE).encode()
    cases = [
        ("south", "pump-1", done, "not-permitted"),
        ("west", "pump-1", done, "unknown-key"),
        ("south", "fan-1", Report("e1", 1, State.DONE, command=forged).encode(), "forged-origin"),
        ("north", "pump-1", b"\x80", "bad-message"),
        ("north", "pump-1", Report("c1", 1, State.DONE).encode()[:-1], "malformed-cbor"),
    ]
    for site, device, data, _ in cases:
        append(report_record("t", site, device, data, 1))
    driver.run()
    found = [dict(r.headers)["hw-reason"].decode() for r in driver.records("rejected")]
    assert found == [reason for *_, reason in cases]
    (status,) = driver.records("commands.status")
    assert orjson.loads(status.value)["state"] == "pending"


def test_the_bridge_puts_aside_what_names_no_partition() -> None:
    call = encode_batch([("\x00open/7", encode_call("b:1"))])
    (record,) = up_records(Delivery("hw/v1/t/north/cmd/status", call, 1, 1, 0), SETTINGS)
    assert (record.topic, record.headers["hw-reason"]) == ("rejected", b"bad-call")


async def test_who_watches_gets_each_status_once_though_the_log_repeats_it() -> None:
    driver = Driver(make_commands(SETTINGS))
    record = send_record("t", "pump-1", COMMAND, 1)
    driver.append(record.value, at_ms=1_000, key=record.key, headers=record.headers)
    driver.tick(at_ms=100_000)
    driver.run()
    states = CommandStates("nowhere:1", 1, 10)
    told = [r.value for r in driver.records("commands.status")]
    watching = states.watch("t", "pump-1")
    first = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0)
    for value in (told[0], *told):
        states.take(type("Record", (), {"value": value}))
    states.taken()
    assert (await first)["state"] == "expired"
    assert [s["state"] for s in states.statuses("t", "pump-1", "c1")] == ["pending", "expired"]
    await watching.aclose()


def test_stored_commands_of_version_1_are_read_and_gone_on_with() -> None:
    driver = Driver(make_commands(SETTINGS))
    driver.logic.restore("t/pump-1", 0, BOOK)
    driver.append(None, at_ms=1, key=b"t/none")  # what the state has folded already
    done = report_record("t", "north", "pump-1", Report("c1", 3, State.DONE).encode(), 1)
    driver.append(done.value, at_ms=3_000, key=done.key, headers=done.headers)
    again = send_record("t", "pump-1", Command("c2", "blink", None, 500, "north", "cloud"), 1)
    driver.append(again.value, at_ms=3_000, key=again.key, headers=again.headers)
    driver.run()
    (told,) = [orjson.loads(r.value) for r in driver.records("commands.status")]
    assert (told["id"], told["number"], told["state"]) == ("c1", 4, "done")
    held = decode_held(STARTED)
    assert (held.command, held.stage, held.encode()) == (COMMAND, Stage.STARTED, STARTED)
    for damaged in (BOOK[:-1], b"\x83\x02\x80\x80"):
        with pytest.raises(StateError, match=r"upgrading\.md"):
            driver.logic.restore("t/pump-1", 0, damaged)
