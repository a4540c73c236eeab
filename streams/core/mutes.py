"""What keeps an alert from being told: silences, inhibitions, maintenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from streams.core.registry import NEVER

LABELS = ("rule", "severity", "tenant", "site", "device", "metric")
"""Of an alert: what routes, silences and inhibitions match."""
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Matcher:
    """Label -> globs, any of which must match; labels that are not named may be anything."""

    globs: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def matches(self, labels: Labels) -> bool:
        """Whether all named labels match."""
        return all(
            any(fnmatchcase(labels[name], glob) for glob in globs) for name, globs in self.globs
        )

    @staticmethod
    def of(globs: Mapping[str, Sequence[str]]) -> Matcher:
        """Return a matcher of what is not just anything."""
        return Matcher(tuple((name, tuple(any_of)) for name, any_of in globs.items()))


@dataclass(frozen=True, slots=True)
class Silence:
    """Keeps matching alerts from being told from ``starts_ms`` to before ``ends_ms``."""

    id: str
    matcher: Matcher
    starts_ms: int
    ends_ms: int
    author: str
    comment: str = ""

    def holds(self, labels: Labels, at_ms: int) -> bool:
        """Whether it silences an alert now."""
        return self.starts_ms <= at_ms < self.ends_ms and self.matcher.matches(labels)


@dataclass(frozen=True, slots=True)
class Inhibition:
    """While a source fires, targets with the same values of ``equal`` are not told."""

    source: Matcher
    target: Matcher
    equal: tuple[str, ...]

    def place(self, labels: Labels) -> tuple[str, ...]:
        """Return what source and target must have in common."""
        return tuple(labels[name] for name in self.equal)


@dataclass(frozen=True, slots=True)
class Maintenance:
    """Times in which matching alerts are not told; ``is_on`` and ``next_ms`` know the calendar.

    ``next_ms`` returns the next time after the given one at which ``is_on`` may change.
    """

    matcher: Matcher
    is_on: Callable[[int], bool]
    next_ms: Callable[[int], int]


class Mutes:
    """All that mutes, as of now."""

    def __init__(
        self, inhibitions: Sequence[Inhibition] = (), maintenance: Sequence[Maintenance] = ()
    ) -> None:
        self._inhibitions = inhibitions
        self._maintenance = maintenance
        self.silences: dict[str, Silence] = {}
        self.sources: dict[str, dict[str, str]] = {}
        """Alerts that fire and may inhibit others: id -> labels."""
        self._firing: Counter[tuple[int, tuple[str, ...]]] = Counter()

    def muted_by(self, labels: Labels, at_ms: int) -> str | None:
        """Return ``silenced``, ``inhibited`` or ``maintenance``; ``None`` if nothing does."""
        if any(silence.holds(labels, at_ms) for silence in self.silences.values()):
            return "silenced"
        for i, one in enumerate(self._inhibitions):
            if self._firing[i, one.place(labels)] and one.target.matches(labels):
                return "inhibited"
        if any(one.matcher.matches(labels) and one.is_on(at_ms) for one in self._maintenance):
            return "maintenance"
        return None

    def is_source(self, labels: Labels) -> bool:
        """Whether an alert may inhibit others."""
        return any(one.source.matches(labels) for one in self._inhibitions)

    def fires(self, alert: str, labels: Labels) -> bool:
        """Take a source that fires; return whether that may mute something."""
        if alert in self.sources:
            return False
        self.sources[alert] = dict(labels)
        return self._count(labels, 1)

    def ends(self, alert: str) -> bool:
        """Take a source that fires no more; return whether that may let something speak."""
        labels = self.sources.pop(alert, None)
        return labels is not None and self._count(labels, -1)

    def next_ms(self, at_ms: int) -> int:
        """Return when something begins or ceases to mute by itself; NEVER if nothing does."""
        return min(
            (time for time in self._times(at_ms) if time > at_ms),
            default=NEVER,
        )

    def forget(self, before_ms: int) -> None:
        """Forget silences that ended before."""
        for identity in [i for i, one in self.silences.items() if one.ends_ms < before_ms]:
            del self.silences[identity]

    def _times(self, at_ms: int) -> Iterable[int]:
        for silence in self.silences.values():
            yield silence.starts_ms
            yield silence.ends_ms
        for one in self._maintenance:
            yield one.next_ms(at_ms)

    def _count(self, labels: Labels, by: int) -> bool:
        changed = False
        for i, one in enumerate(self._inhibitions):
            if one.source.matches(labels):
                place = (i, one.place(labels))
                self._firing[place] += by
                changed |= self._firing[place] == (1 if by > 0 else 0)
        return changed
