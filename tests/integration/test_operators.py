"""What operators type at a running system: quarantine, redrive, explain, replay, audit."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import uuid
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet
import pytest
from aiokafka import AIOKafkaProducer

from streams import lake
from streams.adapters import frames
from streams.errors import HeadwaterError
from streams.explain import explain
from streams.recovery import run as recovery
from streams.recovery.held import Held, Selection
from streams.recovery.ledger import ABANDONED_MS, Action, State
from streams.services import supervisor
from tests.integration.plant import all_told, balanced, start_plant
from tests.waiting import PATIENCE_S, eventually

HOUR_MS = 3_600_000
SKEW_MS = 60_000
"""Of the plant."""


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    state = tmp_path_factory.mktemp("plant")
    running = start_plant(state)
    yield running
    running.end()
    supervisor.down(state / "servers")


def unique(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:6]}"


def start_ms():
    """The start of a window a while ago."""
    return (time.time_ns() // 1_000_000 - 600_000) // 10_000 * 10_000


def message(t_ms, value, seq=None):
    number = {} if seq is None else {"boot": 7, "seq": seq}
    return {"t_ms": t_ms, "m": value, **number}


def held(plant, topic, device, n=1):
    return eventually(
        lambda: len(found := plant.records(topic, device)) >= n and found,
        every_s=0.3,
        what=f"{device} in {topic}",
    )


def explained(plant, device, at_ms, count):
    """What ``explain`` says of a window, once its result counts so many."""
    settings = plant.settings()

    def probe():
        with suppress(HeadwaterError):
            found = asyncio.run(explain(settings, ("default", device, "m"), at_ms))
            return found.current and found.current["count"] == count
        return False

    eventually(probe, every_s=0.2, what=f"{device} counts {count}")
    return plant.ask("explain", device, "m", at_ms)


def test_a_quarantined_reading_is_released_with_its_time_corrected_and_counted_once(plant):
    device, at = unique("ahead"), start_ms()
    plant.publish(
        device, message(at, 1.0, 0), message(at + HOUR_MS, 2.0, 1), message(at + 2_000, 4.0, 2)
    )
    held(plant, "quarantine", device)
    (case,) = plant.ask("quarantine", "list", "--device", device)
    assert (case["state"], case["reason"], case["value"]) == ("waiting", "clock-ahead", 2.0)
    assert case["t_ms"] == at + HOUR_MS

    as_it_is = plant.ask("quarantine", "release", "--device", device, "--yes")
    assert (as_it_is["can_go"], as_it_is["done"]) == (0, 0)
    assert "ahead of its receipt" in as_it_is["records"][0]["why_not"]
    release = ("quarantine", "release", "--device", device, "--shift-ms", 1_000 - HOUR_MS)
    tried = plant.ask(*release)
    assert (tried["dry_run"], tried["can_go"], tried["done"]) == (True, 1, 0)
    done = plant.ask(*release, "--yes")
    assert (done["dry_run"], done["done"], done["readings"]) == (False, 1, 1)
    again = plant.ask(*release, "--yes")
    assert (again["selected"], again["done"]) == (0, 0)
    (case,) = plant.ask("quarantine", "list", "--device", device, "--all")
    assert case["state"] == "released"

    found = explained(plant, device, at, 3)
    assert found["holds"]
    assert found["compared"] == dict.fromkeys(("count", "sum", "min", "max"), "equal")
    assert sorted(row["t_ms"] for row in found["inside"]) == [at, at + 1_000, at + 2_000]
    ahead = plant.ask("explain", device, "m", at + HOUR_MS)
    assert [row["class"] for row in ahead["left_out"]] == ["quarantined"]
    assert ahead["left_out"][0]["reason"] == "clock-ahead"


def put_ahead(plant):
    """Send a reading that is just too far ahead for now; return its device and its time."""
    while True:
        device, at = unique("soon"), time.time_ns() // 1_000_000 + SKEW_MS + 2_000
        plant.publish(device, message(at, 5.0))
        (received_ms,) = eventually(lambda device=device: received(plant, device))
        # A machine that is busy for two seconds takes it for one in time.
        if received_ms + SKEW_MS < at:
            return device, at


def received(plant, device):
    """When the readings of a device came, as the log says."""
    frames_of = [frames.decode(r.value) for r in plant.records("readings") if r.value]
    return [
        int(r.received_ms[i]) for r in frames_of for i in range(len(r)) if r.device[i] == device
    ]


def test_a_reading_is_released_as_it_is_once_its_time_has_come(plant):
    device, at = put_ahead(plant)
    held(plant, "quarantine", device)
    release = ("quarantine", "release", "--device", device, "--yes")
    eventually(lambda: plant.ask(*release)["done"], every_s=0.5)
    explained(plant, device, at, 1)


def test_what_was_dropped_is_neither_listed_nor_released(plant):
    device = unique("dropped")
    plant.publish(device, message(start_ms() + HOUR_MS, 2.0, 0))
    held(plant, "quarantine", device)
    assert "nothing was changed" in plant.run("quarantine", "drop", "--device", device)
    assert "done: 1 records" in plant.run("quarantine", "drop", "--device", device, "--yes")
    assert "nothing that is meant" in plant.run("quarantine", "list", "--device", device)
    release = plant.ask("quarantine", "release", "--device", device, "--shift-ms=-1", "--yes")
    assert release["selected"] == 0


def test_commands_that_run_at_once_put_a_reading_back_once(plant):
    device, at = unique("raced"), start_ms()
    plant.publish(device, *(message(at + HOUR_MS + i, float(i), i) for i in range(20)))
    held(plant, "quarantine", device, 20)
    # Each with another correction: no rule of the engine would find the two the same.
    racing = [
        plant.command("quarantine", "release", "--device", device, "--shift-ms", n - HOUR_MS,
                      "--yes", "--json")
        for n in (0, 1000, 2000)
    ]  # fmt: skip
    told = [json.loads(child.communicate(timeout=2 * PATIENCE_S)[0]) for child in racing]
    assert sum(one["done"] for one in told) == 20
    assert explained(plant, device, at, 20)["holds"]


def test_a_run_that_died_is_gone_on_with_and_repeats_nothing(plant):
    device, at = unique("died"), start_ms()
    plant.publish(device, *(message(at + HOUR_MS + i, 1.0, i) for i in range(4)))
    held(plant, "quarantine", device, 4)
    settings = plant.settings()
    chosen = Selection(device=device)

    async def half_a_release():
        cases = await recovery.find(settings, "quarantine", chosen)
        judge = recovery.judge_of(settings)
        plans = [judge.release(case.held, -HOUR_MS) for case in cases]
        async with recovery.run_on(settings) as run:
            await run._begin(Action.RELEASE, plans, -HOUR_MS)
            await run.write([r for plan in plans[:2] for r in plan.records])

    async def the_next_one():
        def clock():
            return recovery.now_ms() + ABANDONED_MS

        cases = await recovery.find(settings, "quarantine", chosen, clock=clock)
        assert {case.state for case in cases} == {State.UNFINISHED}
        judge = recovery.judge_of(settings)
        plans = [judge.release(case.held, -HOUR_MS) for case in cases]
        async with recovery.run_on(settings, clock) as run:
            return await run.carry_out(Action.RELEASE, plans, -HOUR_MS)

    asyncio.run(half_a_release())
    (case, *_) = plant.ask("quarantine", "list", "--device", device, "--all")
    assert case["state"] == "under way"
    assert plant.ask("quarantine", "release", "--device", device, "--yes")["selected"] == 0
    done = asyncio.run(the_next_one())
    assert (done.records, done.written_before) == (4, 2)
    assert explained(plant, device, at, 4)["holds"]


def test_what_was_refused_is_decoded_again_after_the_catalogue_was_corrected(plant):
    device, at = unique("refused"), start_ms()
    plant.publish(
        device,
        {"t_ms": at, "state": "open", "boot": 1, "seq": 0},
        b'{"half": ',
        b'{"a": "' + b"x" * 5_000 + b'"}',
    )
    held(plant, "rejected", device, 3)
    redrive = ("redrive", "rejected", "--device", device)
    before = plant.ask(*redrive)
    assert (before["selected"], before["can_go"]) == (3, 0)
    corrected = {"HEADWATER_METRICS": '{"state": {"type": "text"}}'}
    now = plant.ask(*redrive, **corrected)
    assert (now["can_go"], now["readings"]) == (1, 1)
    refused = {r["reason"]: r["why_not"] for r in now["records"] if not r["can_go"]}
    assert "only the first 1,024 of 5,009 bytes were kept" in refused["payload-too-large"]
    assert refused["malformed-json"].startswith("malformed-json")
    assert "1 of 3 can go" in plant.run(*redrive, **corrected)
    assert plant.ask(*redrive, "--yes", **corrected)["done"] == 1
    again = plant.ask(*redrive, "--yes", **corrected)
    assert (again["selected"], again["can_go"]) == (2, 0)
    texts = [
        readings.text
        for record in plant.records("readings")
        if record.value and device in (readings := frames.decode(record.value)).device.values
    ]
    assert texts == [{0: "open"}]


def produce(plant, topic, value, partition=0, headers=()):
    async def go():
        async with AIOKafkaProducer(bootstrap_servers=plant.env["HEADWATER_KAFKA"]) as producer:
            await producer.send_and_wait(topic, value, partition=partition, headers=list(headers))

    asyncio.run(go())


def test_late_readings_are_counted_into_their_windows_by_a_further_revision(plant):
    device, at = unique("late"), start_ms()
    plant.publish(device, message(at, 1.5, 0), message(at + 3_000, 2.5, 1))
    plant.publish(device, message(at + 300_000, 9.0, 2))
    explained(plant, device, at, 2)
    plant.publish(device, message(at + 1_000, 0.1, 3), message(at + 20_000, 7.0, 4))
    held(plant, "late", device, 2)

    redrive = ("redrive", "late", "--device", device)
    tried = plant.ask(*redrive)
    assert (tried["dry_run"], tried["can_go"]) == (True, 2)
    told = {r["start_ms"]: r for r in tried["revisions"]}
    assert (told[at]["rank_before"], told[at]["count_before"]) == (0, 2)
    assert (told[at]["rank"], told[at]["count"]) == (1, 3)
    # No reading in time had ever made this window.
    assert (told[at + 20_000]["rank_before"], told[at + 20_000]["count"]) == (None, 1)
    done = plant.ask(*redrive, "--yes")
    assert done["done"] == 2
    assert plant.ask(*redrive, "--yes")["selected"] == 0

    found = explained(plant, device, at, 3)
    assert found["holds"]
    assert [r["reason"] for r in found["revisions"]][-1] == "redriven"
    assert found["current"]["sum"] == 1.5 + 2.5 + 0.1
    assert [row["is_redriven"] for row in found["inside"]] == [False, False, True]
    assert explained(plant, device, at + 20_000, 1)["holds"]
    mine = next(d for d in balanced(plant)["devices"] if d["device"] == device)
    assert (mine["accepted"], mine["late"]) == (3, 2)


def test_a_run_that_died_while_it_counted_is_gone_on_with_and_counts_nothing_twice(plant):
    device, at = unique("counted"), start_ms()
    plant.publish(device, message(at, 1.0, 0), message(at + 300_000, 9.0, 1))
    explained(plant, device, at, 1)
    plant.publish(device, message(at + 1, 2.0, 2), message(at + 20_000, 3.0, 3))
    held(plant, "late", device, 2)
    settings, chosen = plant.settings(), Selection(device=device)

    async def half_a_count():
        late = [case.held for case in await recovery.find(settings, "late", chosen)]
        async with recovery.run_on(settings) as run:
            await run.take_turn()
            plans, revisions = await recovery.plan_counting(settings, late)
            await run._begin(Action.COUNT, plans, 0)
            await run.write([revisions[0].record])

    async def the_next_one():
        def clock():
            return recovery.now_ms() + ABANDONED_MS

        late = [case.held for case in await recovery.find(settings, "late", chosen, clock=clock)]
        async with recovery.run_on(settings, clock) as run:
            return await run.count(late)

    other = unique("counted")
    plant.publish(other, message(at + 300_000, 9.0, 0), message(at, 1.0, 1))
    held(plant, "late", other)
    asyncio.run(half_a_count())
    told = plant.run("redrive", "late", "--device", other, "--yes", code=2)
    assert "another headwater redrive late is under way" in " ".join(told.split())
    _, revisions, done = asyncio.run(the_next_one())
    assert done.records == 2
    assert [revision.place.start_ms for revision in revisions] == [at + 20_000]
    first = explained(plant, device, at, 2)
    # A device that was silent for a second has told the window as provisional, too.
    assert {row["rank"] for row in first["revisions"]} - {-1} == {0, 1}
    assert first["holds"]
    assert explained(plant, device, at + 20_000, 1)["holds"]


def test_a_window_is_taken_apart_with_its_corrections_and_what_was_left_out(plant):
    device, at = unique("why"), start_ms()
    plant.publish(device, message(at, 1.0, 0), message(at, 1.0, 0), message(at + 1, 3.0, 1))
    plant.publish(device, message(at + 30_000, 0.0, 2), message(at + 2, 5.0, 3))
    found = explained(plant, device, at, 3)
    assert [row["value"] for row in found["inside"]] == [1.0, 3.0, 5.0]
    assert [row["is_correction"] for row in found["inside"]] == [False, False, True]
    assert [row["class"] for row in found["left_out"]] == ["duplicate"]
    assert found["left_out"][0]["detail"] == "known by boot 7, seq 0"
    assert found["current"]["rank"] == 1
    assert found["compared"]["sum"] == "equal"
    page = plant.run("explain", device, "m", at)
    assert "the result is what its readings make" in page
    assert "correction" in page
    assert "neither a reading" in plant.run("explain", device, "other", at, code=2)


@pytest.fixture
def recording(tmp_path):
    at = start_ms()
    rows = {
        "when": [at + i * 1_000 for i in range(6)],
        "machine": [f"m{i % 2}" for i in range(6)],
        "temp": [20.5 + i for i in range(6)],
        "load": list(range(6)),
    }
    table = pa.table(rows)
    pa.parquet.write_table(table, tmp_path / "plant.parquet")
    lines = ["when;machine;temp;load"]
    lines += [f"{a};{b};{c};{d}" for a, b, c, d in zip(*rows.values(), strict=True)]
    (tmp_path / "plant.csv").write_text("\n".join(lines))
    return tmp_path


def replayed(plant, prefix):
    """The replayed readings as they are in the log: (device, metric, t_ms, value)."""
    found = []
    for record in plant.records("readings"):
        if record.value:
            r = frames.decode(record.value)
            found += [
                (r.device[i], r.metric[i], int(r.t_ms[i]), float(r.value[i]))
                for i in range(len(r))
                if r.device[i].startswith(prefix)
            ]
    return found


@pytest.mark.parametrize("name", ["plant.csv", "plant.parquet"])
def test_a_file_is_replayed_with_its_columns_mapped(plant, recording, name):
    run = unique("run")
    said = plant.ask(
        *("replay", recording / name, "--time-column", "when", "--device-column", "machine"),
        *("--values", "temp,load", "--topic", f"p/{run}-{{device}}", "--speed", 20),
    )
    assert said == {"sent": 6}
    found = eventually(lambda: len(r := replayed(plant, run)) == 12 and r)
    temps = [value for *_, metric, _, value in found if metric == "temp"]
    assert sorted(temps) == [20.5 + i for i in range(6)]
    assert {device for device, *_ in found} == {f"{run}-m0", f"{run}-m1"}
    wrong = plant.run("replay", recording / name, "--time-column", "other", code=2)
    assert "no column other; there are when, machine, temp, load" in " ".join(wrong.split())


def test_the_lake_is_replayed_as_it_came_under_other_names(plant):
    device, at, run = unique("original"), start_ms(), unique("run")
    plant.publish(device, *(message(at + i, float(i), i) for i in (0, 1, 1, 4)))
    root = plant.home / "lake"

    def is_in():
        return (
            "readings" in lake.tables(root=root)
            and len(lake.readings(device=device, root=root)) == 4
        )

    eventually(is_in, every_s=0.2)
    plant.run("replay", "lake", "--device", device, "--topic", f"p/{run}-{{device}}")
    mine = f"{run}-{device}"
    eventually(lambda: len(replayed(plant, mine)) == 4)
    found = explained(plant, mine, at, 3)
    assert [row["class"] for row in found["left_out"]] == ["duplicate"]
    assert [row["seq"] for row in found["inside"]] == [0, 1, 4]


def test_an_audit_goes_on_until_it_is_interrupted_and_says_what_does_not_hold(plant):
    device, at = unique("audited"), start_ms()
    plant.publish(device, message(at, 1.0, 0))
    explained(plant, device, at, 1)
    all_told(plant)
    watching = plant.command("audit", "--live", "--every", "0.2", "--json")
    try:
        rounds = [json.loads(watching.stdout.readline()) for _ in range(3)]
        watching.send_signal(signal.SIGINT)
        watching.communicate(
            timeout=PATIENCE_S
        )  # What nobody reads would fill the pipe and hold it up.
    finally:
        watching.kill()
        watching.communicate()
    assert watching.returncode == 0
    assert all(one["holds"] for one in rounds)
    assert rounds[0]["lake"]["readings"]["missing"] == 0
    north = next(site for site in rounds[0]["sites"] if site["site"] == "north")
    assert north["accepted"] == sum(d["accepted"] for d in rounds[0]["devices"])
    page = plant.run("audit")
    assert "every identity holds" in page
    assert "north" in page

    for record in plant.records("aggregates"):
        table = frames.read_stream(record.value)
        if device in table["device"].to_pylist():
            told = table.set_column(
                table.column_names.index("count"), "count",
                pa.array([n + 5 for n in table["count"].to_pylist()], pa.int64()),
            )  # fmt: skip
            wrong = frames.write_stream(
                {name: told[name].combine_chunks() for name in told.column_names},
                table.schema.metadata,
            )
            partition = record.partition
    produce(plant, "aggregates", wrong, partition)
    said = plant.run("audit", code=1)
    assert f"default/{device}/m, window w" in said
    assert "1 readings belong inside, the result (revision 0) says 6" in " ".join(said.split())
    with pytest.raises(AssertionError, match="differs"):
        # Ends with 1, and shows both numbers.
        plant.run("explain", device, "m", at)


def test_a_poison_record_is_read_again_where_it_lies(plant):
    source = unique("poison")
    produce(plant, "readings", source.encode())
    poison = eventually(
        lambda: [r for r in plant.records("rejected") if r.value == source.encode()]
    )
    told = plant.ask("redrive", "rejected", "--since", "1h", "--limit", 1_000)
    mine = next(r for r in told["records"] if r["identity"] == Held.of(poison[0]).identity)
    assert not mine["can_go"]
    assert mine["why_not"].startswith("bad-key")
