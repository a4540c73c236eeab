"""The lake target: every reading and result, once, with its place in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from aiokafka import TopicPartition
from prometheus_client import Counter

from streams.adapters.lake import OF_READINGS, TABLES, LakeTable, readings_of, rows_of
from streams.adapters.reading_records import RecordDecoder
from streams.errors import DecodeError
from streams.ports import is_time_marker
from streams.settings import Settings

_SKIPPED = Counter("headwater_sink_lake_skipped_records", "Records that cannot be read.", ["topic"])


class LakeTarget:
    """Appends readings, results of devices and groups, scores and late readings to Delta tables."""

    name = "lake"
    topics: Sequence[str] = TABLES

    def __init__(self, settings: Settings) -> None:
        self.flush_ms = settings.sink.lake_flush_ms
        self._tables = {name: LakeTable(settings.lake.absolute(), name) for name in TABLES}
        self._decoder = RecordDecoder(
            settings.metrics, settings.gateway.max_rows, codecs=settings.codecs
        )
        self._waiting: dict[str, list[pa.Table]] = {name: [] for name in TABLES}
        self._reached: dict[str, dict[int, int]] = {name: {} for name in TABLES}
        self._rows = 0

    async def open(self) -> None:
        """Nothing to connect: tables are made by their first commit."""

    async def assigned(self, partition: TopicPartition) -> int | None:
        """Go on behind the last offset that is in the table, whatever was committed."""
        table = self._tables[partition.topic]
        return await asyncio.to_thread(table.next_offset, partition.partition)

    def add(self, partition: TopicPartition, records: Sequence[Any]) -> None:
        """Buffer the rows of records; what cannot be read was refused by the worker already."""
        topic = partition.topic
        data = [record for record in records if not is_time_marker(record)]
        if topic in OF_READINGS and data:
            rows, refused = readings_of(partition.partition, data, self._decoder)
            _SKIPPED.labels(topic).inc(len(refused))
            self._keep(topic, rows)
        else:
            for record in data:
                try:
                    self._keep(topic, rows_of(topic, record))
                except DecodeError:
                    _SKIPPED.labels(topic).inc()
        self._reached[topic][partition.partition] = records[-1].offset

    def _keep(self, topic: str, rows: pa.Table) -> None:
        if len(rows):
            self._waiting[topic].append(rows)
            self._rows += len(rows)

    def rows(self) -> int:
        """Return how many rows wait."""
        return self._rows

    async def flush(self) -> None:
        """Commit what waits, table by table; a table that is done is not written again."""
        for name in TABLES:
            if self._waiting[name]:
                rows = pa.concat_tables(self._waiting[name], promote_options="default")
                await asyncio.to_thread(self._tables[name].append, rows, self._reached[name])
                self._rows -= len(rows)
            self._waiting[name], self._reached[name] = [], {}

    def forget(self) -> None:
        """Drop the buffer."""
        for name in TABLES:
            self._waiting[name], self._reached[name] = [], {}
        self._rows = 0

    async def close(self) -> None:
        """Nothing to disconnect."""
