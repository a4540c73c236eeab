"""Simulated and recorded series."""

from __future__ import annotations

from itertools import islice

import orjson
import pytest

from streams.errors import HeadwaterError
from streams.sim.nab import MACHINES, labelled_windows, read_csv
from streams.sim.recorded import machines
from streams.sim.sensors import YEAR_MS, Fault, Fleet

SHARES = {fault: 0.02 for fault in Fault if fault is not Fault.NONE}
FLEET = Fleet("plant", 5, "vibration", 100, 3, SHARES, late_ms=86_400_000, quiet=10)


def sample(fleet, n=4000):
    return list(islice(fleet.messages(1_000_000), n))


def test_the_same_seed_gives_the_same_messages():
    assert sample(FLEET) == sample(FLEET)


def test_another_seed_gives_others():
    other = Fleet("plant", 5, "vibration", 100, 4, SHARES, late_ms=86_400_000, quiet=10)
    assert sample(FLEET) != sample(other)


def test_every_fault_occurs_and_is_labelled_truly():
    messages = sample(FLEET)
    faults = {message.fault for message in messages}
    assert faults == set(Fault)
    newest: dict[str, int] = {}
    for message in messages:
        if message.fault is Fault.LATE:
            assert message.t_ms < newest[message.device] - 80_000_000
        elif message.fault is Fault.WRONG_CLOCK:
            assert message.t_ms > newest[message.device] + YEAR_MS - 60_000
        else:
            newest[message.device] = max(message.t_ms, newest.get(message.device, 0))


def test_a_duplicate_is_the_same_message_twice():
    doubled = [m for m in sample(FLEET) if m.fault is Fault.DUPLICATE]
    assert doubled[0] == doubled[1]


def test_sequence_numbers_of_a_device_have_no_gap_but_for_what_is_malformed():
    messages = [m for m in sample(FLEET) if m.device == "plant-01"]
    seqs = {orjson.loads(m.payload)["seq"] for m in messages if m.fault is not Fault.MALFORMED}
    malformed = sum(m.fault is Fault.MALFORMED for m in messages)
    assert len(set(range(max(seqs))) - seqs) <= malformed + 1


def test_all_recorded_series_are_replayed_whole_and_in_order():
    messages = machines("harbour")
    assert len(messages) == 69_561
    last: dict[str, int] = {}
    for message in messages:
        seq = orjson.loads(message.payload)["seq"]
        assert seq == last.get(message.device, -1) + 1
        last[message.device] = seq
    assert len(last) == len(MACHINES)


def test_labels_lie_within_their_series():
    labels = labelled_windows()
    assert sum(map(len, labels.values())) == 19
    assert all(begin < end for windows in labels.values() for begin, end in windows)


def test_a_wrong_row_is_named(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("timestamp,value\n2014-01-01 00:00:00,1\n2014-01-01 00:05:00,hot\n")
    with pytest.raises(HeadwaterError, match=r"x\.csv:3: .*hot"):
        read_csv(path)
