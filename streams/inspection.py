"""Records of any topic as rows that a person can read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer
from rich.console import Console
from rich.table import Table

from streams.adapters.lake import TABLES, rows_of
from streams.adapters.log_reader import read_all
from streams.errors import DecodeError, HeadwaterError
from streams.ports import TIME_MARKER_HEADER
from streams.settings import Settings
from streams.topics import specs

_SHOWN_BYTES = 60
_COLUMNS: dict[str, tuple[str, ...]] = {
    "aggregates": (
        *("site", "device", "metric", "window", "start_ms", "rank", "reason"),
        *("count", "mean", "min", "max", "sd"),
    ),
    "anomalies": ("site", "device", "metric", "t_ms", "value", "score", "expected", "spread"),
    "readings": ("site", "device", "metric", "t_ms", "value", "seq", "kafka_offset"),
    "late": ("site", "device", "metric", "t_ms", "value", "reason", "source"),
}

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
    kept: deque[Row] = deque(maxlen=limit or None)
    async for record in read_all(settings.kafka, [topic]):
        kept.extend(row for row in rows(topic, record) if _wanted(row, device))
    console = Console()
    _print(console, topic, list(kept), as_json=as_json)
    if follow:
        with suppress(asyncio.CancelledError):
            async for record in _follow(settings.kafka, topic):
                found = [row for row in rows(topic, record) if _wanted(row, device)]
                if found:
                    _print(console, topic, found, as_json=as_json)


def rows(topic: str, record: Any) -> list[Row]:
    """Return the rows of one record: of a frame, of JSON, or its headers and first bytes."""
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    if TIME_MARKER_HEADER in headers:
        return []
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
    table = Table(*names, title=topic)
    for row in found:
        table.add_row(*(_cell(name, row.get(name)) for name in names))
    console.print(table)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name.endswith("_ms") and isinstance(value, int):
        return f"{datetime.fromtimestamp(value / 1000, tz=UTC):%Y-%m-%d %H:%M:%S}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
