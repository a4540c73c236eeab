"""From what a rule said of windows to alerts, and from corrected windows to corrected alerts.

::

    windows   off  on   on   on  between  off  off
                   |<- hold ->|           |<- resolve ->|
    episode        began      fired       clear         resolved

The episodes of a rule on a series follow from its windows in the order of event time, whatever
the order in which results came. When a correction changes a window they are formed anew and
compared with what was told: :func:`reconcile` says what has to be told now. An alert whose episode
is no more is *retracted*.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from streams.core.window_rules import Verdict

FIRING, RESOLVED, RETRACTED = "firing", "resolved", "retracted"
_EVER = 1 << 62
ASSUMED = -1
"""Rank of a window that is not known by itself: any result of it is newer."""
Row = tuple[int, int, int]
"""Start, end, verdict."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch of event time in which a rule is on. All in ms."""

    began_ms: int
    fired_ms: int | None
    """``None``: it has not been held long enough."""
    on_end_ms: int
    """End of the last window in which it was on."""
    clear_ms: int | None = None
    """Since when it has been off; ``None`` while on."""
    resolved_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What was told of an alert last."""

    id_ms: int
    """Where the episode began when it was first told: part of the alert's id, so it stays."""
    began_ms: int
    fired_ms: int
    state: str
    resolved_ms: int | None = None
    turn: int = 0
    """How often a correction has made it fire again."""


class Kept:
    """What a rule said of the windows of a series, in the order of their starts."""

    def __init__(self) -> None:
        self.starts = array("q")
        self._ends = array("q")
        self._ranks = array("q")
        self._verdicts = array("b")

    def put(self, start_ms: int, end_ms: int, rank: int, verdict: int) -> bool:
        """Take a window; return whether that changes anything. A lower rank never does."""
        i = bisect_left(self.starts, start_ms)
        if i < len(self.starts) and self.starts[i] == start_ms:
            if rank <= self._ranks[i]:
                return False
            before = (self._ends[i], self._ranks[i], self._verdicts[i])
            self._ends[i], self._ranks[i], self._verdicts[i] = end_ms, rank, verdict
            self._assume_the_rest(i, before)
            return (before[0], before[2]) != (end_ms, verdict)
        self._insert(i, start_ms, end_ms, rank, verdict)
        if i and self._ranks[i - 1] == ASSUMED and self._ends[i - 1] > start_ms:
            before = (self._ends[i - 1], ASSUMED, self._verdicts[i - 1])
            self._ends[i - 1] = start_ms
            self._assume_the_rest(i, before)
        return True

    def _assume_the_rest(self, i: int, before: tuple[int, int, int]) -> None:
        """Keep what was assumed beyond a window that is known now."""
        end_ms, rank, verdict = before
        if rank == ASSUMED and end_ms > self._ends[i]:
            self._insert(i + 1, self._ends[i], end_ms, ASSUMED, verdict)

    def _insert(self, i: int, start_ms: int, end_ms: int, rank: int, verdict: int) -> None:
        self.starts.insert(i, start_ms)
        self._ends.insert(i, end_ms)
        self._ranks.insert(i, rank)
        self._verdicts.insert(i, verdict)

    def rows(self) -> Iterable[Row]:
        """Return start, end and verdict of each window."""
        return zip(self.starts, self._ends, self._verdicts, strict=True)

    def end_ms(self) -> int:
        """Return the end of the last window; there must be one."""
        return self._ends[-1]

    def drop_before(self, start_ms: int) -> list[Row]:
        """Forget the windows that begin before; return them."""
        n = bisect_left(self.starts, start_ms)
        gone = list(zip(self.starts[:n], self._ends[:n], self._verdicts[:n], strict=True))
        for column in (self.starts, self._ends, self._ranks, self._verdicts):
            del column[:n]
        return gone

    def __len__(self) -> int:
        return len(self.starts)

    def state(self) -> list[Any]:
        """Return what :meth:`of` takes."""
        columns = (self.starts, self._ends, self._ranks, self._verdicts)
        return [np.asarray(column) for column in columns]

    @staticmethod
    def of(state: Sequence[Any]) -> Kept:
        """Return windows as they were."""
        kept = Kept()
        for column, values in zip(
            (kept.starts, kept._ends, kept._ranks, kept._verdicts), state, strict=True
        ):
            column.extend(values.tolist())
        return kept


def episodes(
    hold_ms: int, resolve_ms: int, began: Episode | None, rows: Iterable[Row]
) -> tuple[list[Episode], Episode | None]:
    """Form the episodes of windows.

    :param began: what was open before the first row.
    :param rows: by start.
    :returns: those that fired and are over, and the one that is open at the end.
    """
    over: list[Episode] = []
    now = began
    for start_ms, end_ms, verdict in rows:
        if verdict == Verdict.NOTHING or (now is None and verdict != Verdict.ON):
            continue
        if now is not None and now.clear_ms is not None and _is_over(now, start_ms, resolve_ms):
            over.append(_resolved(now, resolve_ms))
            now = None
            if verdict != Verdict.ON:
                continue
        if now is None:
            now = Episode(start_ms, None, end_ms)
        elif verdict == Verdict.ON or (verdict == Verdict.BETWEEN and now.clear_ms is None):
            now = replace(now, on_end_ms=max(end_ms, now.on_end_ms), clear_ms=None)
        elif now.fired_ms is None:
            now = None
            continue
        elif now.clear_ms is None:
            now = replace(now, clear_ms=max(start_ms, now.on_end_ms))
        if now.fired_ms is None and end_ms - now.began_ms >= hold_ms:
            now = replace(now, fired_ms=end_ms)
        if now.clear_ms is not None and _is_over(now, end_ms, resolve_ms):
            over.append(_resolved(now, resolve_ms))
            now = None
    return over, now


def reconcile(told: Sequence[Told], found: Sequence[Episode]) -> tuple[list[Told], list[Told]]:
    """Compare what was told with the episodes that there are.

    :param found: episodes that fired, in order.
    :returns: what to remember, and what is to be told now, in order.
    """
    left = list(told)
    after: list[Told] = []
    news: list[Told] = []
    for episode in found:
        known = _match(left, episode)
        if known is None:
            base = Told(episode.began_ms, episode.began_ms, _fired(episode), "")
        else:
            left.remove(known)
            base = replace(known, began_ms=episode.began_ms)
        said = _say(base, episode)
        news += said
        after.append(said[-1] if said else replace(base, resolved_ms=episode.resolved_ms))
    for one in left:
        rest = _without(one, found)
        after.append(rest)
        if rest.state != one.state:
            news.append(rest)
    return sorted(after, key=lambda one: one.id_ms), news


def _say(base: Told, episode: Episode) -> list[Told]:
    said = []
    if base.state in ("", RETRACTED) or (base.state == RESOLVED and episode.resolved_ms is None):
        base = replace(base, state=FIRING, resolved_ms=None, turn=base.turn + (base.state != ""))
        said.append(base)
    if base.state == FIRING and episode.resolved_ms is not None:
        said.append(replace(base, state=RESOLVED, resolved_ms=episode.resolved_ms))
    return said


def _match(left: Sequence[Told], episode: Episode) -> Told | None:
    """Return the alert that an episode goes on with: the one that fires, or the same, or the last.

    Two episodes that a correction joins go on as the one that fires.
    """
    overlapping = [one for one in left if one.state != RETRACTED and _overlap(one, episode)]
    if episode.resolved_ms is None:
        for one in overlapping:
            if one.state == FIRING:
                return one
    for one in left:
        if episode.began_ms in (one.id_ms, one.began_ms):
            return one
    return overlapping[-1] if overlapping else None


def _without(one: Told, found: Sequence[Episode]) -> Told:
    """Return what is left of an alert without an episode of its own."""
    if one.state == RETRACTED:
        return one
    other = next((episode for episode in found if _overlap(one, episode)), None)
    if other is not None:  # It became a part of that one.
        if one.state == RESOLVED:
            return one
        return replace(one, state=RESOLVED, resolved_ms=other.resolved_ms)
    return replace(one, state=RETRACTED)


def _overlap(one: Told, episode: Episode) -> bool:
    ends = _EVER if one.resolved_ms is None else one.resolved_ms
    other_ends = _EVER if episode.resolved_ms is None else episode.resolved_ms
    return one.began_ms < other_ends and episode.began_ms < ends


def _is_over(episode: Episode, at_ms: int, resolve_ms: int) -> bool:
    return episode.clear_ms is not None and at_ms - episode.clear_ms >= resolve_ms


def _resolved(episode: Episode, resolve_ms: int) -> Episode:
    assert episode.clear_ms is not None
    return replace(episode, resolved_ms=episode.clear_ms + resolve_ms)


def _fired(episode: Episode) -> int:
    assert episode.fired_ms is not None
    return episode.fired_ms
