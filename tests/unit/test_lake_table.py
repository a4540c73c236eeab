"""A table of the lake holds every record once, whoever writes it and however often."""

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.fs import LocalFileSystem

from streams.adapters.lake import LakeTable, dataset_of, opened


def rows(partition, *offsets):
    return pa.table(
        {
            "kafka_partition": pa.array([partition] * len(offsets), pa.int32()),
            "kafka_offset": pa.array(offsets, pa.int64()),
            "day": ["2026-01-01"] * len(offsets),
        }
    )


def places(root):
    found = DeltaTable(root / "t").to_pyarrow_table()
    columns = found["kafka_partition"].to_pylist(), found["kafka_offset"].to_pylist()
    return sorted(zip(*columns, strict=True))


def test_a_writer_that_was_overtaken_adds_only_what_is_new(tmp_path):
    first, second = LakeTable(tmp_path, "t"), LakeTable(tmp_path, "t")
    first.append(rows(0, 0, 1), {0: 1})
    second.append(rows(0, 2, 3), {0: 3})
    first.append(rows(0, 2), {0: 2})
    assert second.next_offset(0) == 4
    first.append(rows(0, 2, 3, 4), {0: 4})
    first.append(rows(1, 0), {1: 0})
    assert places(tmp_path) == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0)]


@given(pieces=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(1, 4))))
def test_pieces_that_overlap_are_in_once(tmp_path_factory, pieces):
    root = tmp_path_factory.mktemp("lake")
    expected, end = set(), {}
    for partition, back, length in pieces:
        start = max(0, end.get(partition, 0) - back)
        offsets = range(start, start + length)
        LakeTable(root, "t").append(rows(partition, *offsets), {partition: offsets[-1]})
        expected |= {(partition, offset) for offset in offsets}
        end[partition] = max(end.get(partition, 0), offsets[-1] + 1)
    assert not pieces or places(root) == sorted(expected)


def test_a_query_reads_the_files_without_python_wherever_they_lie(tmp_path):
    root = tmp_path / "a lake, 100 % ü"
    LakeTable(root, "t").append(rows(0, 0, 1), {0: 1})
    LakeTable(root, "t").append(rows(0, 2), {0: 2})
    found = dataset_of(opened(root, "t"))
    assert isinstance(found.filesystem.base_fs, LocalFileSystem)
    assert found.to_table().num_rows == 3
    assert found.to_table(filter=pc.field("kafka_offset") > 1)["day"].to_pylist() == ["2026-01-01"]
