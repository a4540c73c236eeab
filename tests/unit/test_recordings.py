"""Recordings become messages, in their order, with their columns mapped, when they are due."""

from __future__ import annotations

import orjson
import pytest

from streams.errors import HeadwaterError
from streams.sim.nab import FOLDER, read_csv
from streams.sim.pace import Pace, paced
from streams.sim.recordings import Columns, Table, Target
from streams.sim.sensors import Fault, Message


def replay(path, columns=None, **target):
    recording = Table(path, columns or Columns())
    return [(m.topic, orjson.loads(m.payload)) for m in recording.messages(Target(**target))]


@pytest.fixture
def csv(tmp_path):
    def write(text, name="r.csv"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_the_series_that_come_with_the_project_are_read_as_before():
    path = FOLDER / "nyc_taxi.csv"
    sent = replay(path, metric="passengers", device="fleet-1")
    points = read_csv(path)
    assert len(sent) == len(points) == Table(path, Columns()).count()
    assert sent[3] == (
        "demo/plant-a/fleet-1",
        {"t_ms": points[3].t_ms, "boot": 1, "seq": 3, "passengers": points[3].value},
    )
    assert Table(path, Columns()).last_ms() == points[-1].t_ms


def test_a_wide_file_gives_one_message_a_row_numbered_per_device(csv):
    path = csv("ts,who,a,b,note\n1,x,1.5,2,hm\n2,y,2.5,,hm\n3,x,3.5,4,hm\n")
    sent = replay(path, Columns(unit="s", device="who"), topic="t/{device}", boot=9)
    assert sent == [
        ("t/x", {"t_ms": 1_000, "boot": 9, "seq": 0, "a": 1.5, "b": 2}),
        ("t/y", {"t_ms": 2_000, "boot": 9, "seq": 0, "a": 2.5}),
        ("t/x", {"t_ms": 3_000, "boot": 9, "seq": 1, "a": 3.5, "b": 4}),
    ]


def test_a_long_file_names_its_metrics_in_a_column(csv):
    path = csv(
        "time,tag,site,value\n2026-01-01T00:00:00Z,temp,s1,5\n2026-01-01 00:00:01,hum,s2,6\n"
    )
    sent = replay(path, Columns(metric="tag", site="site"))
    assert [topic for topic, _ in sent] == ["demo/s1/replay-1", "demo/s2/replay-1"]
    assert [content.get("temp", content.get("hum")) for _, content in sent] == [5, 6]
    assert sent[1][1]["t_ms"] - sent[0][1]["t_ms"] == 1_000


@pytest.mark.parametrize(
    ("text", "columns", "why"),
    [
        ("a,b\n1,2\n", Columns(), "which column is the time"),
        ("ts,b\n1,2\n", Columns(values=("c",)), "no column c; there are ts, b"),
        ("ts,note\n1,x\n", Columns(), "no column of values"),
        ("ts,value\nsoon,2\n", Columns(), "row 1: ts: Invalid isoformat"),
        ("ts,seq\n1,2\n", Columns(values=("seq", "ts")), "the name of a field"),
    ],
)
def test_a_file_that_does_not_fit_says_what_is_wrong(csv, text, columns, why):
    with pytest.raises(HeadwaterError) as told:
        replay(csv(text), columns)
    assert why in str(told.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(HeadwaterError, match="nowhere"):
        Table(tmp_path / "nowhere.csv", Columns())


@pytest.mark.parametrize(("speed", "slept"), [("1", [1.0, 1.0]), ("10", [0.1, 0.1]), ("max", [])])
def test_messages_are_sent_when_they_are_due_and_what_lies_back_does_not_wait(speed, slept):
    clock, sleeps = [0.0], []

    def sleep(seconds):
        sleeps.append(round(seconds, 6))
        clock[0] += seconds

    messages = [Message("t", b"", "d", t_ms, Fault.NONE) for t_ms in (5_000, 6_000, 5_500, 7_000)]
    sent = paced(iter(messages), Pace.of(speed), clock=lambda: clock[0], sleep=sleep)
    assert list(sent) == messages
    assert sleeps == slept


@pytest.mark.parametrize("speed", ["fast", "0", "-1", "inf", "nan"])
def test_a_speed_that_is_none_is_refused(speed):
    with pytest.raises(HeadwaterError, match="expected a number above 0"):
        Pace.of(speed)
