"""What people say of alerts: acknowledged, silenced, resolved; kept in the topic ``silences``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from rich.markup import escape
from rich.table import Table

from streams.adapters.log_reader import read_all
from streams.agents.grouping import silence_of
from streams.agents.routing import mutes_of
from streams.agents.telling import CONTROL_HEADER
from streams.core.grouping import labels_of
from streams.core.mutes import Mutes
from streams.errors import HeadwaterError
from streams.settings import Settings
from streams.terminal import utc
from streams.topics import ALERT_GROUPS, SILENCES

_PARTITION = 0
"""Where all of ``silences`` lies, so that it has one order."""
_TAKES_BACK = "unsilence"


@dataclass(slots=True)
class Desk:
    """What was said: silences by id, acknowledgements and resolutions by alert."""

    silences: dict[str, dict[str, Any]] = field(default_factory=dict)
    acknowledged: dict[str, dict[str, Any]] = field(default_factory=dict)
    resolved: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self, control: Mapping[str, Any], said_ms: int) -> None:
        """Take the next control, in the order of the topic; *said_ms* is its log time."""
        said = dict(control)
        match control["kind"]:
            case "silence":
                one = silence_of(control, said_ms)
                said |= {"starts_ms": one.starts_ms, "ends_ms": one.ends_ms}
                self.silences[control["id"]] = said
            case "unsilence":
                self.silences.pop(control["id"], None)
            case "acknowledge":
                self.acknowledged[control["alert"]] = said
            case "resolve":
                self.resolved[control["alert"]] = said

    def standing(
        self, settings: Settings, alerts: Iterable[Mapping[str, Any]], now_ms: int
    ) -> list[dict[str, Any]]:
        """Return alerts with what is the case beside their state: ``muted`` and ``acknowledged``.

        A state by hand holds until the rule tells another one.
        """
        alerts = list(alerts)
        mutes = self._mutes(settings, alerts)
        return [self._look_at(alert, mutes, now_ms) for alert in alerts]

    def _mutes(self, settings: Settings, alerts: Iterable[Mapping[str, Any]]) -> Mutes:
        mutes = mutes_of(settings)
        mutes.silences = {identity: silence_of(one) for identity, one in self.silences.items()}
        for alert in alerts:
            labels = labels_of(alert)
            if alert["state"] == "firing" and mutes.is_source(labels):
                mutes.fires(alert["id"], labels)
        return mutes

    def _look_at(self, alert: Mapping[str, Any], mutes: Mutes, now_ms: int) -> dict[str, Any]:
        seen = dict(alert)
        if alert["state"] != "firing":
            return seen
        turn = alert.get("turn", 0)
        resolved = self.resolved.get(alert["id"])
        acknowledged = self.acknowledged.get(alert["id"])
        if resolved is not None and resolved.get("turn", 0) == turn:
            seen |= {"state": "resolved", "resolved_by": resolved["author"]}
        elif acknowledged is not None and acknowledged.get("turn", 0) == turn:
            seen["acknowledged_by"] = acknowledged["author"]
        if seen["state"] == "firing":
            muted = mutes.muted_by(labels_of(alert), now_ms)
            seen |= {} if muted is None else {"muted": muted}
        return seen


async def read_desk(settings: Settings) -> Desk:
    """Return what was said so far.

    :raises TopicMismatchError: if there is no topic for it.
    """
    desk = Desk()
    async for record in read_all(settings.kafka, [SILENCES]):
        if record.value:
            desk.take(orjson.loads(record.value), record.timestamp)
    return desk


async def say(settings: Settings, control: Mapping[str, Any]) -> None:
    """Note a control, and hand it to the groups of every partition.

    :param settings: in force, with what was applied.
    :raises HeadwaterError: if there are no routes: nobody would heed it.
    """
    if not settings.routes:
        raise HeadwaterError(
            "without routes every alert is told at once, and nothing holds it back; "
            "add [[routes]] (docs/routing.md), and apply them: headwater config apply"
        )
    about = control.get("id") or control["alert"]
    kind = "silence" if control["kind"] == _TAKES_BACK else control["kind"]
    value = orjson.dumps(control)
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka, acks="all") as producer:
        await producer.send_and_wait(
            SILENCES, value, key=f"{kind}/{about}".encode(), partition=_PARTITION
        )
        for partition in range(settings.topics.partitions):
            await producer.send_and_wait(
                ALERT_GROUPS, value, headers=[(CONTROL_HEADER, b"1")], partition=partition
            )


def silences_table(desk: Desk, now_ms: int) -> Table:
    """Return the silences as a table for the terminal."""
    table = Table("id", "what", "from (UTC)", "until (UTC)", "author", "comment")
    for one in sorted(desk.silences.values(), key=lambda one: int(one["ends_ms"])):
        what = " ".join(f"{name}={','.join(globs)}" for name, globs in one["globs"].items())
        over = now_ms >= one["ends_ms"]
        table.add_row(
            one["id"],
            escape(what),
            utc(one["starts_ms"]),
            utc(one["ends_ms"]) + (" (over)" if over else ""),
            escape(one["author"]),
            escape(one.get("comment", "")),
        )
    return table
