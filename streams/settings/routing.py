"""The sections ``[[routes]]``, ``[[inhibitions]]`` and ``[[maintenance]]``."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from streams.settings.sections import LocatedError, Name, Positive, Section
from streams.settings.windows import check_zone

Label = Literal["rule", "severity", "tenant", "site", "device", "metric"]


class Match(Section):
    """Globs over the labels of alerts; all six must match."""

    rules: list[str] = Field(default=["*"])
    """Globs over names of rules."""
    severities: list[str] = Field(default=["*"])
    """``info``, ``warning``, ``critical``."""
    tenants: list[str] = Field(default=["*"])
    """Globs."""
    sites: list[str] = Field(default=["*"])
    """Globs."""
    devices: list[str] = Field(default=["*"])
    """Globs."""
    metrics: list[str] = Field(default=["*"])
    """Globs."""

    def globs(self) -> dict[str, list[str]]:
        """Return label -> globs, without those that match anything."""
        named = {
            "rule": self.rules,
            "severity": self.severities,
            "tenant": self.tenants,
            "site": self.sites,
            "device": self.devices,
            "metric": self.metrics,
        }
        return {label: globs for label, globs in named.items() if "*" not in globs}


class Route(Match):
    """Alerts that go to some endpoints, in groups. The first route that matches takes an alert."""

    name: Name
    """Names the route in messages."""
    group_by: list[Label] = Field(default=["rule", "site"])
    """Labels that alerts of one group have in common; the tenant always is one."""
    endpoints: list[Name] = Field(default=[])
    """Names of webhooks and channels; default: all."""
    group_wait_ms: Positive = 30_000
    """How long what follows the first alert of a group is gathered; the first goes at once."""
    group_interval_ms: Positive = 300_000
    """And what follows later, after each message."""
    repeat_interval_ms: Positive = 14_400_000
    """After which what fires on, unacknowledged, is told again."""
    escalate_after_ms: Positive | None = None
    """After which what nobody has acknowledged is told to ``escalate_to`` too."""
    escalate_to: list[Name] = Field(default=[])
    """Names of webhooks and channels."""
    goes_on: bool = False
    """Later routes may take the same alerts."""

    @model_validator(mode="after")
    def _escalates_to_somebody(self) -> Route:
        if (self.escalate_after_ms is None) != (not self.escalate_to):
            raise ValueError("escalate_after_ms and escalate_to need each other")
        if self.group_wait_ms > self.group_interval_ms:
            raise LocatedError(("group_wait_ms",), "expected at most group_interval_ms")
        return self


class Inhibition(Section):
    """While a source fires, its targets are not told. Needs routes."""

    name: Name
    """Names it in errors."""
    source: Match
    """What inhibits."""
    target: Match
    """What is not told."""
    equal: list[Label] = Field(default=["tenant", "site"])
    """Labels that both must have in common."""


class Maintenance(Match):
    """A time of the week in which matching alerts are not told. Needs routes."""

    name: Name
    """Names it in errors."""
    days: Annotated[
        list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]], Field(min_length=1)
    ]
    """On which it begins."""
    at: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    """When it begins, such as ``22:00``."""
    minutes: Annotated[int, Field(gt=0, le=1_440)]
    """How long it takes; at most a day."""
    zone: str = "UTC"
    """Time zone, such as ``Europe/Berlin``."""

    @field_validator("zone")
    @classmethod
    def _is_zone(cls, zone: str) -> str:
        return check_zone(zone)


def check_routing(
    routes: Sequence[Route],
    inhibitions: Sequence[Inhibition],
    maintenance: Sequence[Maintenance],
    endpoints: Sequence[str],
    rules: Sequence[str],
) -> None:
    """Check what routes and inhibitions name.

    :param endpoints: names of webhooks and channels.
    :param rules: names of rules.
    :raises LocatedError: for the first offence.
    """
    for i, route in enumerate(routes):
        for field in ("endpoints", "escalate_to"):
            for name in getattr(route, field):
                if name not in endpoints:
                    there = ", ".join(endpoints) or "none"
                    raise LocatedError(
                        ("routes", i, field),
                        f"there is no webhook or channel {name!r}, expected one of {there}",
                    )
    for section, entries in (("inhibitions", inhibitions), ("maintenance", maintenance)):
        if entries and not routes:
            raise LocatedError((section, 0), f"{section} need routes: add [[routes]]")
    _check_cycles(inhibitions, rules)


def _check_cycles(inhibitions: Sequence[Inhibition], rules: Sequence[str]) -> None:
    """See that no rule inhibits itself, be it by way of others."""
    graph: dict[str, set[str]] = {}
    for i, one in enumerate(inhibitions):
        sources, targets = _named(one.source, rules), _named(one.target, rules)
        if set(one.source.severities).isdisjoint(one.target.severities):
            continue  # An alert has one severity: it cannot be on both sides.
        for target in targets:
            graph.setdefault(target, set()).update(sources)
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            path = " → ".join(error.args[1])
            raise LocatedError(
                ("inhibitions", i),
                f"{one.name!r} makes rules inhibit each other in a circle: {path}; name rules or "
                "severities so that no alert is both source and target",
            ) from error


def _named(match: Match, rules: Sequence[str]) -> list[str]:
    return [rule for rule in rules if any(fnmatchcase(rule, glob) for glob in match.rules)]
