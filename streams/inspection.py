"""Records of any topic as rows that a person can read."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streams.adapters.lake import OF_READINGS, TABLES, readings_of, rows_of
from streams.adapters.log_reader import read_all
from streams.adapters.reading_records import RecordDecoder
from streams.errors import DecodeError, HeadwaterError
from streams.ports import is_time_marker
from streams.settings import Settings
from streams.topics import specs

_SHOWN_BYTES = 60
_WIDE = 110
_UNFOLDED = 200
"""Columns of the page where output does not go to a terminal: no row is folded."""
_REFUSED = ("reason", "detail", "source", "bytes")
_COLUMNS: dict[str, tuple[str, ...]] = {
    "aggregates": (
        *("site", "device", "metric", "window", "start_ms", "rank", "reason"),
        *("count", "mean", "min", "max", "sd"),
    ),
    "anomalies": ("site", "device", "metric", "t_ms", "value", "score", "expected", "spread"),
    "readings": ("site", "device", "metric", "t_ms", "value", "seq", "kafka_offset"),
    "late": ("site", "device", "metric", "t_ms", "value", "reason", "source"),
    "rejected": _REFUSED,
    "quarantine": _REFUSED,
}
_LEFT_OUT_WHERE_NARROW = frozenset({"site", "reason", "kafka_offset"})

Row = dict[str, Any]


async def show(
    settings: Settings, topic: str, *, device: str | None, follow: bool, limit: int, as_json: bool
) -> None:
    """Print a topic's rows; see ``headwater inspect --help``.

    :raises HeadwaterError: if there is no such topic.
    """
    known = [spec.name for spec in specs(settings.topics)]
    if topic not in known:
        raise HeadwaterError(f"no topic {topic!r}; the topics are {', '.join(known)}")
    decoder = RecordDecoder(settings.metrics, settings.gateway.max_rows, codecs=settings.codecs)
    kept: deque[Row] = deque(maxlen=limit or None)
    async for record in read_all(settings.kafka, [topic]):
        kept.extend(row for row in rows(topic, record, decoder) if _wanted(row, device))
    console = Console() if sys.stdout.isatty() else Console(width=_UNFOLDED)
    _print(console, topic, list(kept), as_json=as_json)
    if follow:
        with suppress(asyncio.CancelledError):
            async for record in _follow(settings.kafka, topic):
                found = [row for row in rows(topic, record, decoder) if _wanted(row, device)]
                if found:
                    _print(console, topic, found, as_json=as_json)


def rows(topic: str, record: Any, decoder: RecordDecoder) -> list[Row]:
    """Return the rows of one record: of a frame, of JSON, or its headers and first bytes."""
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    if is_time_marker(record):
        return []
    if topic in OF_READINGS:
        told: list[Row] = readings_of(record.partition, [record], decoder)[0].to_pylist()
        return told or [_raw(record, headers)]
    if topic in TABLES:
        try:
            found: list[Row] = rows_of(topic, record).to_pylist()
        except DecodeError:
            return [_raw(record, headers)]
        return found
    if record.value and record.value[:1] in b"{[":
        with suppress(orjson.JSONDecodeError):
            content = orjson.loads(record.value)
            if isinstance(content, dict) and "hw-reason" not in headers:
                return [content]
    return [_raw(record, headers)]


def _raw(record: Any, headers: dict[str, str]) -> Row:
    value = record.value or b""
    return {
        "partition": record.partition,
        "offset": record.offset,
        **{name.removeprefix("hw-"): text for name, text in headers.items()},
        "bytes": value[:_SHOWN_BYTES].decode("utf-8", "backslashreplace"),
    }


def _wanted(row: Row, device: str | None) -> bool:
    return device is None or row.get("device") == device


async def _follow(bootstrap: str, topic: str) -> AsyncIterator[Any]:
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="latest"
    )
    await consumer.start()
    try:
        async for record in consumer:
            yield record
    finally:
        await consumer.stop()


def _print(console: Console, topic: str, found: list[Row], *, as_json: bool) -> None:
    if as_json:
        for row in found:
            console.out(orjson.dumps(row, default=str).decode(), highlight=False)
        return
    if not found:
        console.print(f"[dim]{topic}: nothing yet[/]")
        return
    names = _COLUMNS.get(topic) or tuple(dict.fromkeys(name for row in found for name in row))
    narrow = console.width < _WIDE and topic in _COLUMNS and names is not _REFUSED
    if narrow:
        names = tuple(name for name in names if name not in _LEFT_OUT_WHERE_NARROW)
    table = Table(title=topic, box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for name in names:
        is_number = isinstance(found[-1].get(name), int | float) and not name.endswith("_ms")
        table.add_column(
            name.removesuffix("_ms"), justify="right" if is_number else "left", overflow="fold"
        )
    for row in found:
        table.add_row(*(_cell(name, row.get(name), narrow=narrow) for name in names))
    console.print(table)


def _cell(name: str, value: Any, *, narrow: bool) -> str:
    if value is None:
        return ""
    if name.endswith("_ms") and isinstance(value, int):
        at = datetime.fromtimestamp(value / 1000, tz=UTC)
        return f"{at:%H:%M:%S}" if narrow else f"{at:%Y-%m-%d %H:%M:%S}"
    return escape(f"{value:.5g}" if isinstance(value, float) else str(value))
