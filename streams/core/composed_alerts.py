"""Compositions on devices: what their members say together, and what was told of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from streams.core.compositions import Known, compose, known
from streams.core.episodes import FIRING, Episode, Told, episodes, reconcile
from streams.core.readings import Int32
from streams.core.rule_pairs import Cause, Change, Pair
from streams.core.rule_state import EVERY_METRIC
from streams.core.rule_tracks import Tracks
from streams.core.selectors import Names
from streams.core.window_rules import Composition, WindowRule

Device = tuple[str, str]
"""Tenant and name."""


class ComposedAlerts:
    """All compositions, on the devices of one partition. They are known by their numbers.

    :param rules: the compositions; ``singles``: the other rules, which their members are of.
    :param tracks: the series that the members look at.
    :param pairs: (track, number of a single rule) -> what is the matter there.
    :param cut_ms: track -> event time before which its windows are not known any more.
    """

    def __init__(
        self,
        rules: Sequence[WindowRule],
        singles: Sequence[WindowRule],
        tracks: Tracks,
        pairs: Mapping[tuple[int, int], Pair],
        cut_ms: Callable[[int], int],
    ) -> None:
        self._rules, self._tracks, self._pairs, self._cut_ms = rules, tracks, pairs, cut_ms
        self._number = {rule.name: i for i, rule in enumerate(singles)}
        self._of: dict[int, list[int]] = {}
        for number, rule in enumerate(rules):
            for name in _composition(rule).members:
                self._of.setdefault(self._number[name], []).append(number)
        self._told: dict[tuple[int, Device], list[Told]] = {}

    def of(self, single: int) -> Sequence[int]:
        """Return the compositions that a single rule is a member of."""
        return self._of.get(single, ())

    def firing(self) -> Iterator[str]:
        """Yield the name of the rule of each composition that fires on a device."""
        for (number, _), told in self._told.items():
            if any(one.state == FIRING for one in told):
                yield self._rules[number].name

    def standing(self, tracks: Int32) -> Iterator[tuple[Device, int, int]]:
        """Yield what fires and has a member on these tracks: device, number, index of the track.

        More being known of a member may end it, where no member changes.
        """
        if not self._told:
            return
        for i, track in enumerate(tracks.tolist()):
            key = self._tracks.keys[track]
            device = key.tenant, key.device
            for number in range(len(self._rules)):
                told = self._told.get((number, device), ())
                if any(one.state == FIRING for one in told) and any(
                    number in self.of(single) for single in self._tracks.rules_of(track).tolist()
                ):
                    yield device, number, i

    def judge(self, device: Device, number: int, cause: Cause) -> list[Change]:
        """Compare what the members say now with what was told; return what is to be told."""
        rule, tracks = self._rules[number], self._tracks.of_device[device]
        test, before = _composition(rule), self._told.get((number, device), [])
        members = [self._members(tracks, name) for name in test.members]
        rows = compose(test, [[what for what, _ in one] for one in members])
        if not rows and not before:
            return []
        since_ms = max((since for one in members for _, since in one), default=0)
        found = [e for e in _fired(rule, rows) if e.resolved_ms is None or e.began_ms >= since_ms]
        known_still = [o for o in before if o.state == FIRING or o.began_ms >= since_ms]
        after, news = reconcile(known_still, found)
        if after:
            self._told[number, device] = after
        else:
            self._told.pop((number, device), None)
        if not rule.tells:
            return []
        names = Names(device[0], self._tracks.sites[tracks[0]], device[1], EVERY_METRIC)
        return [Change(rule, names, told, cause) for told in news]

    def _members(self, tracks: Sequence[int], name: str) -> list[tuple[Known, int]]:
        """Return what is known of a rule on the series of a device, and since when."""
        number = self._number[name]
        found: list[tuple[Known, int]] = []
        for track in tracks:
            if number not in self._tracks.rules_of(track):
                continue
            until_ms, cut_ms = int(self._tracks.columns["end_ms"][track]), self._cut_ms(track)
            if until_ms < 0:  # Only provisional windows so far: as if it were not there.
                continue
            pair = self._pairs.get((track, number))
            if pair is None:
                found.append((known([], cut_ms, until_ms), cut_ms))
                continue
            base = pair.base
            since_ms = cut_ms if base is None else min(cut_ms, base.began_ms)
            found.append((known(pair.found, cut_ms, until_ms), since_ms))
        return found

    def snapshot(self, tracks: Mapping[int, int]) -> list[list[Any]]:
        """Return what was told on the devices whose first track is one of these."""
        return [
            [self._rules[number].name, list(device), [asdict(one) for one in told]]
            for (number, device), told in self._told.items()
            if self._tracks.of_device[device][0] in tracks
        ]

    def restore(
        self, rows: Sequence[tuple[str, Sequence[str], Sequence[Mapping[str, Any]]]]
    ) -> None:
        """Take back what :meth:`snapshot` gave, of rules and devices that are still there."""
        numbers = {rule.name: i for i, rule in enumerate(self._rules)}
        for name, (tenant, device), told in rows:
            if name in numbers and (tenant, device) in self._tracks.of_device:
                self._told[numbers[name], (tenant, device)] = [Told(**one) for one in told]


def _composition(rule: WindowRule) -> Composition:
    assert isinstance(rule.test, Composition)
    return rule.test


def _fired(rule: WindowRule, rows: Sequence[tuple[int, int, int]]) -> list[Episode]:
    over, now = episodes(rule.hold_ms, rule.resolve_ms, None, rows)
    return [*over, *([now] if now is not None and now.fired_ms is not None else [])]
