"""From an alert that changed to its state in ``alerts``, and to its messages or its groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import orjson
from prometheus_client import Counter, Gauge

from streams.agents.editions import Edition, Editions
from streams.agents.routing import mutes_of, routes_of
from streams.core.alert_states import TOLD_BY_EDGE, message_id
from streams.core.grouping import FIRING, Route, labels_of, routes_for
from streams.core.mutes import Mutes
from streams.core.placement import group_partition
from streams.ports import Produce
from streams.settings import Channel, Settings, Webhook
from streams.topics import ALERT_GROUPS, ALERTS, DELIVERIES

CONTROL_HEADER = "hw-control"
"""Of a record of ``alert.groups`` that goes to every partition: a silence, a source, and so on."""
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
        for rule in [*counts, *(rule for rule in self._counts if rule not in counts)]:
            of_rule = self._counts.setdefault(rule, {})
            of_rule.pop(self._place, None)
            if rule in counts:
                of_rule[self._place] = counts[rule]
            for i, state in enumerate(("pending", "firing")):
                _STANDING.labels(rule, state).set(sum(one[i] for one in of_rule.values()))

    def forget(self) -> None:
        """Count this partition no more: another process has it."""
        self.show({})


class Outbox:
    """Makes the messages of one partition."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self._partition = partition
        ways: list[Webhook | Channel] = [*settings.webhooks, *settings.channels]
        self._ways = {way.name: way for way in ways}

    def tell(
        self, alert: Mapping[str, Any], endpoints: Iterable[str] | None = None
    ) -> list[Produce]:
        """Return a message about one alert for each endpoint that takes it.

        :param endpoints: their names; default all.
        """
        return [
            self._message(
                message_id(alert["id"], alert["state"], name, alert.get("turn", 0)), name, alert
            )
            for name in (self._ways if endpoints is None else endpoints)
            if self._takes(name, [alert])
        ]

    def tell_group(
        self,
        group: Mapping[str, Any],
        alerts: Sequence[Mapping[str, Any]],
        endpoints: Iterable[str],
        turn: int,
    ) -> list[Produce]:
        """Return a message about a group for each endpoint that takes it.

        :param alerts: all that it is about; the first is for readers that know of no groups.
        :param turn: tells the messages of a group apart.
        """
        return [
            self._message(
                message_id(group["id"], group["reason"], name, turn), name, alerts[0], group
            )
            for name in endpoints
            if self._takes(name, alerts)
        ]

    def _takes(self, name: str, alerts: Sequence[Mapping[str, Any]]) -> bool:
        if all(name in alert.get(TOLD_BY_EDGE, ()) for alert in alerts):
            return False
        # Routes may be applied before a process is started with an endpoint that they name. The
        # message waits in the outbox, and is dead there with that reason: it is not lost.
        way = self._ways.get(name)
        return way is None or way.takes(alerts[0]["tenant"])

    def _message(
        self,
        identity: str,
        endpoint: str,
        alert: Mapping[str, Any],
        group: Mapping[str, Any] | None = None,
    ) -> Produce:
        entry = {"id": identity, "endpoint": endpoint, "status": "pending", "alert": alert}
        if group is not None:
            entry["group"] = group
        return Produce(DELIVERIES, orjson.dumps(entry), identity.encode(), self._partition)


class Teller:
    """Tells of alerts: to their groups where a route takes them, else to all endpoints.

    An alert that stands while settings change goes on by the routes that it was told by: it is
    *kept* under their edition, so that whoever was told of it is told its end.
    """

    def __init__(self, settings: Settings, partition: int, editions: Editions) -> None:
        self._partition = partition
        self._partitions = settings.topics.partitions
        self._outbox = Outbox(settings, partition)
        self._editions = editions
        self._ways: dict[str, tuple[list[Route], Mutes]] = {}
        self._kept: dict[str, tuple[int, str]] = {}

    def keep(self, alert: str, shard: int, edition: Edition) -> None:
        """Note under which edition an alert was told that stands."""
        self._kept.setdefault(alert, (shard, edition.id))

    def kept(self, shard: int) -> dict[str, str]:
        """Return what :meth:`restore` takes of a shard."""
        return {alert: edition for alert, (of, edition) in self._kept.items() if of == shard}

    def restore(self, shard: int, kept: Mapping[str, str]) -> None:
        """Take back what was stored."""
        self._kept |= {alert: (shard, edition) for alert, edition in kept.items()}

    def tell(self, alert: dict[str, Any], edition: Edition) -> list[Produce]:
        """Return the records of an alert in its new state.

        :param alert: what goes into ``alerts``; ``turn`` where a correction made it fire again.
        :param edition: by which it was judged.
        """
        if alert["id"] in self._kept:
            edition = self._editions.of(self._kept[alert["id"]][1])
            if alert["state"] != FIRING:
                del self._kept[alert["id"]]
        if edition.id not in self._ways:
            self._ways[edition.id] = (routes_of(edition), mutes_of(edition.settings))
        all_routes, mutes = self._ways[edition.id]
        _ALERTS.labels(alert["rule"], alert["state"]).inc()
        out = [Produce(ALERTS, orjson.dumps(alert), alert["id"].encode(), self._partition)]
        routes = routes_for(all_routes, alert)
        if not routes:
            return out + self._outbox.tell(alert)
        if mutes.is_source(labels_of(alert)):
            out += self._to_all({"kind": "source", "alert": alert})
        for route in routes:
            key = group_key(route.name, route.group_of(alert))
            given = {"route": route.name, "config": edition.id, "alert": alert}
            value = orjson.dumps(given)
            out.append(Produce(ALERT_GROUPS, value, key, group_partition(key, self._partitions)))
        return out

    def _to_all(self, control: Mapping[str, Any]) -> list[Produce]:
        value = orjson.dumps(control)
        headers = {CONTROL_HEADER: b"1"}
        return [
            Produce(ALERT_GROUPS, value, None, partition, headers)
            for partition in range(self._partitions)
        ]


def group_key(route: str, labels: Iterable[str]) -> bytes:
    """Return the Kafka key of a group of alerts."""
    return "/".join((route, *labels)).encode()
