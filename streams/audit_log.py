"""What an audit reads from Kafka: the log from its beginning to its end, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from streams.adapters.edge_ledger import EdgeCount, EdgeLedger
from streams.adapters.edge_windows import WindowLedger
from streams.adapters.lake import rows_of
from streams.adapters.log_reader import read_all
from streams.adapters.reading_records import RecordDecoder
from streams.errors import DecodeError
from streams.history import NAMES, PLACE, VERDICTS, ReadingBatches, names_a_reading, read_ledger
from streams.ports import is_time_marker
from streams.settings import Settings
from streams.topics import AGGREGATES, LOSSES, READINGS

NO_PLACES = pa.schema(PLACE)
_NO_READINGS = pa.schema(
    [
        *NAMES,
        ("t_ms", pa.int64()),
        ("value", pa.float64()),
        ("quality", pa.int16()),
        ("boot", pa.int64()),
        ("seq", pa.int64()),
        *PLACE,
    ]
)
_NO_AGGREGATES = pa.schema(
    [
        *NAMES,
        ("window", pa.string()),
        ("source", pa.string()),
        ("start_ms", pa.int64()),
        ("rank", pa.int32()),
        ("count", pa.int64()),
        ("last_received_ms", pa.int64()),
        *PLACE,
    ]
)


@dataclass(frozen=True, slots=True)
class Log:
    """What the audit reads from Kafka, as tables (columns as in the lake)."""

    readings: pa.Table
    aggregates: pa.Table
    verdicts: pa.Table
    """``source`` and ``verdict`` of each reading that was not accepted."""
    refused_records: int
    counted: frozenset[str] = frozenset()
    """Sources of late readings that ``headwater redrive late`` has counted into windows."""
    edges: Sequence[EdgeCount] = ()
    """What edges say of their devices."""
    edge_windows: WindowLedger = field(default_factory=WindowLedger)
    """What they say of their windows."""
    results_since_ms: int = 0
    """Log time since which all results are there; 0 if none has left the log."""


async def read_log(settings: Settings, tenant: str | None) -> Log:
    """Read everything up to the end at the call.

    :param tenant: only this one; None for all.
    :raises ServiceError: if Kafka cannot be reached.
    """
    tables: dict[str, list[pa.Table]] = {READINGS: [], AGGREGATES: []}
    verdicts: dict[str, str] = {}
    decoder = RecordDecoder(settings.metrics, settings.gateway.max_rows, codecs=settings.codecs)
    readings = ReadingBatches(decoder, tables[READINGS].append)
    refused, edges = 0, EdgeLedger()
    begun: set[int] = set()
    since_ms = 0
    async for record in read_all(settings.kafka, [*tables, *VERDICTS, LOSSES]):
        headers = dict(record.headers)
        if is_time_marker(record):
            continue
        if record.topic == READINGS:
            readings.add(record)
            continue
        if record.topic == LOSSES:
            edges.add(record)
            continue
        if record.topic in tables:
            if record.partition not in begun and record.offset:
                since_ms = max(since_ms, record.timestamp)
            begun.add(record.partition)
            try:
                tables[record.topic].append(rows_of(record.topic, record))
            except DecodeError:
                continue
            continue
        source = headers.get("hw-source", b"").decode()
        if names_a_reading(source):
            verdicts[source] = VERDICTS[record.topic]
        elif tenant is None or headers.get("hw-tenant", tenant.encode()) == tenant.encode():
            refused += 1
    readings.flush()
    return Log(
        _joined(tables[READINGS], _NO_READINGS, tenant),
        _joined(tables[AGGREGATES], _NO_AGGREGATES, tenant),
        pa.table(
            {
                "source": pa.array(list(verdicts), pa.string()),
                "verdict": pa.array(list(verdicts.values()), pa.string()),
            }
        ),
        refused,
        frozenset((await read_ledger(settings.kafka)).counted()),
        edges.counts(tenant),
        edges.windows,
        since_ms,
    )


def _joined(tables: list[pa.Table], schema: pa.Schema, tenant: str | None) -> pa.Table:
    if not tables:
        return schema.empty_table()
    table = pa.concat_tables(tables, promote_options="default").select(schema.names)
    if tenant is None:
        return table
    return table.filter(pa.compute.field("tenant") == tenant)
