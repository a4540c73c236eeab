"""A sink of one's own: the current result of every window in a SQLite file.

The carrier (``streams.sink.carrier``) reads Kafka, batches, retries with back-off, commits offsets
and shows the lag. What is left for a sink is to write the same rows twice without harm: here the
primary key and the comparison of ranks see to it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from typing import Any

from aiokafka import TopicPartition

from streams.adapters.results import read_table
from streams.errors import DeliveryError
from streams.ports import is_time_marker
from streams.settings import Settings

_KEY = ("tenant", "device", "metric", "window", "source", "start_ms")
_REST = ("rank", "count", "sum", "min", "max", "mean", "sd")
_COLUMNS = (*_KEY, *_REST)
_CREATE = f"""
CREATE TABLE IF NOT EXISTS windows ({", ".join(f'"{name}"' for name in _COLUMNS)},
PRIMARY KEY ({", ".join(f'"{name}"' for name in _KEY)}))"""
# A retracted window stays, with count 0: its rank must be known when older ones come again.
_UPSERT = f"""
INSERT INTO windows VALUES ({", ".join(f":{name}" for name in _COLUMNS)})
ON CONFLICT DO UPDATE SET {", ".join(f'"{name}" = excluded."{name}"' for name in _REST)}
WHERE excluded.rank >= windows.rank"""


class SqliteSink:
    """A :class:`streams.sink.target.Target`; the file is ``SQLITE_SINK``, or windows.sqlite."""

    name = "sqlite"
    topics: Sequence[str] = ("aggregates",)

    def __init__(self, settings: Settings) -> None:
        self.flush_ms = settings.sink.flush_ms
        self._path = os.environ.get("SQLITE_SINK", "windows.sqlite")
        self._waiting: list[dict[str, Any]] = []

    async def open(self) -> None:
        """Make the table."""
        await asyncio.to_thread(self._write, [])

    async def assigned(self, partition: TopicPartition) -> int | None:
        """Go on at the committed offset."""
        return None

    def add(self, partition: TopicPartition, records: Sequence[Any]) -> None:
        """Buffer results."""
        for record in records:
            if not is_time_marker(record):
                self._waiting += read_table(record.value).select(_COLUMNS).to_pylist()

    def rows(self) -> int:
        """Return how many results wait."""
        return len(self._waiting)

    async def flush(self) -> None:
        """Write what waits in one transaction."""
        await asyncio.to_thread(self._write, self._waiting)
        self._waiting = []

    def forget(self) -> None:
        """Drop the buffer."""
        self._waiting = []

    async def close(self) -> None:
        """Nothing is open between two flushes."""

    def _write(self, rows: list[dict[str, Any]]) -> None:
        try:
            with sqlite3.connect(self._path) as database:
                database.execute(_CREATE)
                database.executemany(_UPSERT, rows)
            database.close()
        except sqlite3.Error as error:
            raise DeliveryError(f"{self._path}: {error}") from error
