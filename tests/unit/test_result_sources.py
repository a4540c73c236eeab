"""Of two sources of one window the edge's final result counts, everywhere, and nothing is added."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from streams import lake
from streams.adapters.lake import LakeTable, rows_of
from streams.adapters.results import decode_rollups, decode_windows
from streams.agents.rollups import make_partials
from streams.agents.window_alerting import as_named
from streams.core.readings import Labels
from streams.core.results import CLOUD, EDGE, standing
from streams.settings import Settings
from streams.testing import Driver
from streams.topics import AGGREGATES
from tests.windows import result, results_frame

QUIET_MS = 100


def of(source: str, rank: int, count: int) -> bytes:
    return results_frame(result(0, float(count), rank=rank, count=count, source=source))


def in_lake(root: Path, *told: bytes) -> list[tuple[str, int, int]]:
    table = LakeTable(root, AGGREGATES)
    for offset, value in enumerate(told):
        record = SimpleNamespace(partition=0, offset=offset, timestamp=0, value=value)
        table.append(rows_of(AGGREGATES, record), {0: offset})
    return [
        (one["source"], one["rank"], one["count"]) for one in lake.windows(root=root).to_pylist()
    ]


def test_a_final_result_stands_over_a_provisional_one_and_an_edges_over_the_clouds() -> None:
    source = Labels.of([EDGE, CLOUD, CLOUD, CLOUD, EDGE, EDGE])
    stands = standing(np.array([-1, -1, 0, 9, 0, 1], np.int32), source).tolist()
    assert stands == sorted(stands)
    assert stands[:3] == [-1, -1, 0]
    # Comparisons of two series add their ranks up.
    assert 2 * stands[-1] < 1 << 31


def test_the_lake_shows_one_source_of_a_window(tmp_path: Path) -> None:
    edge, cloud, open_yet = of(EDGE, 0, 60), of(CLOUD, 3, 2), of(EDGE, -1, 30)
    assert in_lake(tmp_path / "a", edge, cloud) == [("edge", 0, 60)]
    assert in_lake(tmp_path / "b", cloud, open_yet) == [("cloud", 3, 2)]
    assert in_lake(tmp_path / "c", cloud, edge, of(EDGE, 1, 0)) == []


def test_rules_see_the_edges_result_as_the_higher_rank() -> None:
    edge, cloud = (
        as_named(decode_windows(of(EDGE, 0, 60))),
        as_named(decode_windows(of(CLOUD, 3, 2))),
    )
    assert edge.rank[0] > cloud.rank[0] == 3
    assert edge.rank.dtype == np.int32


def test_a_group_takes_an_edges_result_in_place_of_the_clouds() -> None:
    windows = [{"name": "1m", "size_ms": 60_000}]
    rollups = [{"name": "site", "group": "site", "quiet_ms": QUIET_MS}]
    driver = Driver(make_partials(Settings(windows=windows, rollups=rollups)))
    told = (of(CLOUD, 2, 2), of(EDGE, 0, 60), of(CLOUD, 3, 3), of(EDGE, 1, 61))
    for number, value in enumerate(told):
        driver.send(value, at_ms=1_000 * number)
        driver.tick(at_ms=1_000 * number + 2 * QUIET_MS)
    parts = [decode_rollups(value) for value in driver.values("rollups.partial")]
    assert [int(part.count[0]) for part in parts] == [2, 60, 61]
    ranks = [int(part.rank[0]) for part in parts]
    assert ranks == sorted(set(ranks)), "a group's revision grows with each change"
