"""Reading alerts and dead messages back from their compacted topics."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from rich.table import Table

from streams.adapters.log_reader import read_all
from streams.errors import HeadwaterError
from streams.settings import Settings
from streams.topics import ALERTS, DELIVERIES

_COLOURS = {"firing": "bold red", "resolved": "green"}


async def read_alerts(settings: Settings) -> list[dict[str, Any]]:
    """Return every alert in its last state, oldest first."""
    last: dict[bytes, dict[str, Any]] = {}
    async for record in read_all(settings.kafka, [ALERTS]):
        if record.value:
            last[record.key] = orjson.loads(record.value)
    return sorted(last.values(), key=lambda alert: int(alert["began_ms"]))


def table_of(alerts: list[dict[str, Any]]) -> Table:
    """Return alerts as a table for the terminal."""
    table = Table("state", "severity", "rule", "site", "device", "began (UTC)", "why")
    for alert in alerts:
        began = datetime.fromtimestamp(alert["began_ms"] / 1000, tz=UTC)
        state = alert["state"]
        table.add_row(
            f"[{_COLOURS.get(state, 'default')}]{state}[/]",
            alert["severity"],
            alert["rule"],
            alert["site"],
            alert["device"],
            f"{began:%Y-%m-%d %H:%M:%S}",
            alert["why"],
        )
    return table


async def redeliver(settings: Settings, message: str) -> None:
    """Put a dead message back into the outbox.

    :raises HeadwaterError: if there is no dead message of this id.
    """
    found = None
    async for record in read_all(settings.kafka, [DELIVERIES]):
        if record.key == message.encode():
            found = record
    entry = orjson.loads(found.value) if found is not None and found.value else None
    if found is None or entry is None or entry["status"] != "dead":
        raise HeadwaterError(f"{message}: no dead message has this id")
    pending = {key: value for key, value in entry.items() if key != "reason"} | {
        "status": "pending"
    }
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait(
            DELIVERIES, orjson.dumps(pending), key=found.key, partition=found.partition
        )
    finally:
        await producer.stop()
