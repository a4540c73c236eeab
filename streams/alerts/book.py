"""Reading alerts and dead messages back from their compacted topics."""

from __future__ import annotations

from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from rich.markup import escape
from rich.table import Table

from streams.adapters.log_reader import read_all
from streams.alerts.disabled import is_note
from streams.errors import HeadwaterError
from streams.settings import Settings
from streams.terminal import utc
from streams.topics import ALERTS, DELIVERIES

_COLOURS = {"firing": "bold red", "resolved": "green"}


async def read_alerts(settings: Settings) -> list[dict[str, Any]]:
    """Return every alert in its last state, oldest first."""
    last: dict[bytes, dict[str, Any]] = {}
    async for record in read_all(settings.kafka, [ALERTS]):
        if record.value:
            last[record.key] = orjson.loads(record.value)
    return sorted(last.values(), key=lambda alert: int(alert["began_ms"]))


async def read_alert(settings: Settings, identity: str) -> dict[str, Any]:
    """Return an alert in its last state.

    :raises HeadwaterError: if there is none of this id.
    """
    for alert in await read_alerts(settings):
        if alert["id"] == identity:
            return alert
    raise HeadwaterError(f"{identity}: no alert has this id; see: headwater alerts list")


def table_of(alerts: list[dict[str, Any]]) -> Table:
    """Return alerts as a table for the terminal."""
    table = Table("id", "state", "severity", "rule", "site", "device", "began (UTC)", "why")
    for alert in alerts:
        state = alert["state"]
        more = "acknowledged" if "acknowledged_by" in alert else alert.get("muted", "")
        table.add_row(
            alert["id"],
            f"[{_COLOURS.get(state, 'default')}]{state}[/] {more}",
            alert["severity"],
            alert["rule"],
            escape(alert["site"]),
            escape(alert["device"]),
            utc(alert["began_ms"]),
            escape(alert["why"]),
        )
    return table


async def read_dead(settings: Settings) -> list[dict[str, Any]]:
    """Return the messages that were given up, each with its reason and ``partition``."""
    last: dict[bytes, dict[str, Any]] = {}
    async for record in read_all(settings.kafka, [DELIVERIES]):
        if is_note(record.key):
            continue
        last.pop(record.key, None)
        entry = orjson.loads(record.value) if record.value else {"status": ""}
        if entry["status"] == "dead":
            last[record.key] = {**entry, "partition": record.partition}
    return list(last.values())


async def redeliver(settings: Settings, message: str | None, endpoint: str | None) -> int:
    """Put dead messages back into the outbox, under their own ids and in their order.

    :param message: the id of one; or else
    :param endpoint: whose dead messages all are meant.
    :returns: how many.
    :raises HeadwaterError: if there is none.
    """
    dead = await read_dead(settings)
    wanted = [e for e in dead if message in (None, e["id"]) and endpoint in (None, e["endpoint"])]
    if not wanted:
        raise HeadwaterError(
            f"{message}: no dead message has this id"
            if message is not None
            else f"{endpoint}: no message to this endpoint is dead"
        )
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka, acks="all") as producer:
        for entry in wanted:
            pending = {k: v for k, v in entry.items() if k not in ("reason", "partition")}
            await producer.send_and_wait(
                DELIVERIES,
                orjson.dumps(pending | {"status": "pending"}),
                key=entry["id"].encode(),
                partition=entry["partition"],
            )
    return len(wanted)


def dead_table(dead: list[dict[str, Any]]) -> Table:
    """Return dead messages as a table for the terminal."""
    table = Table("id", "endpoint", "about", "reason")
    for entry in dead:
        about = (entry.get("group") or entry["alert"])["why"]
        table.add_row(entry["id"], entry["endpoint"], escape(about), escape(entry["reason"]))
    return table
