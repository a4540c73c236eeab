"""From an alert that changed to its state in ``alerts`` and its messages in ``deliveries``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import orjson
from prometheus_client import Counter, Gauge

from streams.core.alert_states import message_id
from streams.ports import Produce
from streams.settings import Channel, Settings, Webhook
from streams.topics import ALERTS, DELIVERIES

_ALERTS = Counter("headwater_alerts_changes", "Alerts that changed state.", ["rule", "state"])
_STANDING = Gauge(
    "headwater_alerts_standing", "Alerts by state, as of the last checkpoint.", ["rule", "state"]
)


class StandingCounts:
    """Shows how many alerts of each rule stand, over all partitions of this process."""

    _counts: ClassVar[dict[str, dict[tuple[str, int], tuple[int, int]]]] = {}

    def __init__(self, topic: str, partition: int) -> None:
        self._place = (topic, partition)

    def show(self, counts: Mapping[str, tuple[int, int]]) -> None:
        """Show the counts of this partition: rule -> how many are pending, and how many fire."""
        for rule, both in counts.items():
            of_rule = self._counts.setdefault(rule, {})
            of_rule[self._place] = both
            for i, state in enumerate(("pending", "firing")):
                _STANDING.labels(rule, state).set(sum(one[i] for one in of_rule.values()))


class Teller:
    """Tells all endpoints that take an alert."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self._partition = partition
        self._endpoints: list[Webhook | Channel] = [*settings.webhooks, *settings.channels]

    def tell(self, alert: dict[str, Any]) -> Iterable[Produce]:
        """Yield the records of an alert in its new state.

        :param alert: what goes into ``alerts``; ``turn`` where a correction made it fire again.
        """
        _ALERTS.labels(alert["rule"], alert["state"]).inc()
        yield Produce(ALERTS, orjson.dumps(alert), alert["id"].encode(), self._partition)
        for endpoint in self._endpoints:
            if endpoint.takes(alert["tenant"]):
                yield self._message(alert, endpoint.name)

    def _message(self, alert: dict[str, Any], endpoint: str) -> Produce:
        identity = message_id(alert["id"], alert["state"], endpoint, alert.get("turn", 0))
        entry = {"id": identity, "endpoint": endpoint, "status": "pending", "alert": alert}
        return Produce(DELIVERIES, orjson.dumps(entry), identity.encode(), self._partition)
