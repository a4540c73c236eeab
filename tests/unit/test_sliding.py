"""Sliding windows beyond the engine: stored state, limits in metrics, roll-ups, explain."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from streams.agents.readings import make_readings
from streams.agents.rollups import make_partials
from streams.covering import definitions_for
from streams.explain import take_apart
from streams.settings import Settings, Window
from streams.testing import Driver, frame

KEPT = ["time_weighted_mean", "distinct"]
SETTINGS = Settings(
    windows=[
        Window(name="last-3", kind="sliding", last=3, aggregates=KEPT),
        Window(name="last-10ms", kind="sliding", size_ms=10, aggregates=KEPT),
        Window(name="minute", size_ms=60_000, aggregates=KEPT),
    ]
)
READINGS = [(3, 1.0), (9, 2.0), (12, 4.0), (20, 8.0), (11, 16.0), (40, 32.0), (70_000, 0.0)]
IDLE_MS = 10_000_000


def one(t_ms, value, metric="bar"):
    return frame({"device": "pump", "metric": metric, "t_ms": t_ms, "value": value})


def play(driver, readings):
    for t_ms, value in readings:
        driver.send(one(t_ms, value), at_ms=1_000)
    return driver


def current(driver):
    """The greatest rank of each window."""
    best = {}
    for row in driver.rows("aggregates"):
        key = (row["window"], row["start_ms"])
        if row["rank"] >= best.get(key, row)["rank"]:
            best[key] = row
    return dict(sorted(best.items()))


def test_a_result_at_each_reading_and_corrections_of_those_after_a_late_one():
    driver = play(Driver(make_readings(SETTINGS)), READINGS)
    driver.tick(at_ms=IDLE_MS)
    told = {key: (row["end_ms"], row["sum"], row["rank"]) for key, row in current(driver).items()}
    assert {key[1]: row for key, row in told.items() if key[0] == "last-10ms"} == {
        -6: (4, 1.0, 0),
        0: (10, 3.0, 0),
        2: (12, 19.0, 1),
        3: (13, 23.0, 1),
        11: (21, 28.0, 0),
        31: (41, 32.0, 0),
        69_991: (70_001, 0.0, 0),
    }
    assert {key[1]: row for key, row in told.items() if key[0] == "last-3"} == {
        3: (4, 1.0, 0),
        9: (10, 3.0, 0),
        11: (12, 19.0, 1),
        12: (13, 22.0, 1),
        20: (21, 28.0, 0),
        40: (41, 44.0, 0),
        70_000: (70_001, 40.0, 0),
    }
    last = current(driver)["last-3", 40]
    assert last["span_ms"] == 28
    assert last["time_weighted_mean"] == (4 * 8 + 8 * 20) / 28
    assert last["distinct"] == 3


@pytest.mark.parametrize("at", range(len(READINGS)))
def test_stored_state_is_gone_on_with_to_the_same_results(at):
    driver = play(Driver(make_readings(SETTINGS)), READINGS[:at])
    driver.checkpoint()
    driver.crash()
    play(driver, READINGS[at:])
    undisturbed = play(Driver(make_readings(SETTINGS)), READINGS)
    for each in (driver, undisturbed):
        each.tick(at_ms=IDLE_MS)
    # As text: NaN is like itself there.
    assert repr(current(driver)) == repr(current(undisturbed))


def test_a_limit_that_was_met_is_counted():
    window = Window(name="full", kind="sliding", last=2, max_points=4)
    play(Driver(make_readings(Settings(windows=[window]))), [(t, 1.0) for t in range(100, 110)])

    def count(what):
        name = "headwater_worker_window_readings_given_up_total"
        return REGISTRY.get_sample_value(name, {"window": "full", "what": what})

    assert count("dropped") == 6
    assert count("refused") is None


def test_rollups_pass_over_sliding_windows():
    readings = play(Driver(make_readings(SETTINGS)), READINGS)
    partials = Driver(make_partials(SETTINGS))
    for produce in readings.records("aggregates"):
        partials.send(produce.value, at_ms=2_000, headers=dict(produce.headers))
    partials.tick(at_ms=IDLE_MS)
    assert {row["window"] for row in partials.rows("rollups.partial")} == {"minute"}


class History:
    """What was judged and told, as the lake and Kafka would have it."""

    def __init__(self, driver, window):
        self.from_lake, self.refused = {}, []
        self.told = [row for row in driver.rows("aggregates") if row["window"] == window]

    def rows(self, sql, where):
        if "aggregates" in sql:
            place = {"kafka_partition": 0, "kafka_offset": 0, "row": 0}
            told = [row for row in self.told if row["start_ms"] == where["start_ms"]]
            return sorted(({**row, **place} for row in told), key=lambda row: row["rank"])
        judged, greatest = [], None
        nothing = dict.fromkeys(("text", "boot", "seq", "counted", "why", "detail"))
        for at, (t_ms, value) in enumerate(READINGS):
            known = {"t_ms": t_ms, "value": value, "greatest_before_ms": greatest, "quality": 0}
            known |= {"class": "accepted", "received_ms": t_ms, "kafka_ms": 1_000, "source": at}
            judged.append({**nothing, **known})
            greatest = max(t_ms, greatest or 0)
        return [row for row in judged if where["start_ms"] <= row["t_ms"] < where["end_ms"]]


@pytest.mark.parametrize(
    ("window", "at_ms", "inside"),
    [
        ("last-10ms", 12, [3, 9, 11, 12]),
        ("last-10ms", 40, [40]),
        ("last-3", 12, [9, 11, 12]),
        ("last-3", 9, [3, 9]),
    ],
)
def test_a_window_is_explained_by_the_reading_that_it_ends_at(window, at_ms, inside):
    driver = play(Driver(make_readings(SETTINGS)), READINGS)
    definition = next(d for d in definitions_for(SETTINGS, "bar") if d.name == window)
    series = ("default", "pump", "bar")
    found = take_apart(SETTINGS, History(driver, window), series, definition, at_ms)
    assert [row["t_ms"] for row in found.inside] == inside
    assert found.compared == dict.fromkeys(("count", "sum", "min", "max"), "equal")
    assert [row["t_ms"] for row in found.inside if row["is_correction"]] == [
        t for t in inside if t == 11
    ]
