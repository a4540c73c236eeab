"""Rules made of rules: where every, or any, of several fires on a device.

Of each member it is known in which *stretches* of event time it fires, and in which it does not.
``every`` is on where all do, and off where one does not; ``any`` is on where one does, and off
where none does. Elsewhere it is not known, and nothing follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streams.core.episodes import Episode, Row
from streams.core.window_rules import Composition, Verdict

Stretch = tuple[int, int]
"""Half-open: start and end in ms."""


@dataclass(frozen=True, slots=True)
class Known:
    """Where a rule fires and where not: disjoint stretches, in order."""

    on: Sequence[Stretch]
    off: Sequence[Stretch]


def known(found: Sequence[Episode], since_ms: int, until_ms: int) -> Known:
    """Return where a rule fires on a series.

    :param found: episodes that fired.
    :param since_ms, until_ms: the event time of which anything is known.
    """
    ends = [until_ms if e.resolved_ms is None else e.resolved_ms for e in found]
    on = union((e.began_ms, max(end, e.on_end_ms)) for e, end in zip(found, ends, strict=True))
    # What has resolved is known to be off from there on, if only for a moment.
    reach = max([until_ms, *(e.resolved_ms + 1 for e in found if e.resolved_ms is not None)])
    return Known(on, minus([(min(since_ms, reach), reach)], on))


def compose(rule: Composition, members: Sequence[Sequence[Known]]) -> list[Row]:
    """Return the windows of a composition, for :func:`streams.core.episodes.episodes`.

    :param members: of each member, its series on the device: it is on where one of them is, and
        without any it is not known.
    """
    each = [_member(series, rule.within_ms) for series in members if series]
    if not each or (rule.every and len(each) < len(members)):
        return []
    ons, offs = [one.on for one in each], [one.off for one in each]
    if rule.every:
        on, off = _all(ons), union(stretch for stretches in offs for stretch in stretches)
    else:
        on, off = union(stretch for stretches in ons for stretch in stretches), _all(offs)
    rows = [(start, end, int(Verdict.ON)) for start, end in on]
    rows += [(start, end, int(Verdict.OFF)) for start, end in minus(off, on)]
    return sorted(rows)


def _member(series: Sequence[Known], within_ms: int) -> Known:
    on = union((a, b + within_ms) for one in series for a, b in one.on)
    off = _all([one.off for one in series])
    return Known(on, minus(off, on))


def union(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Join stretches that overlap or touch."""
    out: list[Stretch] = []
    for start, end in sorted(stretches):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        elif end > start:
            out.append((start, end))
    return out


def minus(stretches: Sequence[Stretch], taken: Sequence[Stretch]) -> list[Stretch]:
    """Return what of disjoint stretches lies outside of others, which are in order."""
    out: list[Stretch] = []
    for start, end in stretches:
        at = start
        for a, b in taken:
            if b <= at or a >= end:
                continue
            if a > at:
                out.append((at, a))
            at = max(at, b)
        if at < end:
            out.append((at, end))
    return out


def _all(of: Sequence[Sequence[Stretch]]) -> list[Stretch]:
    """Return where all have a stretch."""
    common = list(of[0])
    for stretches in of[1:]:
        met = [
            (max(a, c), min(b, d)) for a, b in common for c, d in stretches if max(a, c) < min(b, d)
        ]
        common = sorted(met)
    return common
