"""Mappings, metrics, windows and device types change while readings flow."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import UTC, datetime

import orjson
import pytest

from streams.adapters.config_log import marker_of
from streams.adapters.results import read_table
from tests.integration.fleet import (
    DEVICES,
    HORIZON_MS,
    Fleet,
    counted,
    floats,
    greatest,
    groups,
    oracle_of,
    told,
)
from tests.integration.plant import TOML, balanced, start_plant
from tests.waiting import PATIENCE_S, eventually

MORE = """
[[windows]]
name = "two-seconds"
size_ms = 2000
horizon_ms = 60000
aggregates = ["last"]

[[mappings]]
topic = "q/{device}/{metric}"
site = "south"
"""

FIRST = (
    TOML.replace("size_ms = 10000", "size_ms = 5000").replace(
        "horizon_ms = 60000", f"horizon_ms = {HORIZON_MS}"
    )
    + """
[[rollups]]
name = "type"
group = "type"
quiet_ms = 100

[worker]
instance_id = "worker"

[rollup]
instance_id = "rollup"
"""
)
CHANGED = FIRST.replace("size_ms = 5000", "size_ms = 2000\ngrace_ms = 100")
PUMPS = """
[[types]]
name = "pump"
devices = ["pump-*"]
"""
LEAD = """
[[types]]
name = "lead"
devices = ["pump-1"]
sites = ["north"]
"""


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    plant = start_plant(tmp_path_factory.mktemp("plant"), FIRST)
    yield plant
    plant.end()
    for name in ("kafka", "mqtt", "influx"):
        plant.servers.stop(name)


class Load:
    """A device that sends a numbered reading all the time."""

    def __init__(self, plant):
        self.plant, self.sent, self._stop = plant, [], threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        while not self._stop.wait(0.05):
            row = {"t_ms": time.time_ns() // 1_000_000, "boot": 1, "seq": len(self.sent), "x": 1.0}
            self.plant.publish("steady", row)
            self.sent.append(row["t_ms"])


def results(plant, window):
    frames = [r.value for r in plant.records("aggregates") if r.value]
    rows = [row for value in frames for row in read_table(value).to_pylist()]
    found = {}
    for row in rows:
        if row["window"] == window and row["rank"] >= 0:
            key = row["device"], row["start_ms"]
            found[key] = max(found.get(key, (-1, 0)), (row["rank"], row["count"]))
    return {key: count for key, (_, count) in found.items()}


def test_a_window_and_a_mapping_are_added_under_load_without_a_gap(plant):
    with Load(plant) as load:
        # Before the first window that the change brings, there is one to be told on demand.
        eventually(lambda: load.sent and load.sent[-1] // 2_000 > load.sent[0] // 2_000)
        # A worker notes what it found before the first change.
        eventually(lambda: "the file says the same" in plant.run("config", "diff"))
        (plant.home / "headwater.toml").write_text(FIRST + MORE)
        shown = plant.run("config", "diff", code=1)
        assert "+ windows: two-seconds" in shown
        assert "+ mappings: q/{device}/{metric}" in shown
        assert "nothing was changed" in plant.run("config", "apply")
        assert not results(plant, "two-seconds")
        asked_ms = time.time_ns() // 1_000_000
        assert "in force: 1-" in plant.run("config", "apply", "--yes")

        def mapped():
            plant.publish("new", 5, topic="q/{device}/t")
            return any(device == "new" for device, _ in results(plant, "w"))

        eventually(mapped, every_s=0.3, what="readings by the new mapping")
        eventually(lambda: len(results(plant, "two-seconds")) > 3, every_s=0.3)
    last_ms = load.sent[-1]

    def whole():
        starts = sorted(s for d, s in results(plant, "two-seconds") if d == "steady")
        return starts[-1:] and starts[-1] + 2_000 >= last_ms - 2_000

    eventually(whole, every_s=0.3)

    def of_steady():
        return {s: n for (d, s), n in results(plant, "two-seconds").items() if d == "steady"}

    first = min(of_steady())
    assert first >= asked_ms - asked_ms % 2_000

    def complete():
        """From its first window on every window is there, and has every reading."""
        counted = of_steady()
        return all(
            counted.get(start) == sum(start <= t_ms < start + 2_000 for t_ms in load.sent)
            for start in range(first, max(counted) + 1, 2_000)
        )

    # Those of a window that fell silent and was closed are counted by a correction.
    eventually(complete, every_s=0.3, what=of_steady)
    counted = of_steady()
    # What was before it is told on demand.
    assert plant.ask("config", "rebuild", "two-seconds")[0]["told"]

    def from_the_beginning():
        starts = range(load.sent[0] - load.sent[0] % 2_000, first, 2_000)
        found = results(plant, "two-seconds")
        return all(
            found.get(("steady", start)) == sum(start <= t < start + 2_000 for t in load.sent)
            for start in starts
        )

    eventually(from_the_beginning, every_s=0.3)
    # The window that was there before counts all, over the change.
    eventually(
        lambda: sum(n for (d, _), n in results(plant, "w").items() if d == "steady")
        == len(load.sent), every_s=0.3, what="all readings",
    )  # fmt: skip
    # What is asked later goes by what was applied, whatever the file says; an audit does not
    # miss windows of the time before.
    (plant.home / "headwater.toml").write_text(FIRST)
    at = datetime.fromtimestamp(first / 1000, UTC).isoformat()
    shown = plant.run("explain", "steady", "x", at, "--window", "two-seconds", "--json")
    assert len(orjson.loads(shown)["inside"]) == counted[first]
    assert balanced(plant)["holds"]


def become_equal(pair):
    with suppress(AssertionError):
        eventually(lambda: len(set(map(repr, map(ordered, pair())))) == 1, every_s=0.5)
    found, expected = pair()
    assert found == expected


def ordered(found):
    return sorted(found.items())


def test_a_changed_window_goes_on_as_its_next_generation_over_a_kill(plant):
    def markers():
        """How many markers of applied settings the log of readings has."""
        return sum(marker_of(record) is not None for record in plant.records("readings"))

    with Fleet(plant) as load:
        eventually(lambda: len(told(plant, "w")) >= 3, every_s=0.3)
        (plant.home / "headwater.toml").write_text(CHANGED)
        shown = plant.run("config", "diff", code=1)
        assert "size_ms: 5000 -> 2000" in shown
        assert "in results it is w@2" in shown
        before = markers()
        applying = plant.command("config", "apply", "--yes")
        eventually(lambda: markers() > before, what="the first marker of the change")
        plant.processes["worker"].kill()
        plant.processes["worker"].wait()
        plant.start("worker")
        out, err = applying.communicate(timeout=2 * PATIENCE_S)
        assert applying.returncode == 0, err
        assert "w@2" in out
        live = lambda: {start for _, start in told(plant, "w@2")}  # noqa: E731
        eventually(lambda: len(live()) > 1, every_s=0.3)
        assert load.sent
    rebuilt = plant.ask("config", "rebuild", "w", "--follow")
    assert rebuilt[0]["windows"] == ["w@2"]
    assert rebuilt[0]["open"] == 0

    def new_and_expected():
        return greatest(told(plant, "w@2")), greatest(floats(oracle_of(plant, 2_000, 100)))

    become_equal(new_and_expected)
    # The old one has told what it could until the marker, and each revision as it is.
    old, expected = told(plant, "w"), floats(oracle_of(plant, 5_000, 0))
    assert {device for device, _ in old} == set(DEVICES)
    for key, ranks in old.items():
        for rank, numbers in ranks.items():
            assert repr(expected[key][rank]) == repr(numbers)
    # Once more tells the same, ended in between or not, and nothing counts twice where people look.
    notes, ended = plant.home / "rebuilds", plant.command("config", "rebuild")
    eventually(lambda: any(notes.glob("*.json")) or ended.poll() is not None)
    ended.kill()
    ended.communicate()
    again = plant.ask("config", "rebuild")[0]
    assert again["told"] + again["noted_before"] > 0
    found, expected = new_and_expected()
    assert found == expected
    key = max(told(plant, "w@2"))
    count = int(max(told(plant, "w@2")[key].items())[1][0])
    shown = plant.ask("explain", key[0], "x", key[1], "--window", "w")
    assert shown["window"] == "w@2"
    assert shown["current"]["count"] == count
    first = min(old)
    shown = plant.ask("explain", first[0], "x", first[1], "--window", "w@1")
    assert shown["window"] == "w"

    def in_the_lake():
        query = f"""SELECT sum(count)::BIGINT AS n FROM windows WHERE definition = 'w'
            AND generation = 2 AND rank >= 0 AND device IN {tuple(DEVICES)}"""
        counts = [ranks[max(ranks)][0] for ranks in told(plant, "w@2").values()]
        return plant.ask("lake", "query", query)[0]["n"] == sum(counts)

    eventually(in_the_lake, every_s=1, what="the lake's current view")
    assert balanced(plant)["holds"]


def test_device_types_are_added_under_load_over_a_kill(plant):
    plant.start("rollup")
    with Fleet(plant, base=1_000_000) as load:
        (plant.home / "headwater.toml").write_text(CHANGED + PUMPS)
        assert "+ types: pump" in plant.run("config", "diff", code=1)
        assert not groups(plant)
        plant.run("config", "apply", "--yes")
        plant.processes["rollup"].kill()
        plant.processes["rollup"].wait()
        plant.start("rollup")
        eventually(lambda: len(groups(plant)) > 3, every_s=0.3)
        (plant.home / "headwater.toml").write_text(CHANGED + LEAD + PUMPS)
        shown = plant.run("config", "apply", "--yes")
        assert "+ types: lead" in shown
        assert load.sent
    types = {"pump-1": "lead", "pump-2": "pump"}

    become_equal(lambda: (groups(plant), counted(plant, types)))
    assert {group for group, *_ in groups(plant)} == {"lead", "pump"}
    wrong = CHANGED + LEAD.replace('["pump-1"]', "[]")
    (plant.home / "headwater.toml").write_text(wrong)
    line = 1 + wrong.splitlines().index("devices = []")
    assert f"headwater.toml:{line}: types.0.devices" in plant.run("config", "apply", code=2)
