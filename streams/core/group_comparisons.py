"""Devices compared with the median of their group, window by window.

Values lie in columns by (member, window), and each window of a group knows where its own are.
Once a window has been quiet for a while, all values of all quiet windows are sorted at once. Where
the median is what was said before, only what changed is said: the rest would be said as it was.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from streams.core.compared_values import HELD, Come, news_among
from streams.core.comparisons import NOTHING, comparison_of, measured, said_of, values_of
from streams.core.group_members import NO_MEMBER, Members, ShardOf
from streams.core.keyed import Keyed
from streams.core.readings import Bool, Float64, Int64, Labels
from streams.core.registry import NEVER
from streams.core.results import WindowResults
from streams.core.selectors import TraitsOf
from streams.core.window_rules import WindowRule

_LEAST_SWEPT = 1_024
_LEAST_MEMBERS = 65_536
_VALUE: dict[str, tuple[Any, Any]] = {
    "window": (np.int32, 0),
    **HELD,
    "said": (np.bool_, False),
}
_WINDOW: dict[str, tuple[Any, Any]] = {
    "end_ms": (np.int64, 0),
    "changed_ms": (np.int64, 0),
    "told": (np.int32, 0),
    "due": (np.bool_, False),
    "median": (np.float64, np.nan),
}


class GroupComparisons:
    """Compares devices with the median of their group, once it has been quiet for a while.

    ``windows``: of a group, by (board, start): ``changed_ms`` is the log time of the last change,
    ``told`` how often it was told, ``due`` whether it is to be told, ``median`` what was said last.

    :param rules: those that compare among devices.
    :param keep_ms: window -> how long after its end a correction of it may come.
    :param shard_of: asked for the shard of each group; shards know nothing of each other.
    :param quiet_ms: log time without a change.
    :param limit: values that are held of a shard.
    """

    def __init__(
        self,
        rules: Sequence[WindowRule],
        keep_ms: Mapping[str, int],
        traits_of: TraitsOf,
        shard_of: ShardOf,
        *,
        quiet_ms: int,
        limit: int,
    ) -> None:
        self._rules = rules
        self._number = {rule.name: i for i, rule in enumerate(rules)}
        self._columns = list(dict.fromkeys(comparison_of(rule).column for rule in rules))
        column = [self._columns.index(comparison_of(rule).column) for rule in rules]
        self._column_of = np.asarray(column, np.int64)
        self._among = np.asarray([comparison_of(rule).among for rule in rules])
        self._ratio = np.asarray([comparison_of(rule).by == "ratio" for rule in rules], np.bool_)
        self._looks_at = [rule.looks_at for rule in rules]
        self._least = np.asarray([comparison_of(rule).least for rule in rules], np.int64)
        self._keep_ms = np.asarray([keep_ms.get(rule.window, 0) for rule in rules], np.int64)
        self._quiet_ms, self._limit = quiet_ms, limit
        self._make_members = partial(Members, rules, traits_of, shard_of)
        self._start()
        self.refused = 0
        """Values not held because the limit was met, since somebody set it to 0."""

    def _start(self) -> None:
        """Hold nothing."""
        self._members = self._make_members()
        self._values, self._windows = Keyed(_VALUE), Keyed(_WINDOW)
        self._slots: list[array[int]] = []
        """Of each window: its values, in the order in which they came."""
        self._sweep_at, self._members_at = _LEAST_SWEPT, _LEAST_MEMBERS
        self._next_ms = NEVER

    # -- results and time -----------------------------------------------------------------

    def take(self, found: WindowResults, among: str, now_ms: int, takes: Bool) -> Int64:
        """Take results into the comparisons of their groups.

        :param among: the kind of groups that they are for.
        :param takes: bool[shards]: those of other shards are left out.
        :returns: the shards that took some.
        """
        m = self._members
        row, pair = m.pair(found)
        mine = self._among[m.pairs["rule"][pair]] == among
        row, pair = row[mine], pair[mine]
        member = m.pairs["member"][pair]
        has = member != NO_MEMBER
        self.refused += int(np.count_nonzero(~has))
        board = m.members["board"][member]
        has &= takes[m.boards["shard"][board]] if len(board) else True
        row, pair, board = row[has], pair[has], board[has]
        if not len(row):
            return np.empty(0, np.int64)
        self._put(found, row, pair, now_ms)
        shards: Int64 = np.unique(m.boards["shard"][board]).astype(np.int64)
        if len(self._values) >= self._sweep_at or m.members.n >= self._members_at:
            self._sweep()
        return shards

    def _put(self, found: WindowResults, row: Int64, pair: Int64, now_ms: int) -> None:
        m = self._members
        member, rule = m.pairs["member"][pair], m.pairs["rule"][pair]
        board, ends_ms = m.members["board"][member], m.boards["end_ms"]
        start_ms, end_ms, rank = found.start_ms[row], found.end_ms[row], found.rank[row]
        come = Come(member, board, start_ms, end_ms, rank, self._keep_ms[rule])
        news, slot = news_among(come, self._values, ends_ms)
        np.maximum.at(ends_ms, board[news], end_ms[news])
        room = self._room(board[news], slot)
        self.refused += int(np.count_nonzero(~room))
        news, slot = news[room], slot[room]
        if not len(news):
            return
        row, pair, rule, start_ms = row[news], pair[news], rule[news], start_ms[news]
        window, first = self._windows.slots_of(board[news], start_ms)
        w, c = self._windows.columns, self._values.columns
        w["end_ms"][window[first]] = end_ms[news][first]
        w["changed_ms"][window] = now_ms
        w["due"][window] = True
        self._next_ms = min(self._next_ms, now_ms + self._quiet_ms)
        rows: dict[str, np.ndarray[Any, Any]] = {
            "series": member[news],
            "start_ms": start_ms,
            "window": window,
            "rank": rank[news],
            "value": values_of(found, self._columns)[self._column_of[rule], row],
            "end_ms": end_ms[news],
            "received_ms": found.last_received_ms[row],
            "kafka_ms": found.kafka_ms[row],
            "site": m.pairs["site"][pair],
            "said": np.zeros(len(row), np.bool_),
        }
        fresh = slot < 0
        for name, column in rows.items():
            c[name][slot[~fresh]] = column[~fresh]
        made = self._values.extend({name: one[fresh] for name, one in rows.items()})
        self._list(window[fresh], made)

    def _room(self, board: Int64, slot: Int64) -> Bool:
        """Return which news there is room for: in each shard, up to the limit."""
        fresh = slot < 0
        room = np.ones(len(slot), np.bool_)
        if len(self._values) + np.count_nonzero(fresh) <= self._limit:
            return room
        shards = self._members.boards["shard"]
        held_on = self._windows.columns["series"][self._values.columns["window"]]
        held = shards[held_on[self._alive()[self._values.columns["window"]]]]
        shard = shards[board]
        for one in np.unique(shard).tolist():
            of = np.flatnonzero(fresh & (shard == one))
            left = self._limit - int(np.count_nonzero(held == one))
            room[of[max(0, left) :]] = False
        return room

    def _list(self, window: Int64, slot: Int64) -> None:
        """Add values, in order, to the lists of their windows."""
        lists = self._slots
        lists.extend(array("q") for _ in range(len(self._windows) - len(lists)))
        if not len(slot):
            return
        order = np.argsort(window, kind="stable")
        ordered = window[order]
        first = np.append(0, np.flatnonzero(np.diff(ordered)) + 1)
        cuts = np.append(first, len(slot)).tolist()
        values = slot[order].astype(np.int64).tobytes()
        for i, of in enumerate(ordered[first].tolist()):
            lists[of].frombytes(values[8 * cuts[i] : 8 * cuts[i + 1]])

    def pass_time(self, now_ms: int, takes: Bool) -> list[tuple[int, WindowResults]]:
        """Return, with their shards, the comparisons in groups that are quiet for long enough."""
        if now_ms < self._next_ms:
            return []
        w, boards = self._windows.columns, self._members.boards
        alive = self._alive()
        due = np.flatnonzero(w["due"] & alive)
        at_ms = w["changed_ms"][due] + self._quiet_ms
        quiet = (at_ms <= now_ms) & takes[boards["shard"][w["series"][due]]]
        self._next_ms = int(at_ms[~quiet].min(initial=NEVER))
        window = self._in_order(due[quiet])
        if not len(window):
            return []
        w["due"][window] = False
        n = np.asarray([len(self._slots[one]) for one in window.tolist()], np.int64)
        slot = np.frombuffer(b"".join(self._slots[one] for one in window.tolist()), np.int64)
        place = np.repeat(np.arange(len(window)), n)
        median = self._medians(window, n, slot, place)
        before = w["median"][window]
        moved = ~((median == before) | (np.isnan(median) & np.isnan(before)))
        anew = np.flatnonzero(moved[place] | ~self._values.columns["said"][slot])
        slot, place = slot[anew], place[anew]
        rank = w["told"][window]
        w["told"][window] += 1
        w["median"][window] = median
        self._values.columns["said"][slot] = True
        # Windows are in the order of their shards: those of one lie together.
        shard = boards["shard"][w["series"][window]]
        cuts = np.flatnonzero(np.diff(shard[place])) + 1
        return [
            (int(shard[p[0]]), self._say(s, median[p], rank[p]))
            for s, p in zip(np.split(slot, cuts), np.split(place, cuts), strict=True)
            if len(s)
        ]

    def wants_time(self) -> bool:
        """Whether a group waits to be quiet."""
        return self._next_ms != NEVER

    def _in_order(self, window: Int64) -> Int64:
        """Sort windows by shard, rule, names and start: an order that stored state has, too."""
        board = self._windows.columns["series"][window]
        used, inverse = np.unique(board, return_inverse=True)
        b = self._members.boards
        columns = (b["shard"][used], b["rule"][used], used)
        numbers = zip(*(column.tolist() for column in columns), strict=True)
        keys = [(shard, rule, self._members.names[i]) for shard, rule, i in numbers]
        place = np.empty(len(used), np.int64)
        place[sorted(range(len(used)), key=keys.__getitem__)] = np.arange(len(used))
        return window[np.lexsort((self._windows.columns["start_ms"][window], place[inverse]))]

    def _medians(self, window: Int64, n: Int64, slot: Int64, place: Int64) -> Float64:
        """Return the median of each window's values, ``NOTHING`` where too few say something."""
        value = self._values.columns["value"][slot]
        known = np.bincount(place, ~np.isnan(value), len(window)).astype(np.int64)
        value = np.append(value[np.lexsort((value, place))], NOTHING)
        first = np.cumsum(n) - n
        low, high = first + np.maximum(known - 1, 0) // 2, first + known // 2
        median: Float64 = (value[low] + value[high]) / 2
        rule = self._members.boards["rule"][self._windows.columns["series"][window]]
        median[known < self._least[rule]] = NOTHING
        return median

    def _say(self, slot: Int64, median: Float64, rank: Int64) -> WindowResults:
        """Return comparisons of values with the medians of their groups."""
        m, v = self._members, self._values.select(slot)
        board = m.members["board"][v["series"]]
        rule = m.boards["rule"][board]
        value = measured(self._ratio[rule], v["value"], median)
        return WindowResults(
            tenant=m.texts.labels(m.boards["tenant"][board]),
            site=m.texts.labels(v["site"]),
            device=m.texts.labels(m.members["device"][v["series"]]),
            metric=m.texts.labels(m.boards["metric"][board]),
            start_ms=v["start_ms"],
            end_ms=v["end_ms"],
            rank=rank.astype(np.int32),
            last_received_ms=v["received_ms"],
            kafka_ms=v["kafka_ms"],
            **said_of(Labels(rule, self._looks_at), value),
        )

    # -- what is held ---------------------------------------------------------------------

    def _alive(self) -> Bool:
        """Return which windows corrections still reach."""
        w, boards = self._windows.columns, self._members.boards
        keep_ms = self._keep_ms[boards["rule"][w["series"]]]
        alive: Bool = w["end_ms"] >= boards["end_ms"][w["series"]] - keep_ms
        return alive

    def _sweep(self, *, without: int | None = None) -> None:
        """Drop windows that no correction reaches, and all of a shard that has left."""
        w, boards = self._windows.columns, self._members.boards
        gone = ~self._alive()
        if without is not None:
            gone |= boards["shard"][w["series"]] == without
        of = self._values.columns["window"]
        self._values.drop(gone[of])
        new = self._windows.drop(gone)
        of = self._values.columns["window"]
        of[:] = new[of]
        self._slots = []
        self._list(of, np.arange(len(of)))
        self._sweep_at = max(_LEAST_SWEPT, 2 * len(self._values))
        used = len(np.unique(self._values.columns["series"]))
        if self._members.members.n >= max(self._members_at, 4 * used):
            # Devices that are gone leave their names, too.
            shards = np.unique(self._members.boards["shard"]).tolist()
            held = {shard: self.snapshot(shard) for shard in shards}
            self._start()
            for shard, state in held.items():
                self.restore(shard, state)
        self._members_at = max(_LEAST_MEMBERS, 4 * used)

    def leave(self, shard: int) -> None:
        """Forget a shard."""
        boards = self._members.boards
        boards["end_ms"][boards["shard"] == shard] = -1
        self._sweep(without=shard)

    def snapshot(self, shard: int) -> list[Any]:
        """Return what a shard holds."""
        m, w, c = self._members, self._windows.columns, self._values.columns
        boards = np.flatnonzero((m.boards["shard"] == shard) & (m.boards["end_ms"] >= 0))
        values: dict[int, list[Any]] = {board: [] for board in boards.tolist()}
        turns: dict[int, list[Any]] = {board: [] for board in boards.tolist()}
        kept = self._alive() & (m.boards["shard"][w["series"]] == shard)
        window = np.flatnonzero(kept)
        named = ("series", "start_ms", "changed_ms", "told", "due", "median")
        for board, *turn in zip(*(w[name][window].tolist() for name in named), strict=True):
            turns[board].append(turn)
        slot = np.flatnonzero(kept[c["window"]]) if len(w["due"]) else np.empty(0, np.int64)
        texts = m.texts.values
        named = ("start_ms", "rank", "value", "end_ms", "received_ms", "kafka_ms")
        numbers = zip(*(c[name][slot].tolist() for name in named), strict=True)
        on = m.members["board"][c["series"][slot]].tolist()
        device = m.members["device"][c["series"][slot]].tolist()
        rest = zip(c["site"][slot].tolist(), c["said"][slot].tolist(), strict=True)
        rows = zip(on, device, numbers, rest, strict=True)
        for board, of, (start_ms, *value), (site, said) in rows:
            values[board].append([start_ms, texts[of], *value, texts[site], said])
        return [
            [
                self._rules[int(m.boards["rule"][board])].name,
                *m.names[board],
                [int(m.boards["end_ms"][board]), values[board]],
                turns[board],
            ]
            for board in boards.tolist()
        ]

    def restore(self, shard: int, state: Iterable[Sequence[Any]]) -> None:
        """Load a shard; what belongs to rules that are gone is forgotten."""
        m, values, turns = self._members, [], []
        for name, tenant, group, metric, (end_ms, rows), told in state:
            if name not in self._number:
                continue
            board = m.board(self._number[name], tenant, group, metric)
            m.boards["end_ms"][board] = end_ms
            ends: dict[int, int] = {}
            # A former version noted neither the median nor what was said.
            for start_ms, device, *value, site, said in (
                row if len(row) == 9 else [*row, False] for row in rows
            ):
                ends.setdefault(start_ms, value[2])
                member = m.member(board, device)
                values.append((member, start_ms, 0, *value, m.texts.number(site), said))
            turns += [
                (board, start_ms, ends[start_ms], *turn, *[NOTHING][len(turn) - 3 :])
                for start_ms, *turn in told
            ]
        if not values:
            return
        held, windows = _columns(values, _VALUE), _columns(turns, _WINDOW)
        self._windows.extend(windows)
        board = m.members["board"][held["series"]]
        held["window"] = self._windows.find(board, held["start_ms"])
        self._list(held["window"], self._values.extend(held))
        if windows["due"].any():
            self._next_ms = 0


def _columns(
    rows: Sequence[tuple[Any, ...]], spec: Mapping[str, tuple[Any, Any]]
) -> dict[str, np.ndarray[Any, Any]]:
    types = {"series": np.int32, "start_ms": np.int64, **{n: kind for n, (kind, _) in spec.items()}}
    columns = zip(types.items(), zip(*rows, strict=True), strict=True)
    return {name: np.asarray(column, kind) for (name, kind), column in columns}
