"""The lake: Delta tables of what went through Kafka, each row with its place in the log.

Every commit carries, per Kafka partition, the offset that it reaches as an application
transaction. So whoever goes on after a crash knows exactly what is in: nothing is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError
from pyarrow.dataset import Dataset
from pyarrow.fs import FileSystem, SubTreeFileSystem

from streams.adapters import label_records
from streams.adapters.frames import array_labels, frame_columns, read_stream
from streams.adapters.reading_records import RecordDecoder, Refused
from streams.core.engine import LogRows
from streams.core.readings import ABSENT, Int64, Readings
from streams.errors import DecodeError, DeliveryError
from streams.ports import LogRecord
from streams.topics import AGGREGATES, ANOMALIES, BACKFILL, LABELS, LATE, READINGS, ROLLUPS

TABLES = (READINGS, AGGREGATES, ROLLUPS, ANOMALIES, LATE, LABELS, BACKFILL)
OF_READINGS = (READINGS, BACKFILL)
"""Tables whose records are read by a codec of readings."""
_COMPACT_EVERY = 64
_OPTIONAL: Mapping[str, pa.DataType] = {
    "quality": pa.uint8(),
    "boot": pa.int64(),
    "seq": pa.int64(),
    "int": pa.int64(),
    "text": pa.string(),
}


def rows_of(topic: str, record: Any) -> pa.Table:
    """Return the rows of a frame with their place: kafka_partition, kafka_offset, row, day.

    ``day`` (UTC, of the log time) is the partition column of the table: it follows the clock of
    the log, so a replay of old readings makes no folder per old day. For ``readings``, whose
    records need not be frames, see :func:`readings_of`.

    :raises DecodeError: if the value is no frame.
    """
    table = _label_row(record) if topic == LABELS else read_stream(record.value or b"")
    n = len(table)
    columns = {
        name: pc.cast(table.column(name), pa.string())
        if pa.types.is_dictionary(table.column(name).type)
        else table.column(name)
        for name in table.column_names
    }
    if topic == LATE:
        _complete(columns, n)
        columns["kafka_ms"] = _constant(record.timestamp, n, pa.int64())
        headers = dict(record.headers)
        for name in ("reason", "source"):
            value = headers.get(f"hw-{name}", b"").decode()
            columns[name] = _constant(value, n, pa.string())
    columns["kafka_partition"] = _constant(record.partition, n, pa.int32())
    columns["kafka_offset"] = _constant(record.offset, n, pa.int64())
    if "row" not in columns:
        columns["row"] = pa.array(np.arange(n, dtype=np.int32))
    columns["day"] = _days(np.full(n, record.timestamp))
    return pa.table(columns).replace_schema_metadata(None)


def _label_row(record: Any) -> pa.Table:
    try:
        label = label_records.decode(record.value or b"")
    except ValueError as error:
        raise DecodeError("bad-label", str(error)) from error
    return pa.Table.from_pylist([label.as_json()])


def readings_of(
    partition: int, records: Sequence[LogRecord], decoder: RecordDecoder
) -> tuple[pa.Table, Sequence[Refused]]:
    """Return the rows of records of ``readings``, as :func:`rows_of`, and the records refused.

    :param records: of one partition, in order, without time markers.
    """
    decoded = decoder.decode(records)
    at, n = decoded.at, len(decoded.at)
    kafka_ms = np.fromiter((r.timestamp for r in records), np.int64, len(records))[at]
    offset = np.fromiter((r.offset for r in records), np.int64, len(records))[at]
    columns = {
        name: pc.cast(column, pa.string()) if pa.types.is_dictionary(column.type) else column
        for name, column in frame_columns(decoded.readings).items()
    }
    _complete(columns, n)
    columns["kafka_ms"] = pa.array(kafka_ms)
    columns["kafka_partition"] = _constant(partition, n, pa.int32())
    columns["kafka_offset"] = pa.array(offset)
    columns["row"] = pa.array(decoded.row())
    columns["day"] = _days(kafka_ms)
    return pa.table(columns), decoded.refused


def log_rows(rows: pa.Table, now_ms: int = 0) -> LogRows:
    """Return rows of ``readings``, in the order of their partition, as the engine takes them.

    :param rows: as of :func:`readings_of`, of one partition.
    :param now_ms: the partition's log time before them, which never goes back.
    """
    batch = rows.combine_chunks()

    def numbers(name: str, dtype: Any, absent: int | float) -> Any:
        column = pc.fill_null(batch[name], absent).combine_chunks()
        return column.to_numpy(zero_copy_only=False).astype(dtype, copy=False)

    text = batch["text"].to_pylist() if batch["text"].null_count < len(batch) else []
    readings = Readings(
        **{
            name: array_labels(batch[name].combine_chunks())
            for name in ("tenant", "site", "device", "metric")
        },
        t_ms=numbers("t_ms", np.int64, 0),
        received_ms=numbers("received_ms", np.int64, 0),
        value=numbers("value", np.float64, np.nan),
        quality=numbers("quality", np.uint8, 0),
        boot=numbers("boot", np.int64, ABSENT),
        seq=numbers("seq", np.int64, ABSENT),
        exact_int={},
        text={row: value for row, value in enumerate(text) if value is not None},
    )
    kafka_ms = np.maximum.accumulate(numbers("kafka_ms", np.int64, 0))
    return LogRows(
        readings,
        numbers("kafka_offset", np.int64, 0),
        numbers("row", np.int32, 0),
        np.maximum(kafka_ms, now_ms),
    )


def _complete(columns: dict[str, Any], n: int) -> None:
    """Add the columns that a frame leaves out where they would say nothing."""
    for name, kind in _OPTIONAL.items():
        columns[name] = columns[name].cast(kind) if name in columns else pa.nulls(n, kind)
    quality = pc.fill_null(columns["quality"], pa.scalar(0, pa.uint8()))
    columns["quality"] = quality.cast(pa.int16())


def _days(kafka_ms: Int64) -> pa.Array:
    days = pa.array(kafka_ms.astype("datetime64[ms]").astype("datetime64[D]"))
    return days.cast(pa.string())


def _constant(value: Any, n: int, kind: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), n)


def opened(root: Path, name: str) -> DeltaTable | None:
    """Return a table of the lake, ``None`` before its first commit."""
    path = root / name
    return DeltaTable(path) if DeltaTable.is_deltatable(str(path)) else None


def dataset_of(table: DeltaTable) -> Dataset:
    """Return the rows of a table, to be queried.

    Arrow opens the files by itself. Through deltalake it would do so in Python, and pyarrow begins
    a scan without letting go of the interpreter: a thread that opens the next file, and holds the
    lock that the beginning needs, would wait for it for ever.
    """
    files, root = FileSystem.from_uri(table.table_uri)
    return table.to_pyarrow_dataset(filesystem=SubTreeFileSystem(root, files))


class LakeTable:
    """One Delta table of the lake, as its writer sees it."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._name = root, name
        self._path = root / name
        self._commits = 0

    def next_offset(self, partition: int) -> int | None:
        """Return the offset to go on from, ``None`` if nothing of this partition is in."""
        held = self._held(opened(self._root, self._name), partition)
        return None if held < 0 else held + 1

    def append(self, rows: pa.Table, reached: Mapping[int, int]) -> None:
        """Append what the table has not got yet, in one commit.

        Rows at or below the offset that the table says it has are left out, and Delta refuses the
        commit if that offset moves meanwhile. So a writer that was stopped for long, and whose
        partitions another one has now, adds nothing twice.

        :param reached: Kafka partition -> last offset that the rows reach.
        :raises DeliveryError: if it cannot be written (disk full, no rights, another writer was
            faster): nothing is in.
        """

        def write() -> None:
            table = opened(self._root, self._name)
            held = {p: self._held(table, p) for p in reached}
            news = _beyond(rows, held)
            if len(news):
                write_deltalake(
                    table or self._path,
                    news,
                    mode="append" if table else "error",
                    partition_by=["day"],
                    schema_mode="merge",
                    name=None if table else self._name,
                    commit_properties=CommitProperties(
                        app_transactions=[
                            Transaction(self._application(p), at)
                            for p, at in reached.items()
                            if at > held[p]
                        ]
                    ),
                )

        self._guarded(write)
        self._commits += 1
        if self._commits % _COMPACT_EVERY == 0:
            self._guarded(self._compact)

    def _held(self, table: DeltaTable | None, partition: int) -> int:
        """Return the last offset of *partition* that is in *table*; -1 if there is none."""
        version = table.transaction_version(self._application(partition)) if table else None
        return -1 if version is None else version

    def _compact(self) -> None:
        DeltaTable(self._path).optimize.compact()

    def _guarded(self, action: Callable[[], Any]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            action()
        except (DeltaError, OSError) as error:
            raise DeliveryError(f"lake table {self._path}: {error}") from error

    def _application(self, partition: int) -> str:
        return f"headwater-sink/{self._name}/{partition}"


def _beyond(rows: pa.Table, held: Mapping[int, int]) -> pa.Table:
    """Return the rows whose offset lies above the one held of their partition."""
    partitions = rows["kafka_partition"].to_numpy()
    bounds = np.array([held.get(p, -1) for p in range(partitions.max(initial=-1) + 1)], np.int64)
    return rows.filter(pa.array(rows["kafka_offset"].to_numpy() > bounds[partitions]))
