"""From MQTT topics to tenants, sites, devices and metrics, as the settings say.

Pure: settings in, a matcher and the subscription filters out. The first mapping that matches a
topic counts. The native topic ``hw/v1/{tenant}/{site}/up`` is always mapped, before all others.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from streams.adapters.rows import Source, check_name
from streams.errors import DecodeError, SettingsError
from streams.settings import Mapping

NATIVE = Mapping(topic="hw/v1/{tenant}/{site}/up", tenant="{tenant}", site="{site}", format="frame")
NATIVE_FILTER = "hw/v1/#"
_ELSEWHERE = re.compile(r"hw/v1/[^/]+/[^/]+/(ack|twin/up|twin/down|cmd|cmd/status|backfill)")
"""Native topics of other processes, which the native filter also delivers."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_NAMES = ("tenant", "site", "device", "metric")
_MAX_CACHED = 100_000
_FIXES = {
    "device": 'set device = "..." to a name, or device_field to the field of the payload '
    "that names it"
}


@dataclass(frozen=True, slots=True)
class _Route:
    """One mapping, compiled: literal, ``+`` or placeholder per level."""

    levels: tuple[str, ...]
    captures: tuple[tuple[int, str], ...]
    open_end: bool
    """The filter ends in ``#``."""
    spec: Mapping

    def captured(self, levels: Sequence[str]) -> dict[str, str] | None:
        """Return the captured names, or ``None`` if the topic does not match."""
        n = len(self.levels)
        if len(levels) != n and not (self.open_end and len(levels) > n):
            return None
        for mine, theirs in zip(self.levels, levels, strict=False):
            if mine not in ("+", theirs):
                return None
        # Wildcards do not match the broker's own topics (MQTT 5, 4.7.2).
        if levels[0].startswith("$") and (n == 0 or self.levels[0] == "+"):
            return None
        return {name: levels[at] for at, name in self.captures}


class TopicMap:
    """The compiled mappings of the settings.

    :raises SettingsError: if a mapping cannot work; the message says which, why and the fix.
    """

    def __init__(self, mappings: Sequence[Mapping]) -> None:
        self._routes = [_compile(NATIVE, "native")]
        self._routes += [
            _compile(spec, f"mappings[{at}] (topic {spec.topic!r})")
            for at, spec in enumerate(mappings)
        ]
        wanted = [NATIVE_FILTER, *(_filter_of(route) for route in self._routes[1:])]
        self.filters = _without_covered(wanted)
        """Subscription filters, none inside another; together they see all mapped topics."""
        self.filter_ids = tuple(_filter_id(topic_filter) for topic_filter in self.filters)
        """Subscription identifiers, one per filter, the same whenever the filter is."""
        self._delivering: dict[str, int] = {}
        self._cache: dict[str, Source | DecodeError | None] = {}

    def source(self, topic: str) -> Source | None:
        """Return what the mappings say about *topic*; ``None`` for another process's topic.

        :raises DecodeError: ``unknown-topic`` if no mapping matches, ``bad-name`` if a captured
            name cannot be one.
        """
        try:
            found = self._cache[topic]
        except KeyError:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            found = self._cache[topic] = self._find(topic)
        if isinstance(found, DecodeError):
            # A fresh one each time: a raised exception keeps its traceback.
            raise DecodeError(found.reason, found.detail)
        return found

    def delivering_id(self, topic: str) -> int:
        """Return the identifier of the one filter whose delivery of *topic* is to be taken.

        It is that of the first filter that matches; 0 if none does. Other deliveries are
        copies: filters may overlap, and a persistent session also keeps filters that the
        settings no longer have.
        """
        try:
            return self._delivering[topic]
        except KeyError:
            if len(self._delivering) >= _MAX_CACHED:
                self._delivering.clear()
            levels = topic.split("/")
            both = zip(self.filters, self.filter_ids, strict=True)
            found = next((number for f, number in both if _matches(f, levels)), 0)
            self._delivering[topic] = found
            return found

    def _find(self, topic: str) -> Source | DecodeError | None:
        levels = topic.split("/")
        for route in self._routes:
            captured = route.captured(levels)
            if captured is not None:
                try:
                    return _source(route.spec, captured)
                except DecodeError as error:
                    return DecodeError(error.reason, f"{error.detail} (in the topic)")
        if _ELSEWHERE.fullmatch(topic):
            return None
        return DecodeError(
            "unknown-topic",
            f"no mapping matches {topic[:200]!r}; add one under [[mappings]], or publish frames "
            f"to {NATIVE.topic}",
        )


def _source(spec: Mapping, captured: dict[str, str]) -> Source:
    def fill(template: str) -> str:
        return _PLACEHOLDER.sub(lambda found: captured[found.group(1)], template)

    by_payload = spec.format == "frame" or spec.device_field is not None
    device = None
    if not (by_payload and _unfilled(spec.device, captured)):
        device = check_name("device", fill(spec.device))
    metric = None
    if not _unfilled(spec.metric, captured):
        metric = check_name("metric", fill(spec.metric), slash=True)
    reserved = {spec.time_field, spec.seq_field, spec.boot_field, spec.device_field}
    return Source(
        tenant=check_name("tenant", fill(spec.tenant)),
        site=check_name("site", fill(spec.site)),
        device=device,
        metric=metric,
        format=spec.format,
        time_field=spec.time_field if spec.time == "payload" else None,
        time_unit=spec.time_unit,
        seq_field=spec.seq_field,
        boot_field=spec.boot_field,
        device_field=spec.device_field,
        reserved=frozenset(field for field in reserved if field),
    )


def _unfilled(template: str, captured: dict[str, str]) -> bool:
    return any(name not in captured for name in _PLACEHOLDER.findall(template))


def _compile(spec: Mapping, where: str) -> _Route:
    if not spec.topic or "\0" in spec.topic:
        raise SettingsError(f"{where}: the topic is empty or has a null character")
    levels = spec.topic.split("/")
    open_end = levels[-1] == "#"
    if open_end:
        levels.pop()
    captures: dict[str, int] = {}
    for at, level in enumerate(levels):
        found = _PLACEHOLDER.fullmatch(level)
        if found:
            _check_placeholder(found.group(1), where)
            if found.group(1) in captures:
                raise SettingsError(f"{where}: {level} is captured twice; use + for one of them")
            captures[found.group(1)] = at
            levels[at] = "+"
        elif level != "+" and set(level) & set("+#{}"):
            raise SettingsError(
                f"{where}: the level {level!r} mixes text with a wildcard or placeholder; a level "
                "is text, +, {tenant}, {site}, {device} or {metric}, and # only stands at the end"
            )
    _check_templates(spec, captures, where)
    return _Route(tuple(levels), tuple((at, name) for name, at in captures.items()), open_end, spec)


def _check_placeholder(name: str, where: str) -> None:
    if name not in _NAMES:
        raise SettingsError(
            f"{where}: unknown placeholder {{{name}}}; known are {{tenant}}, {{site}}, "
            "{device}, {metric}"
        )


def _check_templates(spec: Mapping, captures: dict[str, int], where: str) -> None:
    for field in _NAMES:
        template: str = getattr(spec, field)
        for name in _PLACEHOLDER.findall(template):
            _check_placeholder(name, where)
            if name in captures or (field == "metric" and template == "{metric}"):
                continue
            if field == "device" and (spec.device_field or spec.format == "frame"):
                continue
            fix = _FIXES.get(field, f'set {field} = "..."')
            raise SettingsError(
                f"{where}: {field} is {template!r}, but the topic does not capture {{{name}}}; "
                f"{fix}, or write {{{name}}} as a level of the topic"
            )
    if spec.format == "number" and spec.metric == "{metric}" and "metric" not in captures:
        raise SettingsError(
            f"{where}: a plain number does not name its metric; "
            'set metric = "...", or write {metric} as a level of the topic'
        )


def _filter_of(route: _Route) -> str:
    return "/".join([*route.levels, *(["#"] if route.open_end else [])])


def _without_covered(filters: Sequence[str]) -> tuple[str, ...]:
    kept: list[str] = []
    for new in filters:
        if any(_covers(old, new) for old in kept):
            continue
        kept = [old for old in kept if not _covers(new, old)]
        kept.append(new)
    return tuple(kept)


def _covers(wide: str, narrow: str) -> bool:
    """Whether every topic that *narrow* matches, *wide* matches too."""
    w, n = wide.split("/"), narrow.split("/")
    for at, level in enumerate(w):
        if level == "#":
            return True
        if at >= len(n) or n[at] == "#" or level not in ("+", n[at]):
            return at == len(n) and w[at:] == ["#"]
    return len(w) == len(n)


def _filter_id(topic_filter: str) -> int:
    """An identifier in the range that MQTT 5 allows (3.8.2.1.2)."""
    return zlib.crc32(topic_filter.encode()) % 268_435_455 + 1


def _matches(pattern: str, levels: Sequence[str]) -> bool:
    parts = pattern.split("/")
    open_end = parts[-1] == "#"
    route = _Route(tuple(parts[:-1] if open_end else parts), (), open_end, NATIVE)
    return route.captured(levels) is not None
