"""A rule on a series of which something is the matter: its windows, its episodes, what was told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from streams.core.episodes import (
    ASSUMED,
    FIRING,
    Episode,
    Kept,
    Told,
    episodes,
    reconcile,
)
from streams.core.registry import NEVER
from streams.core.selectors import Names
from streams.core.window_rules import Verdict, WindowRule


@dataclass(frozen=True, slots=True)
class Cause:
    """The result, or the silence, that changed an alert; times in ms.

    ``received_ms`` and ``kafka_ms`` are those of the latest reading inside, ``log_ms`` the log time
    of the result.
    """

    start_ms: int
    end_ms: int
    received_ms: int
    kafka_ms: int
    log_ms: int
    value: float


@dataclass(frozen=True, slots=True)
class Change:
    """An alert whose state changed."""

    rule: WindowRule
    names: Names
    told: Told
    cause: Cause
    gone: str = ""
    """Why nobody judges it any more."""


@dataclass(slots=True)
class Pair:
    """One rule on one track, from the first window in which it was on until that is long ago."""

    kept: Kept = field(default_factory=Kept)
    base: Episode | None = None
    """What was open before the first window that is kept."""
    told: list[Told] = field(default_factory=list)
    found: list[Episode] = field(default_factory=list)
    """The episodes that fired, as the windows are now."""
    open: Episode | None = None
    off_log_ms: int = NEVER
    """Log time since which an alert that fires has been off."""
    since_ms: int = NEVER
    """Start of the first window that was kept: of those before nothing but *off* was said."""

    def put(self, start_ms: int, end_ms: int, rank: int, verdict: int, until_ms: int) -> bool:
        """Take a window; return whether that changes anything.

        :param until_ms: how far the series is known, in event time. Windows of which nothing was
            kept were off.
        """
        if not self.kept.put(start_ms, end_ms, rank, verdict):
            return False
        since_ms, self.since_ms = self.since_ms, min(start_ms, self.since_ms)
        known_ms = min(since_ms, until_ms)
        if start_ms < since_ms and end_ms < known_ms:
            self.kept.put(end_ms, known_ms, ASSUMED, Verdict.OFF)
        return True

    def update(self, rule: WindowRule, now_ms: int, cut_ms: int) -> list[Told]:
        """Form the episodes anew after a change; return what is to be told.

        :param now_ms: log time.
        :param cut_ms: windows that begin before it are not corrected any more, and forgotten.
        """
        over, self.open = episodes(rule.hold_ms, rule.resolve_ms, self.base, self.kept.rows())
        fires = self.open is not None and self.open.fired_ms is not None
        self.found = [*over, *([self.open] if self.open is not None and fires else [])]
        self.told, news = reconcile(self.told, self.found)
        if self.open is None or not fires or self.open.clear_ms is None:
            self.off_log_ms = NEVER
        elif self.off_log_ms == NEVER:
            self.off_log_ms = now_ms
        self._forget(rule, cut_ms)
        return news if rule.tells else []

    def pass_time(self, rule: WindowRule, now_ms: int) -> bool:
        """Take a silent series for off once it has been so for long; return whether it is."""
        if now_ms < self.deadline_ms(rule):
            return False
        assert self.open is not None
        assert self.open.clear_ms is not None
        end_ms = self.open.clear_ms + rule.resolve_ms
        begin_ms = self.kept.end_ms() if len(self.kept) else self.open.clear_ms
        self.kept.put(min(begin_ms, end_ms), end_ms, ASSUMED, Verdict.OFF)
        return True

    def deadline_ms(self, rule: WindowRule) -> int:
        """Return the log time at which :meth:`pass_time` does something."""
        return NEVER if self.off_log_ms == NEVER else self.off_log_ms + rule.resolve_ms

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to remember."""
        return not len(self.kept) and self.base is None

    @property
    def pending(self) -> bool:
        """Whether it is on, and not yet long enough."""
        return self.open is not None and self.open.fired_ms is None

    @property
    def firing(self) -> bool:
        """Whether it was told to fire."""
        return any(one.state == FIRING for one in self.told)

    def _forget(self, rule: WindowRule, cut_ms: int) -> None:
        gone = self.kept.drop_before(cut_ms)
        if gone:
            _, self.base = episodes(rule.hold_ms, rule.resolve_ms, self.base, gone)
        since_ms = cut_ms if self.base is None else self.base.began_ms
        self.told = [one for one in self.told if one.state == FIRING or one.began_ms >= since_ms]
        self.found = [e for e in self.found if e.resolved_ms is None or e.began_ms >= since_ms]

    def state(self) -> dict[str, Any]:
        """Return what :meth:`of` takes."""
        return {
            "kept": self.kept.state(),
            "base": None if self.base is None else asdict(self.base),
            "told": [asdict(one) for one in self.told],
            "off_log_ms": self.off_log_ms,
            "since_ms": self.since_ms,
        }

    @staticmethod
    def of(state: dict[str, Any], rule: WindowRule) -> Pair:
        """Return a pair as it was."""
        base = None if state["base"] is None else Episode(**state["base"])
        told = [Told(**one) for one in state["told"]]
        pair = Pair(Kept.of(state["kept"]), base, told)
        pair.off_log_ms, pair.since_ms = state["off_log_ms"], state["since_ms"]
        over, pair.open = episodes(rule.hold_ms, rule.resolve_ms, base, pair.kept.rows())
        pair.found = over
        if pair.open is not None and pair.open.fired_ms is not None:
            pair.found = [*over, pair.open]
        return pair
