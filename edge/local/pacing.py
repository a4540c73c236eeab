"""When a rule's commands about a device are due. Pure.

A rule *stands* on a device while at least one of its alerts there fires, so that two metrics of one
device do not undo each other's commands. Commands follow that state, at most once in a while: what
changes sooner waits, and if it has changed back by then, nothing is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streams.core.alert_states import FIRING, RESOLVED

Alert = Mapping[str, Any]
_NEVER_MS = -(1 << 62)


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done now: the commands of a rule for a state, about the device of an alert."""

    rule: str
    state: str
    """``firing`` or ``resolved``."""
    alert: Alert
    """The one that changed it."""


@dataclass(slots=True)
class _Place:
    """A rule on a device."""

    firing: set[str] = field(default_factory=set)
    acted: str = RESOLVED
    acted_ms: int = _NEVER_MS
    waits: Alert | None = None

    @property
    def wanted(self) -> str:
        return FIRING if self.firing else RESOLVED


class Pacer:
    """All rules with commands, on all devices."""

    def __init__(self, every_ms: Mapping[str, int], max_places: int) -> None:
        """Begin with nothing firing.

        :param every_ms: rule -> least time between two of its commands about one device; alerts of
            other rules are left alone.
        :param max_places: pairs of a rule and a device that are remembered; further ones get no
            commands.
        """
        self._every_ms, self._max_places = every_ms, max_places
        self._places: dict[tuple[str, str, str], _Place] = {}
        self._waiting: dict[tuple[str, str, str], None] = {}
        self.held = 0
        """Changes that had to wait."""
        self.dropped = 0
        """Changes that were undone while they waited."""
        self.refused = 0
        """Alerts beyond ``max_places``."""

    def restore(self, firing: Iterable[Alert]) -> None:
        """Take alerts that fire since before a start: their commands were given."""
        for alert in firing:
            if alert["rule"] in self._every_ms:
                place = self._places.setdefault(_key(alert), _Place(acted=FIRING))
                place.firing.add(alert["id"])

    def take(self, alert: Alert, now_ms: int) -> list[Due]:
        """Take an alert that changed; return what is due at once.

        :param now_ms: a clock that never goes back.
        """
        if alert["rule"] not in self._every_ms:
            return []
        key = _key(alert)
        place = self._places.get(key)
        if place is None:
            if not self._has_room(now_ms):
                self.refused += 1
                return []
            place = self._places[key] = _Place()
        if alert["state"] == FIRING:
            place.firing.add(alert["id"])
        else:
            place.firing.discard(alert["id"])
        if place.wanted == place.acted:
            if place.waits is not None:
                place.waits = None
                self._waiting.pop(key, None)
                self.dropped += 1
            return []
        is_due = now_ms - place.acted_ms >= self._every_ms[alert["rule"]]
        if is_due:
            return [self._act(key, place, alert, now_ms)]
        self.held += place.waits is None
        place.waits = alert
        self._waiting[key] = None
        return []

    def due(self, now_ms: int) -> list[Due]:
        """Return what has waited for long enough."""
        found = []
        for key in list(self._waiting):
            place = self._places[key]
            if place.waits is not None and now_ms - place.acted_ms >= self._every_ms[key[0]]:
                found.append(self._act(key, place, place.waits, now_ms))
        return found

    def _act(self, key: tuple[str, str, str], place: _Place, alert: Alert, now_ms: int) -> Due:
        place.acted, place.acted_ms, place.waits = place.wanted, now_ms, None
        self._waiting.pop(key, None)
        return Due(alert["rule"], place.acted, alert)

    def _has_room(self, now_ms: int) -> bool:
        if len(self._places) < self._max_places:
            return True
        over = [
            key
            for key, place in self._places.items()
            if place.acted == place.wanted == RESOLVED
            and now_ms - place.acted_ms >= self._every_ms[key[0]]
        ]
        for key in over:
            del self._places[key]
        return len(self._places) < self._max_places


def _key(alert: Alert) -> tuple[str, str, str]:
    return alert["rule"], alert["tenant"], alert["device"]
