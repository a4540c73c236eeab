"""Mappings, metrics and windows change while readings flow."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import orjson
import pytest

from streams.adapters.results import read_table
from tests.integration.plant import TOML, start_plant
from tests.waiting import eventually

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


@pytest.fixture
def plant(tmp_path):
    plant = start_plant(tmp_path)
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
        eventually(lambda: len(load.sent) > 20, within_s=60)
        assert "the file says the same" in plant.run("config", "diff")
        (plant.home / "headwater.toml").write_text(TOML + MORE)
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

        eventually(mapped, within_s=60, every_s=0.3, what="readings by the new mapping")
        eventually(lambda: len(results(plant, "two-seconds")) > 3, within_s=60, every_s=0.3)
    last_ms = load.sent[-1]

    def whole():
        starts = sorted(s for d, s in results(plant, "two-seconds") if d == "steady")
        return starts[-1:] and starts[-1] + 2_000 >= last_ms - 2_000

    eventually(whole, within_s=60, every_s=0.3)
    counted = {s: n for (d, s), n in results(plant, "two-seconds").items() if d == "steady"}
    first = min(counted)
    assert first >= asked_ms - asked_ms % 2_000
    # From its first window on every window is there, and has every reading.
    for start in range(first, max(counted) + 1, 2_000):
        assert counted[start] == sum(start <= t_ms < start + 2_000 for t_ms in load.sent)
    # The window that was there before counts all, over the change.
    eventually(
        lambda: sum(n for (d, _), n in results(plant, "w").items() if d == "steady")
        == len(load.sent),
        within_s=60, every_s=0.3, what="all readings",
    )  # fmt: skip
    # What is asked later goes by what was applied, whatever the file says; an audit does not
    # miss windows of the time before.
    (plant.home / "headwater.toml").write_text(TOML)
    at = datetime.fromtimestamp(first / 1000, UTC).isoformat()
    shown = plant.run("explain", "steady", "x", at, "--window", "two-seconds", "--json")
    assert len(orjson.loads(shown)["inside"]) == counted[first]
    assert orjson.loads(plant.run("audit", "--json"))["holds"]
    plant.processes["worker"].kill()
    plant.processes["worker"].wait()
    plant.start("worker")
    (plant.home / "headwater.toml").write_text(
        (TOML + MORE).replace("size_ms = 2000", "size_ms = 3000")
    )
    refused = plant.run("config", "apply", "--yes", code=2)
    assert "'two-seconds' had another size_ms before" in refused
