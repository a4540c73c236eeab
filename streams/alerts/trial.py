"""Rules tried out in memory: readings in, alerts out, by the very logic that runs against Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from streams.agents.alerting import make_alerting
from streams.agents.peers import make_peers
from streams.agents.readings import make_readings
from streams.agents.window_alerting import make_window_alerting
from streams.ports import TIME_MARKER_HEADER, PartitionLogic
from streams.settings import Settings
from streams.testing import Record
from streams.topics import AGGREGATES, ALERT_PEERS, ALERTS, ANOMALIES, READINGS


@dataclass(frozen=True, slots=True)
class Happened:
    """An alert that changed, and the log time at which it was told."""

    at_ms: int
    alert: dict[str, Any]


class Trial:
    """One partition of all between a reading and an alert; time is handed in, and ascends."""

    def __init__(self, settings: Settings) -> None:
        alone = settings.model_copy(
            update={
                "topics": settings.topics.model_copy(update={"partitions": 1}),
                # What edges judge is tried out here as in the cloud: it is the same engine.
                "rules": [
                    one.model_copy(update={"where": "cloud", "commands": []})
                    for one in settings.rules
                ],
                **{name: [] for name in ("webhooks", "channels", "routes", "inhibitions")},
            }
        )
        self._logics: dict[str, PartitionLogic] = {
            READINGS: make_readings(alone)(0, 1),
            ANOMALIES: make_alerting(alone)(0, 1),
            AGGREGATES: make_window_alerting(alone)(0, 1),
            ALERT_PEERS: make_peers(alone)(0, 1),
        }
        self._offsets = dict.fromkeys(self._logics, 0)
        self.happened: list[Happened] = []
        self._last: dict[str, dict[str, Any]] = {}

    def send(self, frame: bytes, at_ms: int) -> None:
        """Take a frame of readings that came in at a time."""
        self._put(READINGS, frame, at_ms)

    def pass_time(self, at_ms: int) -> None:
        """Let time pass: what is due by then happens."""
        for topic in self._logics:
            self._put(topic, b"", at_ms, ((TIME_MARKER_HEADER, b"1"),))

    def firing(self, rule: str) -> list[dict[str, Any]]:
        """Return the alerts of a rule that fire now."""
        return [a for a in self._last.values() if a["rule"] == rule and a["state"] == "firing"]

    def alerts(self) -> Iterator[dict[str, Any]]:
        """Yield every alert in its last state, in the order in which they first fired."""
        yield from self._last.values()

    def _put(
        self, topic: str, value: bytes, at_ms: int, headers: tuple[tuple[str, bytes], ...] = ()
    ) -> None:
        offset = self._offsets[topic]
        self._offsets[topic] = offset + 1
        for made in self._logics[topic].fold([Record(offset, at_ms, None, value, headers)]):
            if made.topic == ALERTS:
                alert = orjson.loads(made.value or b"")
                self._last[alert["id"]] = alert
                self.happened.append(Happened(at_ms, alert))
            elif made.topic in self._logics:
                self._put(made.topic, made.value or b"", at_ms, (*made.headers.items(),))
