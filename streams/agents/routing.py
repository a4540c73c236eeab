"""From the settings of routes, inhibitions and maintenance to their definitions in the core."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from streams.agents.editions import Edition
from streams.core.grouping import Route
from streams.core.mutes import Inhibition, Maintenance, Matcher, Mutes
from streams.core.registry import NEVER
from streams.settings import Maintenance as MaintenanceSettings
from streams.settings import Settings

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def routes_of(edition: Edition) -> list[Route]:
    """Return the routes, in the order of the settings."""
    settings = edition.settings
    everybody = (*(h.name for h in settings.webhooks), *(c.name for c in settings.channels))
    return [
        Route(
            name=route.name,
            matcher=Matcher.of(route.globs()),
            group_by=tuple(label for label in route.group_by if label != "tenant"),
            endpoints=tuple(route.endpoints) or everybody,
            wait_ms=route.group_wait_ms,
            interval_ms=route.group_interval_ms,
            repeat_ms=route.repeat_interval_ms,
            escalate_ms=route.escalate_after_ms,
            escalate_to=tuple(route.escalate_to),
            goes_on=route.goes_on,
            edition=edition.id,
            revision=edition.revision,
        )
        for route in settings.routes
    ]


def mutes_of(settings: Settings) -> Mutes:
    """Return what mutes by the settings; silences come from the log."""
    inhibitions = [
        Inhibition(Matcher.of(i.source.globs()), Matcher.of(i.target.globs()), tuple(i.equal))
        for i in settings.inhibitions
    ]
    return Mutes(inhibitions, [_maintenance(one) for one in settings.maintenance])


def _maintenance(settings: MaintenanceSettings) -> Maintenance:
    times = Times(settings)
    return Maintenance(Matcher.of(settings.globs()), times.is_on, times.next_ms)


class Times:
    """When a weekly maintenance is on; remembers the stretch that it was asked for last."""

    def __init__(self, settings: MaintenanceSettings) -> None:
        self._zone = ZoneInfo(settings.zone)
        self._days = {_DAYS.index(day) for day in settings.days}
        hour, minute = settings.at.split(":")
        self._at = timedelta(hours=int(hour), minutes=int(minute))
        self._length_ms = settings.minutes * 60_000
        self._known = (0, 0, False)

    def is_on(self, at_ms: int) -> bool:
        """Whether it is on at a time."""
        return self._stretch(at_ms)[2]

    def next_ms(self, at_ms: int) -> int:
        """Return when that changes next."""
        return self._stretch(at_ms)[1]

    def _stretch(self, at_ms: int) -> tuple[int, int, bool]:
        since_ms, until_ms, _ = self._known
        if not since_ms <= at_ms < until_ms:
            self._known = self._find(at_ms)
        return self._known

    def _find(self, at_ms: int) -> tuple[int, int, bool]:
        begins = list(self._begins(at_ms))
        on = [begin for begin in begins if begin <= at_ms < begin + self._length_ms]
        if on:
            return on[0], max(on) + self._length_ms, True
        return at_ms, min((begin for begin in begins if begin > at_ms), default=NEVER), False

    def _begins(self, at_ms: int) -> Iterator[int]:
        today = datetime.fromtimestamp(at_ms / 1000, tz=UTC).astimezone(self._zone).date()
        for days in range(-2, 9):
            day = today + timedelta(days=days)
            if day.weekday() in self._days:
                # By the clock on the wall, also where it was put forward in between.
                begin = datetime(day.year, day.month, day.day) + self._at  # noqa: DTZ001
                yield round(begin.replace(tzinfo=self._zone).timestamp() * 1000)
