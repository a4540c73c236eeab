"""The readings of ``benchmarks/streams``: what is claimed of them, and that all forms agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from benchmarks.streams.data import (
    PARTITIONS,
    Data,
    frame_values,
    from_file,
    generated,
    json_records,
)
from streams.adapters import frames
from streams.core.placement import partition_of


@pytest.fixture(scope="module")
def data() -> Data:
    return generated("A", devices=50, readings=20_000, interval_ms=1_000, seed=7)


def test_one_percent_arrives_twice_and_nothing_else_does(data: Data) -> None:
    messages = np.stack([data.device, data.seq], axis=1)
    again = len(data) - len(np.unique(messages, axis=0))
    assert len(data) == 20_000
    assert again == pytest.approx(200, abs=5)


def test_about_five_percent_arrive_after_a_later_reading_of_their_device(data: Data) -> None:
    newest: dict[int, int] = {}
    behind = 0
    for device, seq in zip(data.device.tolist(), data.seq.tolist(), strict=True):
        behind += seq < newest.get(device, -1)
        newest[device] = max(seq, newest.get(device, -1))
    assert 0.04 < behind / len(data) < 0.07


def test_the_seed_decides_all_but_the_time(data: Data) -> None:
    twin = generated("A", devices=50, readings=20_000, interval_ms=1_000, seed=7)
    other = generated("A", devices=50, readings=20_000, interval_ms=1_000, seed=8)
    assert np.array_equal(twin.seq, data.seq)
    assert np.array_equal(twin.value, data.value)
    assert len(np.unique(twin.t_ms - data.t_ms)) == 1
    assert not np.array_equal(other.value, data.value)


@pytest.mark.parametrize("rows", [50, 500])
def test_frames_hold_the_readings_of_the_json_records_in_each_partitions_order(
    data: Data, rows: int
) -> None:
    as_json: list[list[tuple[str, int, int, float]]] = [[] for _ in range(PARTITIONS)]
    for partition, key, value in json_records(data):
        device = key.decode().removeprefix("default/")
        assert partition == partition_of("default", device, PARTITIONS)
        reading = orjson.loads(value)
        as_json[partition].append((device, reading["t_ms"], reading["seq"], reading["temperature"]))
    as_frames: list[list[tuple[str, int, int, float]]] = [[] for _ in range(PARTITIONS)]
    for partition, value, _ in frame_values(data, rows):
        r = frames.decode(value)
        assert len(r) <= rows
        columns = (r.device.to_list(), r.t_ms.tolist(), r.seq.tolist(), r.value.tolist())
        as_frames[partition] += list(zip(*columns, strict=True))
    assert as_frames == as_json


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    columns = {"device": ["b", "a", "b"], "t_ms": [5, 3, 5], "seq": [1, 0, 1]}
    parquet.write_table(pa.table({**columns, "temperature": [1.5, 2.5, 1.5]}), path)
    found = from_file(path)
    assert [found.names[d] for d in found.device.tolist()] == ["b", "a", "b"]
    assert found.t_ms.tolist() == [5, 3, 5]
    assert found.value.tolist() == [1.5, 2.5, 1.5]
