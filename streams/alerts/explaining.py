"""``headwater rules explain``: why an alert is what it is, and who was told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streams import lake
from streams.adapters.log_reader import read_all
from streams.alerts.book import read_alert
from streams.alerts.desk import read_desk
from streams.alerts.disabled import is_note
from streams.alerts.outbox_http import alerts_of, ask_outbox
from streams.errors import HeadwaterError
from streams.settings import Settings
from streams.terminal import utc
from streams.topics import DELIVERIES

_AROUND = 10
"""Windows or scores shown before the alert began, and after."""


@dataclass(slots=True)
class Explanation:
    """An alert, its rule as the settings have it now, what it was judged on, and its messages."""

    alert: dict[str, Any]
    rule: dict[str, Any] | None
    evidence: list[dict[str, Any]] = field(default_factory=list)
    """Windows or scores of its series around it, from the lake."""
    missing: str = ""
    """Why there is no evidence."""
    messages: list[dict[str, Any]] = field(default_factory=list)
    """Those that are pending with ``attempts``, ``last_error`` and ``next_try_ms``."""
    unasked: str = ""
    """Why nothing is known of what they wait for."""

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        names = ("alert", "rule", "evidence", "missing", "messages", "unasked")
        return {name: getattr(self, name) for name in names}


async def explain(settings: Settings, identity: str, now_ms: int) -> Explanation:
    """Explain an alert.

    :raises HeadwaterError: if there is none of this id.
    """
    alert = await read_alert(settings, identity)
    desk = await read_desk(settings)
    (alert,) = desk.standing(settings, [alert], now_ms)
    rule = next((one for one in settings.rules if one.name == alert["rule"]), None)
    shown = None if rule is None else rule.model_dump(mode="json", exclude_defaults=True)
    found = Explanation(alert, shown)
    try:
        found.evidence = _evidence(settings, alert)
    except HeadwaterError as error:
        found.missing = str(error)
    found.messages = await _messages(settings, identity)
    pending = [one for one in found.messages if one["status"] == "pending"]
    if pending:
        waiting, found.unasked = await ask_outbox(settings, identity)
        for one in pending:
            one.update(waiting.get(one["id"], {}))
    return found


def _evidence(settings: Settings, alert: dict[str, Any]) -> list[dict[str, Any]]:
    where = {name: alert[name] for name in ("tenant", "device", "metric") if alert[name] != "*"}
    rule = next((one for one in settings.rules if one.name == alert["rule"]), None)
    window = alert.get("window") or (rule.window if rule is not None else None)
    if window is None and rule is not None and rule.of is not None:
        raise HeadwaterError(f"a composition of {', '.join(rule.of)}: explain their alerts")
    span_ms = max(alert["sample"]["t_ms"] - alert["began_ms"], 60_000)
    span = {
        "since_ms": alert["began_ms"] - _AROUND * span_ms,
        "until_ms": alert["sample"]["t_ms"] + _AROUND * span_ms,
    }
    if window is None:
        rows, time = lake.anomalies(**where, **span, root=settings.lake).to_pylist(), "t_ms"
    else:
        rows = lake.windows(**where, **span, window=window, root=settings.lake).to_pylist()
        time = "start_ms"
    before = [row for row in rows if row[time] < alert["began_ms"]][-_AROUND:]
    after = [row for row in rows if row[time] >= alert["began_ms"]][: 2 * _AROUND]
    return [*before, *after]


async def _messages(settings: Settings, identity: str) -> list[dict[str, Any]]:
    """Return what happened to the messages about an alert, as far as the outbox still holds it."""
    found: dict[bytes, dict[str, Any]] = {}
    async for record in read_all(settings.kafka, [DELIVERIES]):
        if is_note(record.key):
            continue
        if not record.value:
            if record.key in found:
                found[record.key] |= {"status": "delivered", "at_ms": record.timestamp}
            continue
        entry = orjson.loads(record.value)
        group = entry.get("group")
        if identity in alerts_of(entry):
            found[record.key] = {
                "id": entry["id"],
                "endpoint": entry["endpoint"],
                "what": f"group {group['reason']}" if group else entry["alert"]["state"],
                "status": entry["status"],
                "reason": entry.get("reason", ""),
                "at_ms": record.timestamp,
            }
    return list(found.values())


def page(found: Explanation) -> RenderableType:
    """Return an explanation for the terminal."""
    alert = found.alert
    facts = Table(show_header=False, box=None)
    for name in ("id", "state", "muted", "acknowledged_by", "resolved_by", "severity", "tenant"):
        if name in alert:
            facts.add_row(name, Text(str(alert[name])))
    for name in ("site", "device", "metric", "window"):
        if name in alert:
            facts.add_row(name, Text(str(alert[name])))
    for name in ("began_ms", "fired_ms", "resolved_ms"):
        if alert[name] is not None:
            facts.add_row(name.removesuffix("_ms"), utc(alert[name], with_ms=True))
    rule = (
        f"rule {alert['rule']}: it is in the settings no more"
        if found.rule is None
        else "rule " + ", ".join(f"{name} = {value}" for name, value in found.rule.items())
    )
    parts: list[RenderableType] = [Text(alert["why"], style="bold"), facts, Text(rule), Text()]
    parts.append(Text(found.missing) if found.missing else _evidence_table(found))
    parts.append(_message_table(found.messages))
    return Group(*parts, Text(found.unasked)) if found.unasked else Group(*parts)


def _evidence_table(found: Explanation) -> Table:
    """Windows have ``start_ms``; else they are scores."""
    windows = bool(found.evidence) and "start_ms" in found.evidence[0]
    names = (
        ("start_ms", "rank", "count", "min", "mean", "max")
        if windows
        else ("t_ms", "value", "score", "expected", "spread")
    )
    title, words = ("windows", ()) if windows else ("scores", ("why",))
    table = Table("", *names, *words, title=title)
    alert = found.alert
    for row in found.evidence:
        ended = alert["resolved_ms"] is not None and row[names[0]] >= alert["resolved_ms"]
        mark = "●" if row[names[0]] >= alert["began_ms"] and not ended else ""
        numbers = ("" if row[name] is None else f"{row[name]:.6g}" for name in names[1:])
        said = (
            Text(row.get(name) or "") for name in words
        )  # Rows of earlier versions have no words.
        table.add_row(mark, utc(row[names[0]], with_ms=not windows), *numbers, *said)
    return table


def _message_table(messages: list[dict[str, Any]]) -> Table:
    table = Table("message", "endpoint", "what", "status", "at (UTC)", "reason", title="messages")
    for one in messages:
        table.add_row(
            *(one[name] for name in ("id", "endpoint", "what", "status")),
            utc(one["at_ms"], with_ms=True),
            Text(one["reason"] or _waits(one)),
        )
    return table


def _waits(message: dict[str, Any]) -> str:
    """Say why a message is pending, if its process has told."""
    if "attempts" not in message:
        return ""
    next_ms, error = message["next_try_ms"], message["last_error"]
    parts = [
        f"{message['attempts']} failed: {error}" if message["attempts"] else error,
        "waits for the message before it" if next_ms is None else f"next try {utc(next_ms)}",
    ]
    return "; ".join(part for part in parts if part)
