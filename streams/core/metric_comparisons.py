"""Metrics of a device compared with each other, window by window.

A batch is taken as a whole: its values are put first, and then everything that changed on either
side is compared, a few numpy passes each. Windows that no correction reaches any more are told by
their end; they go when half of what is held is of that kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from streams.core.compared_results import compared
from streams.core.compared_sides import NO_SIDE, Sides
from streams.core.compared_values import HELD, Come, news_among
from streams.core.comparisons import comparison_of, values_of
from streams.core.keyed import Keyed
from streams.core.readings import Bool, Int32, Int64
from streams.core.results import WindowResults
from streams.core.selectors import Names, TraitsOf
from streams.core.window_rules import WindowRule

_LEAST_SWEPT = 1_024
_VALUE: dict[str, tuple[Any, Any]] = {
    **HELD,
    "left": (np.bool_, False),
}


class _Changed(NamedTuple):
    """Values that are new, in the order in which they came."""

    slot: Int64
    side: Int32
    start_ms: Int64
    least_ms: Int64
    """The least end of a window that its board still held before the batch."""


class MetricComparisons:
    """Compares metrics of a device, as soon as both are known.

    :param rules: those that compare with a metric.
    :param keep_ms: window -> how long after its end a correction of it may come.
    :param limit: values that are held; once it is met, further devices are not compared.
    """

    def __init__(
        self,
        rules: Sequence[WindowRule],
        keep_ms: Mapping[str, int],
        traits_of: TraitsOf,
        *,
        shards: int,
        limit: int,
    ) -> None:
        self._rules = rules
        self._number = {rule.name: i for i, rule in enumerate(rules)}
        self._sides = Sides(rules, traits_of, shards=shards)
        self._columns = list(dict.fromkeys(comparison_of(rule).column for rule in rules))
        column = [self._columns.index(comparison_of(rule).column) for rule in rules]
        self._column_of = np.asarray(column, np.int64)
        self._keep_ms = np.asarray([keep_ms.get(rule.window, 0) for rule in rules], np.int64)
        self._limit = limit
        self._values = Keyed(_VALUE)
        self._sweep_at = _LEAST_SWEPT
        self.refused = 0
        """Values not held because the limit was met, since somebody set it to 0."""

    def watched(self, found: WindowResults) -> Int64:
        """Return the rows that some comparison may look at."""
        return self._sides.watches(found) if self._rules else np.empty(0, np.int64)

    def take(self, found: WindowResults, rows: Int64) -> list[WindowResults]:
        """Take some watched rows of results; return what can be compared now."""
        found = found.take(rows)
        row, pair = self._sides.pair(found)
        self._open(found, row, pair)
        held = self._sides.pairs["side"][pair] != NO_SIDE
        self.refused += int(np.count_nonzero(~held))
        if not held.any():
            return []
        changed = self._put(found, row[held], pair[held])
        left, right = self._matches(changed)
        rule = self._rule_of(left)
        made = []
        for number in np.unique(rule).tolist():
            mine = rule == number
            one = self._rules[number]
            made.append(compared(one, self._sides, self._values.columns, left[mine], right[mine]))
        if len(self._values) >= self._sweep_at:
            self._values.drop(~self._alive())
            self._sweep_at = max(_LEAST_SWEPT, 2 * len(self._values))
        return made

    def _open(self, found: WindowResults, row: Int64, pair: Int64) -> None:
        """Find the sides of pairs that were not met yet, and open boards while there is room."""
        pairs = self._sides.pairs
        new = np.flatnonzero(pairs["side"][pair] == NO_SIDE)
        if not len(new):
            return
        room = self._limit - len(self._values)
        if room < len(new):
            room = self._limit - int(np.count_nonzero(self._alive()))
        for i in new.tolist():
            at, one = int(row[i]), int(pair[i])
            rule, tenant, device = int(pairs["rule"][one]), found.tenant[at], found.device[at]
            board = self._sides.board_of(rule, tenant, device)
            if board is None:
                if room <= 0:
                    continue
                board = self._sides.open(rule, tenant, device)
                room -= 1
            pairs["side"][one] = self._sides.side(board, found.metric[at])

    def _put(self, found: WindowResults, row: Int64, pair: Int64) -> _Changed:
        """Keep, of each side and window, the first value of the greatest rank."""
        pairs, boards = self._sides.pairs, self._sides.boards
        side, rule = pairs["side"][pair], pairs["rule"][pair]
        board, keep_ms = self._sides.sides["board"][side], self._keep_ms[rule]
        start_ms, end_ms, rank = found.start_ms[row], found.end_ms[row], found.rank[row]
        least_ms = boards["end_ms"][board] - keep_ms
        come = Come(side, board, start_ms, end_ms, rank, keep_ms)
        news, slot = news_among(come, self._values, boards["end_ms"])
        np.maximum.at(boards["end_ms"], board[news], end_ms[news])

        row, pair, rule = row[news], pair[news], rule[news]
        rows: dict[str, np.ndarray[Any, Any]] = {
            "series": side[news],
            "start_ms": start_ms[news],
            "rank": rank[news],
            "value": values_of(found, self._columns)[self._column_of[rule], row],
            "end_ms": end_ms[news],
            "received_ms": found.last_received_ms[row],
            "kafka_ms": found.kafka_ms[row],
            "site": pairs["site"][pair],
            "left": pairs["chosen"][pair],
        }
        fresh, c = slot < 0, self._values.columns
        for name, column in rows.items():
            c[name][slot[~fresh]] = column[~fresh]
        slot[fresh] = self._values.extend({name: one[fresh] for name, one in rows.items()})
        return _Changed(slot, side[news], start_ms[news], least_ms[news])

    def _matches(self, changed: _Changed) -> tuple[Int64, Int64]:
        """Return the slots, left and right, of all that can be said anew; each left one once."""
        c, boards = self._values.columns, self._sides.boards
        board = self._sides.sides["board"][changed.side]
        right_side = boards["right"][board]
        by_left = np.flatnonzero(c["left"][changed.slot])
        its_right = self._values.find(right_side[by_left], changed.start_ms[by_left])
        by_right = np.flatnonzero(changed.side == right_side)
        place, side = self._sides.left_of(board[by_right])
        by_right = by_right[place]
        its_left = self._values.find(side.astype(np.int32), changed.start_ms[by_right])

        by = np.concatenate([by_left, by_right])
        left = np.concatenate([changed.slot[by_left], its_left])
        right = np.concatenate([its_right, changed.slot[by_right]])
        both = np.flatnonzero((left >= 0) & (right >= 0))
        by, left, right = by[both], left[both], right[both]
        least_ms = changed.least_ms[by]
        good = c["left"][left] & (c["end_ms"][left] >= least_ms) & (c["end_ms"][right] >= least_ms)
        by, left, right = by[good], left[good], right[good]
        # Said where the last of both came, in the order of the batch.
        order = np.lexsort((by, left))
        kept = order[np.append(left[order][1:] != left[order][:-1], True)] if len(order) else order
        kept = kept[np.lexsort((left[kept], by[kept]))]
        return left[kept], right[kept]

    def _rule_of(self, slot: Int64) -> Int64:
        board = self._sides.sides["board"][self._values.columns["series"][slot]]
        rule: Int64 = self._sides.boards["rule"][board].astype(np.int64)
        return rule

    def _alive(self) -> Bool:
        """Return which values corrections still reach."""
        c, boards = self._values.columns, self._sides.boards
        board = self._sides.sides["board"][c["series"]]
        keep_ms = self._keep_ms[boards["rule"][board]]
        alive: Bool = c["end_ms"] >= boards["end_ms"][board] - keep_ms
        return alive

    def snapshot(self, shard: int) -> list[Any]:
        """Return what a shard holds."""
        boards, sides, texts = self._sides.boards, self._sides.sides, self._sides.texts.values
        held: dict[int, list[Any]] = {
            board: [] for board in np.flatnonzero(boards["shard"] == shard).tolist()
        }
        c = self._values.columns
        board = sides["board"][c["series"]]
        slots = np.flatnonzero((boards["shard"][board] == shard) & self._alive())
        names = ("start_ms", "rank", "value", "end_ms", "received_ms", "kafka_ms")
        numbers = zip(*(c[name][slots].tolist() for name in names), strict=True)
        metric, site = sides["metric"][c["series"][slots]].tolist(), c["site"][slots].tolist()
        places = zip(board[slots].tolist(), metric, site, numbers, strict=True)
        for one, of, at, (start_ms, *value) in places:
            held[one].append([start_ms, texts[of], *value, texts[at]])
        return [
            [
                self._rules[int(boards["rule"][one])].name,
                texts[int(boards["tenant"][one])],
                texts[int(boards["device"][one])],
                [int(boards["end_ms"][one]), rows],
            ]
            for one, rows in held.items()
        ]

    def restore(self, shard: int, state: Iterable[Sequence[Any]]) -> None:
        """Load a shard; what belongs to rules that are gone is forgotten."""
        found = []
        for name, tenant, device, (end_ms, rows) in state:
            number = self._number.get(name)
            if number is None:
                continue
            board = self._sides.open(number, tenant, device)
            self._sides.boards["end_ms"][board] = end_ms
            for start_ms, metric, *value, site in rows:
                left = self._sides.is_left(number, Names(tenant, site, device, metric))
                side = self._sides.side(board, metric)
                found.append((side, start_ms, *value, self._sides.texts.number(site), left))
        if found:
            columns = zip(("series", "start_ms", *_VALUE), zip(*found, strict=True), strict=True)
            types = {"series": np.int32, "start_ms": np.int64}
            self._values.extend(
                {n: np.asarray(v, types.get(n) or _VALUE[n][0]) for n, v in columns}
            )
