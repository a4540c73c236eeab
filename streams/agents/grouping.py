"""The agent on ``alert.groups``: from alerts to messages about groups of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from prometheus_client import Counter, Gauge

from streams.adapters import shard_codec
from streams.adapters.rejected import rejected_from_log
from streams.agents.editions import Edition, Editions
from streams.agents.routing import mutes_of, routes_of
from streams.agents.stamps import Stamp, dirty, number_of
from streams.agents.telling import CONTROL_HEADER, Outbox, group_key
from streams.core.grouping import CHANGED, Group, Groups, Member, Notice, Route, labels_of
from streams.core.log_clock import LogClock
from streams.core.mutes import LABELS, Matcher, Silence
from streams.core.placement import shard_of
from streams.errors import DecodeError
from streams.ports import (
    LogicFactory,
    LogRecord,
    PartitionLogic,
    Produce,
    header,
    is_time_marker,
)
from streams.settings import Settings
from streams.settings.applied import Document
from streams.topics import ALERT_GROUPS

RoutesOf = Callable[[str], Mapping[str, Route]]
"""The routes of an edition, by name."""
_NOTICES = Counter("headwater_alerts_notices", "Messages made.", ["route", "reason"])
_UNGROUPED = Counter(
    "headwater_alerts_ungrouped", "Alerts told by themselves: alerts.max_grouped is met."
)
_MUTED = Gauge(
    "headwater_alerts_muted", "Firing alerts that are kept back, by partition.", ["partition"]
)


def make_grouping(
    settings: Settings, documents: Mapping[str, Document] | None = None
) -> LogicFactory:
    """Return the factory of the groups.

    :param documents: what the topic ``config`` holds; more may come while the logic runs.
    """

    def factory(partition: int, partitions: int) -> PartitionLogic:
        return GroupLogic(settings, partition, Editions(settings, documents))

    return factory


class _Part:
    """Some groups, which know nothing of others, and all that mutes."""

    def __init__(self, edition: Edition, limit: int) -> None:
        self.edition = edition
        self.mutes = mutes_of(edition.settings)
        self.groups = Groups(self.mutes, limit=limit)
        self.stamp = Stamp()

    def change(self, after: Edition, now_ms: int) -> list[Notice]:
        """Let other inhibitions and maintenance mute from now on, and routes be as they are now."""
        before, self.mutes = self.mutes, mutes_of(after.settings)
        self.edition = after
        self.mutes.silences = before.silences
        for alert, labels in before.sources.items():
            if self.mutes.is_source(labels):
                self.mutes.fires(alert, labels)
        self.groups.mutes = self.mutes
        self.groups.follow(routes_of(after))
        return self.groups.mutes_changed(now_ms)

    def pass_time(self, now_ms: int, offset: int) -> list[Notice]:
        if not self.groups.is_due(now_ms):
            return []
        self.stamp.touch(offset)
        return self.groups.pass_time(now_ms)

    def control(self, given: Mapping[str, Any], now_ms: int) -> list[Notice]:
        match given["kind"]:
            case "silence":
                self.mutes.silences[given["id"]] = silence_of(given, now_ms)
            case "unsilence":
                self.mutes.silences.pop(given["id"], None)
            case "acknowledge":
                self.groups.acknowledge(given["alert"])
                return []
            case "resolve":
                return self.groups.resolve(given["alert"], now_ms)
            case "source":
                if not self._source(given["alert"]):
                    return []
        return self.groups.mutes_changed(now_ms)

    def _source(self, alert: Mapping[str, Any]) -> bool:
        if alert["state"] == "firing":
            return self.mutes.fires(alert["id"], labels_of(alert))
        return self.mutes.ends(alert["id"])

    def state(self) -> dict[str, Any]:
        return {
            "config": self.edition.id,
            "groups": [_group_state(group) for group in self.groups.groups.values()],
            "silences": [_silence_state(one) for one in self.mutes.silences.values()],
            "sources": self.mutes.sources,
        }

    def restore(self, state: Mapping[str, Any], now_ms: int, routes: RoutesOf) -> None:
        for silence in state["silences"]:
            self.mutes.silences[silence["id"]] = silence_of(silence)
        for alert, labels in state["sources"].items():
            self.mutes.fires(alert, labels)
        for group in state["groups"]:
            route = routes(group["config"]).get(group["route"])
            if route is not None and len(group["labels"]) == len(route.group_by) + 1:
                labels = tuple(group["labels"])
                self.groups.groups[route.name, labels] = _group_from(group, Group(route, labels))
        self.groups.restored(now_ms)


class GroupLogic:
    """Alerts and controls in, messages to ``deliveries`` out.

    Groups are spread over parts by route and labels. What people say, and what inhibits, is in
    each part, so that every part decides by what was said before its own place in the log.
    """

    def __init__(self, settings: Settings, partition: int, editions: Editions) -> None:
        self._partition = partition
        self._editions = editions
        self._routes: dict[str, dict[str, Route]] = {}
        self._max_bytes = settings.gateway.max_rejected_bytes
        self._max_listed = settings.alerts.max_listed
        self._outbox = Outbox(settings, partition)
        self._limit, n = settings.alerts.max_grouped, settings.topics.shards
        self.parts = [_Part(editions.newest(), self._limit) for _ in range(n)]
        self._clock = LogClock()

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Take the next records of ``alert.groups``; see :class:`PartitionLogic`."""
        out: list[Produce] = []
        offsets = np.asarray([record.offset for record in records], np.int64)
        times = np.asarray([record.timestamp for record in records], np.int64)
        for record, now_ms in zip(records, self._clock.read(offsets, times).tolist(), strict=True):
            for part in self._live(record.offset):
                out += self._send(part.pass_time(now_ms, record.offset), record.offset)
            if is_time_marker(record):
                out += self._change(record, now_ms)
                continue
            try:
                given = _parsed(record)
            except DecodeError as error:
                out.append(self._reject(record, error))
            else:
                out += self._take(given, record.offset, now_ms)
        return out

    def dirty(self) -> Mapping[str, int]:
        """Return the changed parts."""
        return dirty([part.stamp for part in self.parts])

    def snapshot(self, key: str) -> bytes:
        """Return the groups of a part, and what mutes."""
        part = self.parts[int(key)]
        part.stamp.stored()
        muted = sum(one.groups.muted() for one in self.parts)
        _MUTED.labels(str(self._partition)).set(muted)
        return shard_codec.encode({"clock_ms": self._clock.now_ms, **part.state()})

    def restore(self, key: str, stamp: int, state: bytes) -> None:
        """Load a part; groups of routes that are gone are forgotten.

        :raises StateError: if it was written by another version, or with another number of shards.
        """
        loaded = shard_codec.decode(state)
        number = number_of(key, len(self.parts), ALERT_GROUPS, self._partition)
        part = self.parts[number] = _Part(self._editions.of(loaded["config"]), self._limit)
        self._clock.learn(stamp, loaded["clock_ms"])
        part.stamp.at = stamp
        part.restore(loaded, loaded["clock_ms"], self._routes_of)

    def forget_shown(self) -> None:
        """See :class:`~streams.ports.Showing`."""
        _MUTED.labels(str(self._partition)).set(0)

    def wants_time(self) -> bool:
        """Whether a message, or the end of a silence, waits for its time."""
        return any(part.groups.wants_time() for part in self.parts)

    def _change(self, record: LogRecord, now_ms: int) -> list[Produce]:
        """Take the settings that a marker names."""
        after = self._editions.at(record)
        out: list[Produce] = []
        for part in self._live(record.offset) if after is not None else ():
            if after is not None and part.edition.revision < after.revision:
                part.stamp.touch(record.offset)
                out += self._send(part.change(after, now_ms), record.offset)
        return out

    def _routes_of(self, edition: str) -> Mapping[str, Route]:
        if edition not in self._routes:
            routes = routes_of(self._editions.of(edition))
            self._routes[edition] = {route.name: route for route in routes}
        return self._routes[edition]

    def _live(self, offset: int) -> list[_Part]:
        return [part for part in self.parts if part.stamp.takes(offset)]

    def _take(self, given: dict[str, Any], offset: int, now_ms: int) -> list[Produce]:
        if "kind" in given:
            out: list[Produce] = []
            for part in self._live(offset):
                part.stamp.touch(offset)
                out += self._send(part.control(given, now_ms), offset)
            return out
        alert = given["alert"]
        route = self._routes_of(given.get("config", "")).get(given["route"])
        if route is None:
            return self._outbox.tell(alert)
        labels = "/".join(route.group_of(alert))
        part = self.parts[shard_of(route.name, labels, len(self.parts))]
        if not part.stamp.takes(offset):
            return []
        part.stamp.touch(offset)
        notices = part.groups.take(route, alert, now_ms)
        if notices is None:
            _UNGROUPED.inc()
            return self._outbox.tell(alert, route.endpoints)
        return self._send(notices, offset)

    def _send(self, notices: Sequence[Notice], offset: int) -> list[Produce]:
        out: list[Produce] = []
        for notice in notices:
            _NOTICES.labels(notice.route.name, notice.reason).inc()
            if notice.reason == CHANGED and len(notice.alerts) == 1:
                out += self._outbox.tell(notice.alerts[0], notice.endpoints)
                continue
            group = self._about(notice)
            out += self._outbox.tell_group(group, notice.alerts, notice.endpoints, offset)
        return out

    def _about(self, notice: Notice) -> dict[str, Any]:
        """Return what a message says of a group: how many, and the first of them."""
        key = group_key(notice.route.name, notice.labels)
        return {
            "id": "grp_" + hashlib.sha256(key).hexdigest()[:24],
            "route": notice.route.name,
            "reason": notice.reason,
            "labels": dict(zip(("tenant", *notice.route.group_by), notice.labels, strict=True)),
            "count": len(notice.alerts),
            "firing": notice.firing,
            "alerts": list(notice.alerts[: self._max_listed]),
            "why": _why(notice),
        }

    def _reject(self, record: LogRecord, error: DecodeError) -> Produce:
        return rejected_from_log(
            record,
            error,
            topic=ALERT_GROUPS,
            partition=self._partition,
            max_bytes=self._max_bytes,
        )


_NEEDS = {
    "silence": ("id", "globs", "starts_ms", "ends_ms", "author"),
    "unsilence": ("id",),
    "acknowledge": ("alert",),
    "resolve": ("alert",),
    "source": ("alert",),
    "": ("route", "alert"),
}


def _parsed(record: LogRecord) -> dict[str, Any]:
    """Return a record's content; a control has a ``kind``.

    :raises DecodeError: if it is neither an alert with its route nor a control.
    """
    is_control = header(record, CONTROL_HEADER) is not None
    try:
        given: dict[str, Any] = orjson.loads(record.value or b"")
        kind = given["kind"] if is_control else ""
        missing = [name for name in _NEEDS[kind] if name not in given]
        if kind in ("", "source") and not missing:
            alert = dict(given["alert"])
            missing += [n for n in (*LABELS, "id", "state", "why") if n not in alert]
        if kind == "silence" and not missing:
            _check_silence(given)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DecodeError(
            "alert-group", f"{error!r}; expected an alert and its route, or a control"
        ) from error
    if missing:
        raise DecodeError("alert-group", f"it lacks {missing[0]!r}")
    return given


def _check_silence(given: Mapping[str, Any]) -> None:
    """See that a silence can be held against alerts.

    :raises ValueError: if it cannot.
    """
    times = [given["starts_ms"], given["ends_ms"], given.get("for_ms", 0)]
    if not all(isinstance(time, int) for time in times):
        raise ValueError(f"the times of a silence are {times}, expected whole milliseconds")
    for label, globs in given["globs"].items():
        if label not in LABELS or not all(isinstance(glob, str) for glob in globs):
            raise ValueError(
                f"a silence matches {label!r} with {globs!r}, expected globs of a label"
            )


def silence_of(given: Mapping[str, Any], said_ms: int | None = None) -> Silence:
    """Return a silence from its record.

    :param said_ms: log time of the record, from which ``for_ms`` counts: the clock of whoever said
        it may be wrong. Without, and in records of earlier versions, it is as they say.
    """
    begins_ms, ends_ms = given["starts_ms"], given["ends_ms"]
    if said_ms is not None and "for_ms" in given:
        begins_ms, ends_ms = said_ms, said_ms + given["for_ms"]
    return Silence(
        given["id"],
        Matcher.of(given["globs"]),
        begins_ms,
        ends_ms,
        given["author"],
        given.get("comment", ""),
    )


def _silence_state(silence: Silence) -> dict[str, Any]:
    return {
        "id": silence.id,
        "globs": {name: list(globs) for name, globs in silence.matcher.globs},
        "starts_ms": silence.starts_ms,
        "ends_ms": silence.ends_ms,
        "author": silence.author,
        "comment": silence.comment,
    }


def _why(notice: Notice) -> str:
    n = len(notice.alerts)
    about = {
        "changed": "changed",
        "repeated": "still fires" if n == 1 else "still fire",
        "escalated": f"{'is' if n == 1 else 'are'} not acknowledged",
    }[notice.reason]
    where = ", ".join(label for label in notice.labels if label)
    alerts, fire = "alert" if n == 1 else "alerts", "fires" if notice.firing == 1 else "fire"
    return f"{n:,} {alerts} of {where} {about}, {notice.firing:,} {fire}: {notice.alerts[0]['why']}"


_TIMES = ("sent_ms", "sent", "flush_ms", "repeat_ms", "escalate_ms")
_MARKS = ("changed_ms", "told_ms", "acknowledged", "escalated", "by_hand")


def _group_state(group: Group) -> dict[str, Any]:
    return {
        "route": group.route.name,
        "config": group.route.edition,
        "labels": list(group.labels),
        "members": [
            [orjson.dumps(m.alert), list(m.told or ()), *(getattr(m, name) for name in _MARKS)]
            for m in group.members.values()
        ],
        "news": list(group.news),
        **{name: getattr(group, name) for name in _TIMES},
    }


def _group_from(state: Mapping[str, Any], group: Group) -> Group:
    for alert, told, *marks in state["members"]:
        member = Member(orjson.loads(alert), 0, (told[0], told[1]) if told else None)
        for name, value in zip(_MARKS, marks, strict=True):
            setattr(member, name, value)
        group.members[member.alert["id"]] = member
    group.news = dict.fromkeys(state["news"])
    for name in _TIMES:
        setattr(group, name, state[name])
    return group
