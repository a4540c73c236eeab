"""Rules on window results: from results to alerts that change.

A batch of results is compared with all rules that look at it in a few numpy passes. What is on, and
what belongs to a series of which something is the matter, is then looked at one by one:

::

    results ── tracks ──▶ pairs (result, rule) ── tests ──▶ verdicts ── on, or kept ──▶ episodes
                                                               │
                                                      off, and nothing kept: no more is done

Only closed windows are judged. Of a window the greatest rank counts; one that a correction changes
changes the episodes, and with them the alerts. Nothing reads a clock: silence is measured in the
log time that the caller hands in. State is kept in shards, as that of the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from streams.core.absences import PRESENT, Absences
from streams.core.comparisons import split
from streams.core.composed_alerts import ComposedAlerts, Device
from streams.core.episodes import (
    FIRING,
    RESOLVED,
    Told,
)
from streams.core.metric_comparisons import MetricComparisons
from streams.core.placement import shard_of
from streams.core.readings import Bool, Int64
from streams.core.registry import NEVER
from streams.core.results import WindowResults
from streams.core.rule_pairs import Cause, Change, Pair
from streams.core.rule_state import Stands, facts_of, standing_in
from streams.core.rule_tracks import NO_TRACK, Key, Tracks
from streams.core.segments import running_max_before
from streams.core.selectors import TraitsOf, without_traits
from streams.core.window_rules import (
    Absence,
    Composition,
    Tests,
    Verdict,
    WindowRule,
)

State = dict[str, Any]


class RuleEngine:
    """All rules on windows, on one partition.

    :param keep_ms: window -> how long after its end a correction of it may come.
    :param max_series: tracks; results of further ones are not judged.
    :param max_compared: values held for comparisons of metrics.
    :param max_open: rules on series of which something is the matter; further ones do not fire.
    """

    def __init__(
        self,
        rules: Sequence[WindowRule],
        keep_ms: Mapping[str, int],
        *,
        shards: int,
        max_series: int,
        max_open: int,
        max_compared: int = 0,
        traits_of: TraitsOf = without_traits,
    ) -> None:
        self._rules = [r for r in rules if not isinstance(r.test, Composition)]
        self._composed = [r for r in rules if isinstance(r.test, Composition)]
        self._by_name = {rule.name: rule for rule in rules}
        self._number = {rule.name: i for i, rule in enumerate(self._rules)}
        self._tests = Tests(self._rules)
        self._is_absence = np.asarray([isinstance(r.test, Absence) for r in self._rules], np.bool_)
        self._tracks = Tracks(self._rules, traits_of, shards=shards, limit=max_series)
        self._pairs: dict[tuple[int, int], Pair] = {}
        self._compositions = ComposedAlerts(
            self._composed, self._rules, self._tracks, self._pairs, self._cut_ms
        )
        self._absences = Absences(
            [r.test.silent_ms if isinstance(r.test, Absence) else 0 for r in self._rules]
        )
        self._watched: set[int] = set()
        self._keep_ms = {
            **keep_ms,
            **{rule.looks_at: keep_ms.get(rule.window, 0) for rule in self._rules},
        }
        self._compared = MetricComparisons(
            split(self._rules)[0], keep_ms, traits_of, shards=shards, limit=max_compared
        )
        self._max_open = max_open
        self._next_off_ms = NEVER
        self.stamps = np.full(shards, -1, np.int64)
        self.dirty_since = np.full(shards, NEVER, np.int64)
        self._gone: dict[int, list[Stands]] = {}
        """Alerts of stored shards that no rule looks at any more."""
        self.refused = 0
        """Results and alerts not taken because a limit was met, since somebody set it to 0."""

    # -- results and time -----------------------------------------------------------------

    def take(self, found: WindowResults, now_ms: int, offset: int) -> list[Change]:
        """Take the results of one record.

        :param now_ms: log time.
        :param offset: of the record; shards whose stamp is not below it are left as they are.
        """
        changes = self._take(found, now_ms, offset)
        for compared in self._compare(found, offset):
            changes += self._take(compared, now_ms, offset)
        return changes

    def _compare(self, found: WindowResults, offset: int) -> list[WindowResults]:
        rows = self._compared.watched(found)
        if not len(rows):
            return []
        shard = self._shards_of(found.take(rows))
        live = self.stamps[shard] < offset
        rows, shard = rows[live], shard[live]
        np.minimum.at(self.dirty_since, shard, offset)
        compared = self._compared.take(found, rows)
        self.refused += self._compared.refused
        self._compared.refused = 0
        return compared

    def _shards_of(self, found: WindowResults) -> Int64:
        """Return the shard of each result's device; each device is hashed once."""
        key = found.tenant.codes.astype(np.int64) * len(found.device.values) + found.device.codes
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        n = len(self.stamps)
        shards = [shard_of(found.tenant[i], found.device[i], n) for i in first.tolist()]
        return np.asarray(shards, np.int64)[inverse]

    def _take(self, found: WindowResults, now_ms: int, offset: int) -> list[Change]:
        track = self._tracks.intern(found)
        self.refused += int(np.count_nonzero((track == NO_TRACK) & self._watches(found)))
        rows = np.flatnonzero(track != NO_TRACK)
        shard = self._tracks.columns["shard"][track[rows]]
        rows = rows[self.stamps[shard] < offset]
        if not len(rows):
            return []
        found, track = found.take(rows), track[rows]
        self._touch(track, offset)
        c = self._tracks.columns
        np.maximum.at(c["seen_ms"], track, found.kafka_ms)
        changes = self._present_again(found, track, now_ms)
        closed = np.flatnonzero(found.rank >= 0)
        found, track = found.take(closed), track[closed]
        if not len(closed):
            return changes
        heads, local = np.unique(track, return_inverse=True)
        until_ms = running_max_before(local, found.end_ms, c["end_ms"][heads])
        until_ms = np.maximum(until_ms, found.end_ms)
        last = np.empty(len(heads), np.int64)
        last[local] = np.arange(len(local))
        first_ms, latest_ms = int(found.start_ms.min()), int(found.start_ms.max())
        if first_ms < latest_ms and self._outruns(found, until_ms, until_ms[last][local]):
            early = found.start_ms <= (first_ms + latest_ms) // 2
            changes += self._take(found.take(np.flatnonzero(early)), now_ms, offset)
            return changes + self._take(found.take(np.flatnonzero(~early)), now_ms, offset)
        np.maximum.at(c["end_ms"], track, found.end_ms)
        changed = self._judge(found, track, until_ms, now_ms)
        heard = {
            (device, number): _cause(found, int(last[i]), now_ms, float("nan"))
            for device, number, i in self._compositions.standing(heads)
        }
        return changes + self._changes(changed, now_ms, heard)

    def _outruns(self, found: WindowResults, until_ms: Int64, at_last_ms: Int64) -> bool:
        """Whether windows are too old to judge only by what comes after them in the same record.

        A record may hold more of a series than is corrected: a backlog, or a recording played fast.

        :param until_ms, at_last_ms: int64[n]: how far a track is known with the result, and with
            the last of the record.
        """
        kept = [self._keep_ms.get(name, 0) for name in found.window.values]
        keep_ms = np.asarray(kept, np.int64)[found.window.codes]
        was_there = found.start_ms >= until_ms - keep_ms
        return bool(np.any(was_there & (found.start_ms < at_last_ms - keep_ms)))

    def pass_time(self, now_ms: int, offset: int) -> list[Change]:
        """Let log time pass, before the record at *offset* is taken."""
        changes = self._resolve_gone(now_ms, offset) if self._gone else []
        c = self._tracks.columns
        takes: Bool = (self.stamps < offset)[c["shard"]]
        for track, number, seen_ms in self._absences.pass_time(c["seen_ms"], takes, now_ms):
            self._touch(np.asarray([track], np.int32), offset)
            rule = self._rules[number]
            assert isinstance(rule.test, Absence)
            fired_ms = seen_ms + rule.test.silent_ms
            told = Told(seen_ms, seen_ms, fired_ms, FIRING)
            changes += self._tell(rule, track, told, _silence(seen_ms, now_ms))
        if now_ms >= self._next_off_ms:
            changes += self._silent_off(takes, now_ms, offset)
        return changes

    def wants_time(self) -> bool:
        """Whether something waits for log time to pass."""
        return bool(self._gone) or self._next_off_ms != NEVER or self._absences.waits()

    def count(self) -> dict[str, tuple[int, int]]:
        """Return of each rule how many alerts are pending, and how many fire."""
        counts = {rule.name: [0, 0] for rule in (*self._rules, *self._composed)}
        for (_, number), pair in self._pairs.items():
            counts[self._rules[number].name][0] += pair.pending
            counts[self._rules[number].name][1] += pair.firing
        for name in self._compositions.firing():
            counts[name][1] += 1
        gone = self._absences.columns
        for number in gone["rule"][gone["absent_ms"] >= 0].tolist():
            counts[self._rules[number].name][1] += 1
        return {name: (pending, firing) for name, (pending, firing) in counts.items()}

    def _watches(self, found: WindowResults) -> Bool:
        names = {rule.looks_at for rule in self._rules}
        flags: Bool = np.asarray([name in names for name in found.window.values], np.bool_)
        return flags[found.window.codes]

    def _touch(self, track: np.ndarray[Any, Any], offset: int) -> None:
        shard = np.unique(self._tracks.columns["shard"][track])
        self.dirty_since[shard] = np.minimum(self.dirty_since[shard], offset)

    def _present_again(
        self, found: WindowResults, track: np.ndarray[Any, Any], now_ms: int
    ) -> list[Change]:
        self._watch(track)
        seen_ms = self._tracks.columns["seen_ms"]
        changes: list[Change] = []
        for of, number, absent_ms in self._absences.heard(seen_ms):
            rule = self._rules[number]
            assert isinstance(rule.test, Absence)
            fired_ms = absent_ms + rule.test.silent_ms
            told = Told(absent_ms, absent_ms, fired_ms, RESOLVED, int(seen_ms[of]))
            row = int(np.flatnonzero(track == of)[-1])
            changes += self._tell(rule, of, told, _cause(found, row, now_ms, float("nan")))
        return changes

    def _watch(self, track: np.ndarray[Any, Any]) -> None:
        if not self._is_absence.any():
            return
        for one in np.unique(track).tolist():
            if one not in self._watched:
                self._watched.add(one)
                for number in self._absence_rules_of(one):
                    self._absences.add(one, number)

    def _absence_rules_of(self, track: int) -> list[int]:
        rules = self._tracks.rules_of(track)
        found: list[int] = rules[self._is_absence[rules]].tolist()
        return found

    # -- one rule on one series -----------------------------------------------------------

    def _judge(
        self, found: WindowResults, track: np.ndarray[Any, Any], until_ms: Int64, now_ms: int
    ) -> dict[tuple[int, int], Cause]:
        """Take the verdicts of closed windows; return the pairs that changed, and by what.

        :param until_ms: int64[n]: how far a track was known with the result, in event time.
        """
        row, rule = self._tracks.pair(track)
        row, rule = row[~self._is_absence[rule]], rule[~self._is_absence[rule]]
        verdict, value = self._tests.judge(found, row, rule)
        cares = (verdict >= Verdict.BETWEEN) | (self._tracks.columns["pairs"][track[row]] > 0)
        # A rule that turns on in this very batch is kept from there on.
        turned = np.unique(track[row[verdict >= Verdict.BETWEEN]])
        cares |= np.isin(track[row], turned)
        changed: dict[tuple[int, int], Cause] = {}
        for i in np.flatnonzero(cares).tolist():
            r, place = int(row[i]), (int(track[row[i]]), int(rule[i]))
            if self._put(place, found, r, int(verdict[i]), int(until_ms[r])):
                changed[place] = _cause(found, r, now_ms, float(value[i]))
        return changed

    def _put(
        self, place: tuple[int, int], found: WindowResults, row: int, verdict: int, until_ms: int
    ) -> bool:
        start_ms, end_ms = int(found.start_ms[row]), int(found.end_ms[row])
        if start_ms < self._cut_ms(place[0]):
            return False
        pair = self._pairs.get(place)
        if pair is None:
            if verdict < Verdict.BETWEEN:
                return False
            if len(self._pairs) >= self._max_open:
                self.refused += 1
                return False
            pair = self._pairs[place] = Pair()
            self._tracks.columns["pairs"][place[0]] += 1
        return pair.put(start_ms, end_ms, int(found.rank[row]), verdict, until_ms)

    def _changes(
        self,
        changed: Mapping[tuple[int, int], Cause],
        now_ms: int,
        heard: Mapping[tuple[Device, int], Cause] = MappingProxyType({}),
    ) -> list[Change]:
        """Return what is to be told of pairs that changed, and of compositions of them.

        :param heard: further compositions to look at, by device.
        """
        changes: list[Change] = []
        due, causes = dict(heard), dict[Device, Cause]()
        for place, cause in changed.items():
            track, number = place
            rule, pair = self._rules[number], self._pairs[place]
            for told in pair.update(rule, now_ms, self._cut_ms(track)):
                changes += self._tell(rule, track, told, cause)
            self._next_off_ms = min(self._next_off_ms, pair.deadline_ms(rule))
            if pair.is_over:
                del self._pairs[place]
                self._tracks.columns["pairs"][track] -= 1
            key = self._tracks.keys[track]
            device = key.tenant, key.device
            causes[device] = cause
            due |= dict.fromkeys([(device, one) for one in self._compositions.of(number)], cause)
        for (device, composed), cause in due.items():
            changes += self._compositions.judge(device, composed, causes.get(device, cause))
        return changes

    def _silent_off(self, takes: Bool, now_ms: int, offset: int) -> list[Change]:
        self._next_off_ms = NEVER
        changed: dict[tuple[int, int], Cause] = {}
        for place, pair in self._pairs.items():
            rule = self._rules[place[1]]
            if takes[place[0]] and pair.pass_time(rule, now_ms):
                self._touch(np.asarray([place[0]], np.int32), offset)
                changed[place] = _silence(pair.kept.end_ms(), now_ms)
            else:
                self._next_off_ms = min(self._next_off_ms, pair.deadline_ms(rule))
        return self._changes(changed, now_ms)

    def _resolve_gone(self, now_ms: int, offset: int) -> list[Change]:
        changes: list[Change] = []
        for shard in [shard for shard in self._gone if self.stamps[shard] < offset]:
            self.dirty_since[shard] = min(int(self.dirty_since[shard]), offset)
            for one in self._gone.pop(shard):
                told = replace(one.told, state=RESOLVED, resolved_ms=now_ms)
                is_there = one.rule.name in self._by_name
                gone = "does not look at it" if is_there else "is not in the settings"
                why = f"the rule {one.rule.name} {gone} any more"
                changes.append(Change(one.rule, one.names, told, _silence(now_ms, now_ms), why))
        return changes

    def _judges(self, one: Stands) -> bool:
        """Whether some rule goes on with an alert that stands."""
        rule = self._by_name.get(one.rule.name)
        if (
            rule is None
            or not rule.tells
            or isinstance(rule.test, Composition) != (one.results is None)
        ):
            return False
        if one.results is None:
            return True
        track = self._tracks.find(
            Key(one.names.tenant, one.names.device, one.names.metric, one.results)
        )
        return (
            track != NO_TRACK
            and rule.looks_at == one.results
            and self._number[rule.name] in self._tracks.rules_of(track)
        )

    def _cut_ms(self, track: int) -> int:
        window = self._tracks.keys[track].window
        # Of a window that the settings have no more nothing is corrected.
        return int(self._tracks.columns["end_ms"][track]) - self._keep_ms.get(window, 0)

    def _tell(self, rule: WindowRule, track: int, told: Told, cause: Cause) -> list[Change]:
        return [Change(rule, self._tracks.names(track), told, cause)] if rule.tells else []

    # -- state ----------------------------------------------------------------------------

    def snapshot(self, shard: int) -> State:
        """Return a shard's state, and mark it clean."""
        self.dirty_since[shard] = NEVER
        c = self._tracks.columns
        tracks = np.flatnonzero(c["shard"] == shard)
        local = {track: i for i, track in enumerate(tracks.tolist())}
        return {
            "rules": facts_of([*self._rules, *self._composed]),
            "compared": self._compared.snapshot(shard),
            "tracks": [[*self._tracks.keys[t], self._tracks.sites[t]] for t in tracks.tolist()],
            "end_ms": c["end_ms"][tracks],
            "seen_ms": c["seen_ms"][tracks],
            "pairs": [
                [local[track], self._rules[number].name, pair.state()]
                for (track, number), pair in self._pairs.items()
                if track in local
            ],
            "watched": np.asarray([local[t] for t in self._watched if t in local], np.int64),
            "absent": [
                [local[track], self._rules[number].name, absent_ms]
                for track, number, absent_ms in self._absences.absent()
                if track in local
            ],
            "told": self._compositions.snapshot(local),
        }

    def restore(self, shard: int, stamp: int, state: State) -> None:
        """Load a shard. Alerts that no rule looks at any more resolve when time passes."""
        tracks = []
        for i, (*names, site) in enumerate(state["tracks"]):
            key = Key(*names)
            track = (
                self._tracks.add(key, site, limited=False) if key.window in self._keep_ms else -1
            )
            tracks.append(track)
            if track != NO_TRACK:
                for name in ("end_ms", "seen_ms"):
                    self._tracks.columns[name][track] = state[name][i]
        for local, name, pair in state["pairs"]:
            number, track = self._number.get(name), tracks[local]
            if number is not None and self._tracks.looks(track, number):
                rule = self._rules[number]
                found = self._pairs[track, number] = Pair.of(pair, rule)
                self._tracks.columns["pairs"][track] += 1
                self._next_off_ms = min(self._next_off_ms, found.deadline_ms(rule))
        absent = {(tracks[local], name): ms for local, name, ms in state["absent"]}
        # A former version listed every watched track among the absent ones.
        watched = state.get("watched", np.asarray([row[0] for row in state["absent"]], np.int64))
        for track in {tracks[local] for local in watched.tolist()} - {NO_TRACK}:
            self._watched.add(track)
            for number in self._absence_rules_of(track):
                since_ms = absent.get((track, self._rules[number].name), PRESENT)
                self._absences.add(track, number, since_ms)
        self._compositions.restore(state["told"])
        gone = [one for one in standing_in(state) if not self._judges(one)]
        if gone:
            self._gone[shard] = gone
        self._compared.restore(shard, state.get("compared", ()))
        self.stamps[shard] = stamp


def _cause(found: WindowResults, row: int, now_ms: int, value: float) -> Cause:
    return Cause(
        start_ms=int(found.start_ms[row]),
        end_ms=int(found.end_ms[row]),
        received_ms=int(found.last_received_ms[row]),
        kafka_ms=int(found.kafka_ms[row]),
        log_ms=now_ms,
        value=value,
    )


def _silence(at_ms: int, now_ms: int) -> Cause:
    return Cause(at_ms, at_ms, at_ms, at_ms, now_ms, float("nan"))
