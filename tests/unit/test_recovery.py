"""What lies aside: its identity, who owns it, what is put back, and what cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.adapters import frames
from streams.agents.readings import make_readings
from streams.core.readings import ABSENT, TIME_OF_RECEIPT
from streams.errors import DecodeError, HeadwaterError
from streams.recovery.held import Held, Selection, parse_time
from streams.recovery.ledger import ABANDONED_MS, COUNTING, Action, Decision, Ledger, State, Status
from streams.recovery.plans import PUT_BACK
from streams.recovery.run import judge_of
from streams.settings import Devices, Mapping, MetricSpec, Settings, Window
from streams.testing import Driver, frame

NOW_MS = 10_000_000
SETTINGS = Settings(
    windows=[Window(name="w", size_ms=1_000, horizon_ms=100_000)],
    devices=Devices(skew_ms=1_000, idle_ms=100, idle_final_ms=200),
    mappings=[Mapping(topic="plant/{device}")],
)
NO_NUMBER = frame({"device": "d", "metric": "m", "t_ms": 1, "value": float("nan")})


def judge(settings=SETTINGS):
    return replace(judge_of(settings), now_ms=NOW_MS)


def taken(produce, offset=0):
    """A record that the driver wrote, as it lies in its topic."""
    headers = {name: value.decode() for name, value in produce.headers.items()}
    return Held(produce.topic, produce.partition or 0, offset, NOW_MS, headers, produce.value)


def refused(value, source="mqtt:plant/d", **headers):
    told = {"hw-source": source, "hw-reason": "r", "hw-device": "d", "hw-received-ms": "5000"}
    given = {f"hw-{name}": text for name, text in headers.items()}
    return Held("rejected", 0, 0, NOW_MS, {**told, "hw-length": str(len(value)), **given}, value)


def quarantined(t_ms, *, seq=None, received_ms=5_000):
    """A driver whose engine has quarantined one reading, and the held record."""
    driver = Driver(make_readings(SETTINGS))
    number = {} if seq is None else {"boot": 1, "seq": seq}
    row = {"device": "d", "metric": "m", "t_ms": t_ms, "value": 2.5, **number}
    driver.send(frame(row, received_ms=received_ms), at_ms=5_000)
    (record,) = driver.records("quarantine")
    return driver, taken(record)


@pytest.mark.parametrize("seq", [None, 7], ids=["unnumbered", "numbered"])
@pytest.mark.parametrize("shift_ms", [0, -3_000])
def test_a_released_reading_passes_the_engine_that_had_marked_it_as_seen(seq, shift_ms):
    driver, held = quarantined(9_000, seq=seq)
    plan = judge().release(held, shift_ms)
    assert plan.can_go
    for record in plan.records:
        driver.send(record.value, at_ms=9_000, headers=record.headers)
    driver.tick(at_ms=20_000)
    (window,) = [row for row in driver.rows("aggregates") if row["rank"] == 0]
    assert (window["start_ms"], window["count"]) == (9_000 + shift_ms, 1)
    assert len(driver.records("quarantine")) == 1


def test_what_is_put_back_says_so_and_names_what_it_puts_back():
    _, held = quarantined(9_000, seq=7)
    (record,) = judge().release(held).records
    one = frames.decode(record.value)
    assert one.quality.tolist() == [PUT_BACK | TIME_OF_RECEIPT]
    assert (one.boot.tolist(), one.seq.tolist()) == ([ABSENT], [ABSENT])
    assert one.received_ms.tolist() == [NOW_MS]
    assert record.headers["hw-redriven"] == b"kafka:readings/0/0/0#0"


def test_a_time_that_is_still_ahead_is_not_released():
    _, held = quarantined(NOW_MS + 1_001)
    assert "ahead of its receipt" in judge().release(held).why_not
    assert judge().release(held, -1).can_go


def test_a_wider_skew_lets_a_quarantined_reading_go_and_keeps_its_receipt():
    _, held = quarantined(7_000)
    assert not judge().redrive(held).can_go
    wider = SETTINGS.model_copy(update={"devices": Devices(skew_ms=2_000)})
    (record,) = judge(wider).redrive(held).records
    assert frames.decode(record.value).received_ms.tolist() == [5_000]


def test_what_no_setting_changes_is_told_to_be_released_instead():
    _, held = quarantined(9_000, seq=1)
    other = replace(held, headers={**held.headers, "hw-reason": "unverifiable"})
    assert "headwater quarantine release" in judge().redrive(other).why_not
    assert judge().release(other).can_go


def test_refused_bytes_decode_again_under_a_corrected_catalogue_with_their_own_receipt():
    held = refused(b'{"state": "open", "seq": 3}')
    assert judge().redrive(held).why_not.startswith("not-a-number")
    catalogue = SETTINGS.model_copy(update={"metrics": {"state": MetricSpec(type="text")}})
    plan = judge(catalogue).redrive(held)
    one = frames.decode(plan.records[0].value)
    assert (one.text, one.t_ms.tolist(), one.seq.tolist()) == ({0: "open"}, [5_000], [3])
    assert plan.readings == 1


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (refused(b"22", length="900"), "only the first 2 of 900 bytes"),
        (refused(b"{}", source="kafka:twin.updates/0/3"), "refused on twin.updates"),
        (refused(b"{}", source="mqtt:elsewhere/d"), "unknown-topic"),
        (refused(b"{}", source="kafka:readings/0/3"), "bad-key"),
        (refused(b"\xff", source="kafka:readings/0/3", tenant="t"), "unknown-format"),
        (refused(b"{}", source="mqtt:hw/v1/t/s/ack"), "belongs to another process"),
        (refused(NO_NUMBER, source="kafka:readings/0/3/1"), "expected a finite number"),
    ],
)
def test_what_cannot_be_sent_again_says_why(held, why):
    assert why in judge().redrive(held).why_not


def test_a_record_of_a_producer_is_read_again_as_the_worker_reads_it():
    held = refused(b'{"m": 1.5}', source="kafka:readings/0/3", tenant="t", site="s")
    one = frames.decode(judge().redrive(held).records[0].value)
    assert (one.tenant[0], one.site[0], one.device[0], one.t_ms[0]) == ("t", "s", "d", 5_000)


def test_a_held_record_is_the_same_however_often_it_was_written():
    first, second = refused(b"x", sha256="ab" * 32), refused(b"x", sha256="ab" * 32)
    assert first.identity == second.identity == "mqtt:plant/d@5000/abababababababab"
    assert refused(b"x", source="kafka:readings/0/9/2").identity == "kafka:readings/0/9/2"


@pytest.mark.parametrize(
    ("chosen", "is_taken"),
    [
        (Selection(), True),
        (Selection(device="d*", reason="?"), True),
        (Selection(device="e"), False),
        (Selection(since_ms=NOW_MS, until_ms=NOW_MS + 1), True),
        (Selection(until_ms=NOW_MS), False),
    ],
)
def test_a_selection_takes_globs_and_half_open_times(chosen, is_taken):
    assert chosen.takes(refused(b"x")) is is_taken


def test_times_are_ages_milliseconds_or_iso():
    assert parse_time("2h", 10_000_000) == 2_800_000
    assert parse_time("15min", 1_000_000) == 100_000
    assert parse_time("123", 0) == 123
    assert parse_time("1970-01-01T00:01", 0) == 60_000
    assert parse_time("1970-01-01T01:01+01:00", 0) == 60_000
    with pytest.raises(HeadwaterError, match="expected"):
        parse_time("yesterday", 0)


def step(run, status=Status.BEGUN, *, at_ms=0, replaces="", identity="i", action=Action.RELEASE):
    return Decision(identity, run, action, status, at_ms, replaces=replaces)


def ledger_of(*steps):
    ledger = Ledger()
    for entry in steps:
        ledger.add(Decision.decode(entry.encode()))
    return ledger


def test_the_first_to_begin_owns_a_record():
    ledger = ledger_of(step("a"), step("b"), step("b", Status.DONE))
    assert ledger.owns("a", "i")
    assert ledger.state("i", ABANDONED_MS - 1) is State.UNDER_WAY
    assert ledger.state("i", ABANDONED_MS) is State.UNFINISHED
    assert ledger.state("other", 0) is State.WAITING


def test_what_a_dead_run_left_is_taken_over_by_one_of_those_that_try():
    ledger = ledger_of(step("a"), step("b", replaces="a"), step("c", replaces="a"))
    assert ledger.owns("b", "i")
    ledger.add(step("a", Status.DONE))
    assert ledger.state("i", 0) is State.UNDER_WAY
    ledger.add(step("b", Status.DONE))
    assert ledger.state("i", 10 * ABANDONED_MS) is State.RELEASED


def test_what_is_done_stays_done_but_a_turn_can_be_taken_again():
    done = [step("a", identity=i) for i in ("i", COUNTING)]
    done += [step("a", Status.DONE, identity=i) for i in ("i", COUNTING)]
    ledger = ledger_of(*done, step("b"), step("b", identity=COUNTING))
    assert not ledger.owns("b", "i")
    assert ledger.owns("b", COUNTING)


@given(st.permutations(["a", "b", "c"]), st.lists(st.sampled_from("abc"), max_size=6))
def test_whatever_is_written_in_whatever_order_one_run_owns_a_record(begins, ends):
    steps = [step(run) for run in begins] + [step(run, Status.DONE) for run in ends]
    ledger = ledger_of(*steps)
    assert [run for run in "abc" if ledger.owns(run, "i")] == [begins[0]]
    is_done = ledger.state("i", 0) is State.RELEASED
    assert is_done == (begins[0] in ends)


@pytest.mark.parametrize(
    "value", [b"", b"{}", b"[1]", b'{"version": 2}', b'{"version": 1, "x": 1}']
)
def test_what_is_no_entry_is_refused(value):
    with pytest.raises(DecodeError, match="redrive-entry"):
        Decision.decode(value)
