"""All that is known of some devices, from outside the engine: the lake, and Kafka where it lags.

Per Kafka partition the lake knows the offset that it reaches, so the rest is read from Kafka
exactly behind it: every row once. Without a lake everything comes from Kafka.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from streams.adapters.lake import LakeTable, dataset_of, opened, readings_of, rows_of
from streams.adapters.log_reader import read_all, read_from
from streams.adapters.reading_records import RecordDecoder
from streams.core.placement import partition_of
from streams.core.readings import TIME_OF_RECEIPT
from streams.core.windows import Session, Sliding, Window
from streams.covering import takes
from streams.errors import DecodeError
from streams.ports import is_time_marker
from streams.recovery.ledger import Decision, Ledger
from streams.settings import Settings
from streams.topics import AGGREGATES, LATE, QUARANTINE, READINGS, REDRIVES, REJECTED

Device = tuple[str, str]
"""Tenant and device."""

_DECODED_AT_ONCE = 5_000
PLACE = [("kafka_partition", pa.int32()), ("kafka_offset", pa.int64()), ("row", pa.int32())]
NAMES = [(name, pa.string()) for name in ("tenant", "site", "device", "metric")]
_READING = pa.schema(
    [
        *NAMES,
        ("t_ms", pa.int64()),
        ("received_ms", pa.int64()),
        ("kafka_ms", pa.int64()),
        ("value", pa.float64()),
        ("text", pa.string()),
        ("quality", pa.int16()),
        ("boot", pa.int64()),
        ("seq", pa.int64()),
        *PLACE,
    ]
)
_RESULT = pa.schema(
    [
        *NAMES,
        ("window", pa.string()),
        ("source", pa.string()),
        ("reason", pa.string()),
        ("start_ms", pa.int64()),
        ("end_ms", pa.int64()),
        ("rank", pa.int32()),
        ("count", pa.int64()),
        ("sum", pa.float64()),
        ("min", pa.float64()),
        ("max", pa.float64()),
        ("kafka_ms", pa.int64()),
        *PLACE,
    ]
)
_LATE = pa.schema([("tenant", pa.string()), ("device", pa.string()), ("reason", pa.string()),
                   ("source", pa.string())])  # fmt: skip
VERDICTS = {REJECTED: "rejected", QUARANTINE: "quarantined", LATE: "late"}
"""What a record of a topic says of the reading that it names as its source."""
_PARTS_OF_A_READING = 3
_SCHEMAS = {READINGS: _READING, AGGREGATES: _RESULT, LATE: _LATE}
_VERDICT = pa.schema(
    [(name, pa.string()) for name in ("source", "verdict", "reason", "detail")]
    + [("counted", pa.bool_())]
)

# Told from outside what the engine did: a message is new in the first record that brings it,
# and only the first reading of a metric and time is new in there.
_JUDGED = f"""
CREATE TEMP VIEW judged AS
WITH placed AS (
    SELECT *,
        'kafka:readings/' || kafka_partition || '/' || kafka_offset || '/' || row AS source
    FROM readings
), named AS (
    SELECT p.*, v.verdict, v.reason AS why, v.detail, coalesce(v.counted, false) AS counted
    FROM placed p LEFT JOIN verdicts v USING (source)
), again AS (
    SELECT *, CASE
        WHEN seq IS NOT NULL THEN
            min(kafka_offset) OVER (PARTITION BY tenant, device, boot, seq) < kafka_offset
            OR row_number() OVER (
                PARTITION BY tenant, device, boot, seq, kafka_offset, metric, t_ms ORDER BY row) > 1
        WHEN (quality & {TIME_OF_RECEIPT}) = 0 THEN row_number() OVER (
            PARTITION BY tenant, device, metric, t_ms, seq IS NULL, (quality & {TIME_OF_RECEIPT}),
                coalesce(verdict, '') = 'rejected'
            ORDER BY kafka_offset, row) > 1
        ELSE false END AS seen
    FROM named
), classed AS (
    SELECT *, CASE
        WHEN verdict IS NOT NULL THEN verdict
        WHEN seen THEN 'duplicate'
        ELSE 'accepted' END AS class
    FROM again
)
SELECT *,
    max(t_ms) FILTER (class IN ('accepted', 'late')) OVER (
        PARTITION BY tenant, device ORDER BY kafka_offset, row
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS greatest_before_ms
FROM classed
"""  # noqa: S608 no input of users is in it


class History:
    """An open look at the history of some devices; query it with SQL.

    Views: ``judged`` (readings with ``source``, ``class``, ``why``, ``detail``, ``counted``: by a
    redrive, and ``greatest_before_ms``: the device's greatest time just before the row), and
    ``aggregates`` (every result told).
    """

    def __init__(
        self, lake: Path, devices: set[Device], tail: Tail, starts: Mapping[tuple[str, int], int]
    ) -> None:
        self._db = duckdb.connect()
        self.from_lake: dict[str, bool] = {}
        self.refused = tail.refused
        self.ledger = tail.ledger
        wanted = pa.table(
            {"tenant": [t for t, _ in devices], "device": [d for _, d in devices]},
            schema=pa.schema([("tenant", pa.string()), ("device", pa.string())]),
        )
        self._db.register("wanted", wanted)
        for name, schema in _SCHEMAS.items():
            self._db.register(f"tail_{name}", tail.table(name))
            self._db.register(f"behind_{name}", _starts_of(name, starts))
            self._join(name, schema, opened(lake, name))
        late = self._db.execute("SELECT DISTINCT source, reason FROM late").fetchall()
        self._db.register("verdicts", _verdict_table(tail, late))
        self._db.execute(_JUDGED)

    def _join(self, name: str, schema: pa.Schema, table: DeltaTable | None) -> None:
        """Make a view of a table's rows in the lake and behind it.

        The sink goes on writing: what it wrote after we asked where it stands is in the tail.
        """
        columns = ", ".join(f'"{column}"' for column in schema.names)
        parts = [f"SELECT {columns} FROM tail_{name}"]  # noqa: S608 our names
        self.from_lake[name] = table is not None
        if table is not None:
            dataset = dataset_of(table)
            self._db.register(f"lake_{name}", dataset)
            there = {field.name for field in dataset.schema}
            held = ", ".join(
                f'"{field.name}"' if field.name in there else f'NULL AS "{field.name}"'
                for field in schema
            )
            parts.append(
                f"SELECT {held} FROM lake_{name} JOIN behind_{name} USING (kafka_partition) "  # noqa: S608 our names
                "WHERE kafka_offset < first_behind AND (tenant, device) IN "
                "(SELECT (tenant, device) FROM wanted)"
            )
        self._db.execute(f"CREATE TEMP VIEW {name} AS {' UNION ALL BY NAME '.join(parts)}")

    def rows(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        found: pa.Table = self._db.sql(query, params=dict(parameters or {})).to_arrow_table()
        return list(found.to_pylist())

    def __enter__(self) -> History:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._db.close()


def watermark_before_ms(row: Mapping[str, Any], disorder_ms: int) -> int | None:
    """Return the watermark of a row's device just before it."""
    greatest = row["greatest_before_ms"]
    return None if greatest is None else int(greatest) - disorder_ms


def is_inside(row: Mapping[str, Any], definition: Window, disorder_ms: int) -> bool:
    """Return whether the windows of a definition count a row of ``judged``.

    One that only others still took is accepted, and late for this definition.
    """
    if row["counted"]:
        return not isinstance(definition, Session | Sliding)
    if row["class"] != "accepted":
        return False
    return takes(definition, row["t_ms"], watermark_before_ms(row, disorder_ms))


def names_a_reading(source: str) -> bool:
    """Return whether a source is ``kafka:readings/PARTITION/OFFSET/ROW``."""
    return source.startswith(f"kafka:{READINGS}/") and source.count("/") == _PARTS_OF_A_READING


class ReadingBatches:
    """Records of ``readings`` decoded many at once."""

    def __init__(self, decoder: RecordDecoder, keep: Callable[[pa.Table], object]) -> None:
        self._decoder = decoder
        self._keep = keep
        self._waiting: dict[int, list[Any]] = defaultdict(list)

    def add(self, record: Any) -> None:
        """Take a record."""
        waiting = self._waiting[record.partition]
        waiting.append(record)
        if len(waiting) >= _DECODED_AT_ONCE:
            self._decode(record.partition)

    def flush(self) -> None:
        """Decode what waits."""
        for partition in list(self._waiting):
            self._decode(partition)

    def _decode(self, partition: int) -> None:
        self._keep(readings_of(partition, self._waiting.pop(partition), self._decoder)[0])


class Tail:
    """What Kafka holds behind the lake, of the wanted devices."""

    def __init__(self, devices: set[Device], decoder: RecordDecoder) -> None:
        self._devices = devices
        self._readings = ReadingBatches(decoder, lambda rows: self._add_rows(READINGS, rows))
        self._tables: dict[str, list[pa.Table]] = {name: [] for name in _SCHEMAS}
        self.verdicts: dict[str, tuple[str, str, str]] = {}
        """Source -> verdict, reason, detail."""
        self.refused: list[dict[str, Any]] = []
        """Whole messages of these devices of which no reading could be made."""
        self.ledger = Ledger()

    def add(self, record: Any) -> None:
        """Take a record of any of the topics."""
        if is_time_marker(record):
            return
        if record.topic == READINGS:
            self._readings.add(record)
            return
        if record.topic in _SCHEMAS:
            try:
                self._add_rows(record.topic, rows_of(record.topic, record))
            except DecodeError:
                return
        if record.topic in VERDICTS:
            self._add_verdict(
                record, {name: text.decode(errors="replace") for name, text in record.headers}
            )

    def _add_rows(self, topic: str, rows: pa.Table) -> None:
        keys = zip(rows["tenant"].to_pylist(), rows["device"].to_pylist(), strict=True)
        mine = pa.array([key in self._devices for key in keys], pa.bool_())
        kept = rows.filter(mine)
        if len(kept):
            schema = _SCHEMAS[topic]
            self._tables[topic].append(
                pa.table(
                    {
                        field.name: kept[field.name].cast(field.type)
                        if field.name in kept.column_names
                        else pa.nulls(len(kept), field.type)
                        for field in schema
                    }
                )
            )

    def _add_verdict(self, record: Any, headers: dict[str, str]) -> None:
        source = headers.get("hw-source", "")
        key = headers.get("hw-tenant", ""), headers.get("hw-device", "")
        why = headers.get("hw-reason", ""), headers.get("hw-detail", "")
        if key not in self._devices:
            return
        if names_a_reading(source):
            self.verdicts[source] = (VERDICTS[record.topic], *why)
        elif record.topic == REJECTED:
            received = headers.get("hw-received-ms", "")
            self.refused.append(
                {
                    "source": source,
                    "reason": why[0],
                    "detail": why[1],
                    "received_ms": int(received) if received.isdigit() else record.timestamp,
                }
            )

    def table(self, name: str) -> pa.Table:
        """Return the rows of one table."""
        self._readings.flush()
        return pa.concat_tables([_SCHEMAS[name].empty_table(), *self._tables[name]])


async def read_history(settings: Settings, devices: Iterable[Device]) -> History:
    """Read the history of some devices; close it, or use it in a ``with``."""
    wanted = set(devices)
    lake = settings.lake.absolute()
    starts: dict[tuple[str, int], int] = {}
    for partition in {partition_of(*key, settings.topics.partitions) for key in wanted}:
        for topic in (READINGS, AGGREGATES, LATE, QUARANTINE, REJECTED):
            behind = LakeTable(lake, topic).next_offset(partition) if topic in _SCHEMAS else None
            starts[topic, partition] = behind or 0
    # Messages that a gateway refused lie in any partition.
    starts |= {(REJECTED, partition): 0 for partition in range(settings.topics.partitions)}
    decoder = RecordDecoder(settings.metrics, settings.gateway.max_rows, codecs=settings.codecs)
    tail = Tail(wanted, decoder)
    async for record in read_from(settings.kafka, starts):
        tail.add(record)
    tail.ledger = await read_ledger(settings.kafka)
    return History(lake, wanted, tail, starts)


async def read_ledger(bootstrap: str) -> Ledger:
    """Read what was decided about held records; what is no entry is left out."""
    ledger = Ledger()
    async for record in read_all(bootstrap, [REDRIVES]):
        try:
            ledger.add(Decision.decode(record.value or b""), written_ms=record.timestamp)
        except DecodeError:
            continue
    return ledger


def _starts_of(topic: str, starts: Mapping[tuple[str, int], int]) -> pa.Table:
    mine = [(partition, first) for (name, partition), first in starts.items() if name == topic]
    return pa.table(
        {
            "kafka_partition": pa.array([partition for partition, _ in mine], pa.int32()),
            "first_behind": pa.array([first for _, first in mine], pa.int64()),
        }
    )


def _verdict_table(tail: Tail, late: list[tuple[str, str]]) -> pa.Table:
    verdicts = {source: ("late", reason, "") for source, reason in late} | tail.verdicts
    counted = tail.ledger.counted()
    return pa.Table.from_pylist(
        [
            {
                "source": source,
                "verdict": verdict,
                "reason": reason,
                "detail": detail,
                "counted": source in counted,
            }
            for source, (verdict, reason, detail) in verdicts.items()
        ],
        schema=_VERDICT,
    )
