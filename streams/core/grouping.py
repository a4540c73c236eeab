"""Alerts told in groups, as Prometheus Alertmanager does.

::

    alerts     1     2 3        4                        (1 resolved)
    told       1         2 3             4                 1
               |- wait --|---- interval --|---- interval --|     ---- repeat ----▶ all that fire
               first: at once

The first change of a quiet group is told at once. What follows is gathered: for ``wait_ms`` after
the first, and then for ``interval_ms`` after each message. What fires on, unacknowledged, is told
again after ``repeat_ms``, and to others after ``escalate_ms``. Muted alerts are not told; when the
mute ends they are, if they still fire. A state of an alert is news once.

Nothing reads a clock: time is handed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streams.core.mutes import LABELS, Matcher, Mutes
from streams.core.registry import NEVER

FIRING = "firing"
_PROGRESS = {"firing": 0, "resolved": 1, "retracted": 2}
_REMEMBER_MS = 86_400_000
"""How long an alert that is over is known, so that what a crash repeats is recognised."""
CHANGED, REPEATED, ESCALATED = "changed", "repeated", "escalated"
Alert = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Route:
    """Which alerts go where, in which groups. Times in ms."""

    name: str
    matcher: Matcher
    group_by: tuple[str, ...]
    endpoints: tuple[str, ...]
    wait_ms: int
    interval_ms: int
    repeat_ms: int
    escalate_ms: int | None = None
    escalate_to: tuple[str, ...] = ()
    goes_on: bool = False
    """Whether later routes may take the same alert."""
    edition: str = ""
    """Names the settings that it is of; the greater ``revision`` counts."""
    revision: int = 0

    def group_of(self, alert: Alert) -> tuple[str, ...]:
        """Return the labels by which an alert is grouped; the tenant always is one."""
        return tuple(str(alert[name]) for name in ("tenant", *self.group_by))


def routes_for(routes: Sequence[Route], alert: Alert) -> list[Route]:
    """Return the routes that take an alert: the first that matches, and on if it says so."""
    taken = []
    for route in routes:
        if route.matcher.matches(alert):
            taken.append(route)
            if not route.goes_on:
                break
    return taken


@dataclass(slots=True)
class Member:
    """An alert of a group. ``told`` is the last state and turn that was told."""

    alert: dict[str, Any]
    changed_ms: int
    told: tuple[str, int] | None = None
    told_ms: int = NEVER
    """When it was first told to fire."""
    acknowledged: bool = False
    escalated: bool = False
    by_hand: bool = False
    """Whether somebody has resolved it."""

    @property
    def now(self) -> tuple[str, int]:
        """Return its state and turn."""
        return ("resolved" if self.by_hand else self.alert["state"], self.alert.get("turn", 0))

    @property
    def fires(self) -> bool:
        """Whether it fires."""
        return self.now[0] == FIRING

    def to_tell(self) -> bool:
        """Whether its state is news: that something is over is none if it was never told."""
        if self.told is None:
            return self.fires
        if self.told[0] != FIRING and not self.fires:
            return self.now[0] == "retracted" and self.told != self.now
        return self.told != self.now


@dataclass(slots=True)
class Group:
    """One group of one route."""

    route: Route
    labels: tuple[str, ...]
    members: dict[str, Member] = field(default_factory=dict)
    news: dict[str, None] = field(default_factory=dict)
    """Ids of what is to be told, in the order in which it changed."""
    sent_ms: int | None = None
    sent: int = 0
    """Messages since the group was quiet."""
    flush_ms: int = NEVER
    repeat_ms: int = NEVER
    escalate_ms: int = NEVER

    def deadline_ms(self) -> int:
        """Return when something is due."""
        return min(self.flush_ms, self.repeat_ms, self.escalate_ms)


@dataclass(frozen=True, slots=True)
class Notice:
    """A message to be sent."""

    route: Route
    labels: tuple[str, ...]
    endpoints: tuple[str, ...]
    reason: str
    alerts: Sequence[Alert]
    """The alerts that it is about."""
    firing: int
    """Alerts of the group that fire, muted ones included."""


class Groups:
    """All groups of a partition.

    :param limit: alerts; :meth:`take` refuses further ones.
    """

    def __init__(self, mutes: Mutes, *, limit: int) -> None:
        self.mutes = mutes
        self.groups: dict[tuple[str, tuple[str, ...]], Group] = {}
        self._limit = limit
        self._members = 0
        self._next_ms = 0
        self._next_mute_ms = 0
        self._swept_ms = 0

    def take(self, where: Route, alert: dict[str, Any], now_ms: int) -> list[Notice] | None:
        """Take an alert that changed; return what is to be told, ``None`` if there is no room."""
        key = (where.name, where.group_of(alert))
        group = self.groups.get(key)
        known = group.members.get(alert["id"]) if group is not None else None
        if known is None and self._members >= self._limit:
            return None
        if known is not None and _progress(alert) <= _progress(known.alert):
            return []
        if group is None:
            group = self.groups[key] = Group(where, key[1])
        elif where.revision > group.route.revision:
            group.route = where
        if known is None:
            self._members += 1
            known = group.members[alert["id"]] = Member(alert, now_ms)
        elif alert.get("turn", 0) > known.alert.get("turn", 0):
            known.acknowledged = known.escalated = known.by_hand = False
        known.alert, known.changed_ms = alert, now_ms
        self._note(group, alert["id"], now_ms)
        return self._due(group, now_ms)

    def is_due(self, now_ms: int) -> bool:
        """Whether :meth:`pass_time` may change something."""
        return now_ms >= min(self._next_ms, self._next_mute_ms)

    def pass_time(self, now_ms: int) -> list[Notice]:
        """Let time pass; return what is due."""
        notices: list[Notice] = []
        if now_ms >= self._next_mute_ms:
            notices += self.mutes_changed(now_ms)
        if now_ms >= self._next_ms:
            for _, group in sorted(self.groups.items()):
                if group.deadline_ms() <= now_ms:
                    notices += self._due(group, now_ms)
            self._sweep(now_ms)
            deadlines = [group.deadline_ms() for group in self.groups.values()]
            self._next_ms = min(deadlines, default=NEVER)
        return notices

    def mutes_changed(self, now_ms: int) -> list[Notice]:
        """Look at all alerts anew: something has begun or ceased to mute."""
        notices: list[Notice] = []
        for _, group in sorted(self.groups.items()):
            for identity in group.members:
                self._note(group, identity, now_ms)
            notices += self._due(group, now_ms)
        self.mutes.forget(now_ms - _REMEMBER_MS)
        self._next_mute_ms = self.mutes.next_ms(now_ms)
        return notices

    def follow(self, routes: Sequence[Route]) -> None:
        """Take the routes of other settings for groups that they would make, too."""
        named = {route.name: route for route in routes}
        for group in self.groups.values():
            after = named.get(group.route.name)
            if after is not None and after.group_by == group.route.group_by:
                group.route = after

    def acknowledge(self, alert: str) -> bool:
        """Take an acknowledgement: no repetition, no escalation; return whether it is known."""
        found = self._of(alert)
        for _, member in found:
            member.acknowledged = True
        return bool(found)

    def resolve(self, alert: str, now_ms: int) -> list[Notice]:
        """Take an alert for resolved, because somebody says so."""
        notices: list[Notice] = []
        for group, member in self._of(alert):
            if member.fires:
                member.by_hand, member.changed_ms = True, now_ms
                self._note(group, alert, now_ms)
                notices += self._due(group, now_ms)
        return notices

    def wants_time(self) -> bool:
        """Whether something waits for time to pass."""
        return self._next_mute_ms != NEVER or any(
            group.deadline_ms() != NEVER for group in self.groups.values()
        )

    def restored(self, now_ms: int) -> None:
        """Count anew after groups were put in place."""
        self._members = sum(len(group.members) for group in self.groups.values())
        self._next_ms = 0
        self._next_mute_ms = self.mutes.next_ms(now_ms)

    def muted(self) -> int:
        """Return the number of firing alerts that were not told."""
        return sum(
            member.fires and member.told is None and identity not in group.news
            for group in self.groups.values()
            for identity, member in group.members.items()
        )

    def _of(self, alert: str) -> list[tuple[Group, Member]]:
        return [
            (group, group.members[alert])
            for _, group in sorted(self.groups.items())
            if alert in group.members
        ]

    def _note(self, group: Group, identity: str, now_ms: int) -> None:
        """Put an alert among the news of its group, or take it from there."""
        member = group.members[identity]
        if not member.to_tell() or self._is_muted(member, now_ms):
            group.news.pop(identity, None)
            if not group.news:
                group.flush_ms = NEVER
            return
        group.news.setdefault(identity)
        if group.flush_ms != NEVER:
            return
        route = group.route
        if group.sent_ms is None or now_ms - group.sent_ms >= route.interval_ms:
            group.sent, group.flush_ms = 0, now_ms
        else:
            pause_ms = route.wait_ms if group.sent == 1 else route.interval_ms
            group.flush_ms = group.sent_ms + min(pause_ms, route.interval_ms)
        self._next_ms = min(self._next_ms, group.flush_ms)

    def _due(self, group: Group, now_ms: int) -> list[Notice]:
        notices: list[Notice] = []
        if group.flush_ms <= now_ms:
            notices.append(self._flush(group, now_ms))
        if group.escalate_ms <= now_ms:
            notices += self._escalate(group, now_ms)
        if group.repeat_ms <= now_ms:
            notices += self._repeat(group, now_ms)
        self._next_ms = min(self._next_ms, group.deadline_ms())
        return notices

    def _flush(self, group: Group, now_ms: int) -> Notice:
        route = group.route
        news = [group.members[identity] for identity in group.news]
        others = route.escalate_to if any(member.escalated for member in news) else ()
        for member in news:
            member.told = member.now
            if member.fires:
                member.told_ms = now_ms
                if route.escalate_ms is not None:
                    group.escalate_ms = min(group.escalate_ms, now_ms + route.escalate_ms)
        endpoints = tuple(dict.fromkeys((*route.endpoints, *others)))
        group.news.clear()
        group.sent, group.sent_ms, group.flush_ms = group.sent + 1, now_ms, NEVER
        group.repeat_ms = now_ms + route.repeat_ms
        return _notice(group, endpoints, CHANGED, news)

    def _repeat(self, group: Group, now_ms: int) -> list[Notice]:
        standing = list(_unacknowledged(group))
        group.repeat_ms = now_ms + group.route.repeat_ms if standing else NEVER
        about = [member for member in standing if not self._is_muted(member, now_ms)]
        return [_notice(group, group.route.endpoints, REPEATED, about)] if about else []

    def _escalate(self, group: Group, now_ms: int) -> list[Notice]:
        after_ms = group.route.escalate_ms
        assert after_ms is not None
        about: list[Member] = []
        next_ms = NEVER
        for member in _unacknowledged(group):
            if member.escalated:
                continue
            if member.told_ms + after_ms > now_ms:
                next_ms = min(next_ms, member.told_ms + after_ms)
            elif self._is_muted(member, now_ms):
                next_ms = min(next_ms, now_ms + after_ms)
            else:
                member.escalated = True
                about.append(member)
        group.escalate_ms = next_ms
        return [_notice(group, group.route.escalate_to, ESCALATED, about)] if about else []

    def _is_muted(self, member: Member, now_ms: int) -> bool:
        """Whether an alert is kept back; that one which was told is over is always told."""
        return member.fires and self.mutes.muted_by(labels_of(member.alert), now_ms) is not None

    def _sweep(self, now_ms: int) -> None:
        """Forget what has been over for long."""
        if now_ms - self._swept_ms < _REMEMBER_MS // 24:
            return
        self._swept_ms = now_ms
        for key, group in list(self.groups.items()):
            old = [
                identity
                for identity, member in group.members.items()
                if not member.fires
                and identity not in group.news
                and now_ms - member.changed_ms >= _REMEMBER_MS
            ]
            for identity in old:
                del group.members[identity]
            self._members -= len(old)
            if not group.members:
                del self.groups[key]


def _unacknowledged(group: Group) -> Iterable[Member]:
    """Yield what was told to fire, still does, and nobody has seen."""
    for member in group.members.values():
        if member.fires and member.told == member.now and not member.acknowledged:
            yield member


def labels_of(alert: Alert) -> dict[str, str]:
    """Return what an alert is matched by."""
    return {name: str(alert[name]) for name in LABELS}


def _notice(
    group: Group, endpoints: tuple[str, ...], reason: str, about: Sequence[Member]
) -> Notice:
    firing = sum(member.fires for member in group.members.values())
    alerts = [{**m.alert, "state": m.now[0]} if m.by_hand else m.alert for m in about]
    return Notice(group.route, group.labels, endpoints, reason, alerts, firing)


def _progress(alert: Alert) -> tuple[int, int]:
    return alert.get("turn", 0), _PROGRESS[alert["state"]]
