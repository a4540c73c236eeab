"""The lake's view of raw readings: what came, and what was brought up since, each once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from streams import lake
from streams.adapters import frames
from streams.adapters.lake import LakeTable, readings_of
from streams.adapters.reading_records import RecordDecoder
from streams.core.readings import Labels, Readings
from streams.errors import HeadwaterError
from streams.testing import Record
from streams.topics import BACKFILL, READINGS


def store(root: Path, table: str, offset: int, times: list[int]) -> None:
    n = len(times)
    readings = Readings(
        *(Labels.constant(name, n) for name in ("t", "s", "d", "m")),
        np.asarray(times, np.int64),
        np.asarray(times, np.int64),
        np.asarray(times, np.float64),
        np.zeros(n, np.uint8),
        np.full(n, -1),
        np.full(n, -1),
        {},
        {},
    )
    record = Record(offset, 0, None, frames.encode(readings))
    rows, _ = readings_of(0, [record], RecordDecoder({}, 10))
    LakeTable(root, table).append(rows, {0: offset})


def shown(root: Path) -> list[tuple[int, bool]]:
    rows = lake.raw(root=root, device="d").to_pylist()
    return [(row["t_ms"], row["backfilled"]) for row in rows]


def test_raw_readings_are_there_once_however_often_they_were_asked_for(tmp_path: Path) -> None:
    store(tmp_path, READINGS, 0, [10, 40])
    assert shown(tmp_path) == [(10, False), (40, False)]
    store(tmp_path, BACKFILL, 0, [10, 20, 30])
    store(tmp_path, BACKFILL, 1, [20, 30, 40])
    assert shown(tmp_path) == [(10, False), (20, True), (30, True), (40, False)]
    assert len(lake.readings(root=tmp_path)) == 2


def test_a_table_that_holds_nothing_yet_is_said_to_be_missing_and_what_fills_it(
    tmp_path: Path,
) -> None:
    store(tmp_path, READINGS, 0, [10])
    with pytest.raises(HeadwaterError, match=r"Table with name windows does not exist[^!]*!") as no:
        lake.sql("SELECT * FROM windows", root=tmp_path)
    assert "Tables in this lake: readings." in str(no.value)
    assert "the sink process fills it" in str(no.value)


@pytest.mark.parametrize("name", ["rows", "shown", "present"])
def test_no_variable_of_python_can_be_read_as_a_table(tmp_path: Path, name: str) -> None:
    rows = pa.table({"x": [1]})
    store(tmp_path, READINGS, 0, [10])
    with pytest.raises(HeadwaterError, match="does not exist"):
        lake.sql(f"SELECT * FROM {name}", root=tmp_path)
    assert len(rows) == 1
