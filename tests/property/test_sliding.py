"""Sliding windows against a few plain lines that forget nothing, to the bit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.engine import DeviceRules, StreamEngine
from streams.core.snapshots import restore, snapshot
from streams.core.windows import Sliding
from tests.oracle import Record, Row
from tests.property.test_engine import as_rows
from tests.property.test_windows import DISORDER, IDLE, IDLE_FINAL, logs, time_weighted_mean

RULES = DeviceRules(DISORDER, 10**9, IDLE, IDLE_FINAL, 1000, 100_000, 1000, 1000)
EXTRA = ("first", "last", "delta", "rate", "time_weighted_mean", "distinct", "p50")
NAMES = ("count", "sum", "min", "max", "mean", "sd", *EXTRA[:-1])


def sliding(name, max_points=1_000, grace_ms=15, horizon_ms=120, **given):
    return Sliding(
        name=name,
        max_points=max_points,
        grace_ms=grace_ms,
        horizon_ms=horizon_ms,
        aggregates=EXTRA,
        **given,
    )


KINDS = [
    sliding("60ms", size_ms=60),
    sliding("1ms", size_ms=1, horizon_ms=400),
    sliding("three", last=3),
    sliding("one", last=1),
    sliding("no-grace", size_ms=150, grace_ms=0, horizon_ms=0),
    sliding("60ms-full", size_ms=60, horizon_ms=900, max_points=4),
    sliding("200ms-full", size_ms=200, grace_ms=100, max_points=3),
    sliding("two-full", last=2, horizon_ms=900, max_points=4),
    sliding("one-full", last=1, horizon_ms=900, max_points=2),
    sliding("three-full", last=3, grace_ms=200, horizon_ms=400, max_points=4),
]
EACH_KIND = pytest.mark.parametrize("definition", KINDS, ids=lambda d: d.name)
CUTS = st.lists(st.integers(0, 20), max_size=5)


@dataclass
class Ending:
    """A window, by the time at which it ends."""

    late: int = 0
    told: bool = False
    idle: bool = False
    shown: list = field(default_factory=list)


class Plain:
    """All points ever taken, in order of arrival; what is given up is only marked."""

    def __init__(self, definition):
        self.d = definition
        self.points: dict[tuple, list[tuple[int, float]]] = {}
        self.lost: dict[tuple, int] = {}
        self.edge: dict[tuple, int] = {}
        self.windows: dict[tuple, dict[int, Ending]] = {}
        self.max_t: dict[str, int] = {}
        self.log: dict[str, tuple[int, str]] = {}
        self.results: dict[tuple, dict[int, tuple]] = {}
        self.provisional: set[tuple] = set()
        self.refused = self.dropped = 0

    def run(self, records):
        for record in records:
            self.pass_time(record.log_ms)
            for row in record.rows:
                self.take(row)
            for name in {row.device for row in record.rows}:
                self.log[name] = (record.log_ms, "live")
        return self

    def pass_time(self, log_ms):
        for name, (seen, state) in list(self.log.items()):
            waiting = [(k, t, w) for k, t, w in self.all_of(name) if not w.told]
            if seen + IDLE < log_ms and state == "live":
                self.log[name] = (seen, "quiet")
                for key, t, window in waiting:
                    if window.shown != self.content(key, t):
                        window.shown = self.content(key, t)
                        self.provisional.add((*key, self.start(t), numbers(window.shown)))
            if seen + IDLE_FINAL < log_ms and state != "gone":
                self.log[name] = (seen, "gone")
                for key, t, window in waiting:
                    window.told = window.idle = True
                    self.tell(key, t, window)

    def all_of(self, device):
        found = [(k, t, w) for k, ws in self.windows.items() for t, w in ws.items()]
        return [one for one in found if one[0][0] == device]

    def start(self, t):
        return t if self.d.last else t - self.d.size_ms + 1

    def closes(self, t):
        return t + 1 + self.d.grace_ms

    def content(self, key, t):
        """Order of time; of equal times, of arrival."""
        until = sorted((p for p in self.points[key] if p[0] <= t), key=lambda p: p[0])
        if self.d.last:
            return until[-self.d.last :]
        return [p for p in until if p[0] > t - self.d.size_ms]

    def take(self, row):
        key = (row.device, row.metric)
        known = row.device in self.max_t
        before = self.max_t[row.device] - DISORDER if known else -1
        self.max_t[row.device] = max(row.t_ms, self.max_t.get(row.device, -1))
        if before < self.closes(row.t_ms) + self.d.horizon_ms:
            if self.has_room(key, row.t_ms, before):
                self.fold(key, row, before)
            else:
                self.refused += 1
        for other, t, window in self.all_of(row.device):
            if not window.told and self.max_t[row.device] - DISORDER >= self.closes(t):
                window.told = True
                self.tell(other, t, window)

    def fold(self, key, row, before):
        mine = self.windows.setdefault(key, {})
        mine.setdefault(row.t_ms, Ending())
        point = (row.t_ms, row.value + 0.0)  # 0.0 for -0.0
        self.points[key].append(point)
        for t, window in mine.items():
            # The same object, not only an equal one.
            if not any(p is point for p in self.content(key, t)):
                continue
            if before >= self.closes(t) or window.idle:
                window.late += 1
                if window.told:
                    self.tell(key, t, window)

    def needed(self, times, open_ms):
        """Which of ascending times windows that end at *open_ms* or later may need."""
        if self.d.size_ms:
            return [t for t in times if t > open_ms - self.d.size_ms]
        past = [t for t in times if t < open_ms]
        return past[len(past) - min(len(past), self.d.last - 1) :] + times[len(past) :]

    def has_room(self, key, t, before):
        every = sorted(p[0] for p in self.points.setdefault(key, []))
        if t < self.edge.get(key, -1):
            return False
        open_ms = before - self.d.grace_ms
        kept = every[self.lost.get(key, 0) :]
        live = self.needed(kept, open_ms - self.d.horizon_ms)
        if len(live) < self.d.max_points:
            return True
        gone = live.count(live[0]) if self.d.size_ms else 1
        rest = live[gone:]
        if len(self.needed(live, open_ms)) > len(rest):
            return False
        edge = live[0] + self.d.size_ms if self.d.size_ms else rest[max(0, self.d.last - 2)]
        if t < edge:
            return False
        self.edge[key] = edge
        self.lost[key] = len(every) - len(rest)
        self.dropped += gone
        return True

    def tell(self, key, t, window):
        told = self.results.setdefault((*key, self.start(t)), {})
        told[window.late] = numbers(self.content(key, t))


def numbers(points):
    """The aggregates of some points in this order, as bits."""
    values = [v for _, v in points]
    n, shift = len(values), values[0]
    total = s1 = s2 = 0.0
    for value in values:
        total += value
        s1 += value - shift
        s2 += (value - shift) * (value - shift)
    sd = math.sqrt(max((s2 - s1 * s1 / n) / (n - 1.0), 0.0)) if n > 1 else math.nan
    span = (points[-1][0] - points[0][0]) / 1000.0
    first = next(v for t, v in points if t == points[0][0])
    delta = values[-1] - first
    rate = delta / span if span else math.nan
    basic = (n, total, min(values), max(values), total / n, sd)
    kept = (time_weighted_mean(points), len(set(values)))
    return bits((*basic, first, values[-1], delta, rate, *kept))


def bits(found):
    return tuple("nan" if math.isnan(x) else float(x).hex() for x in found)


class Told:
    """What an engine says; one (series, window, revision) has one content."""

    def __init__(self):
        self.results: dict[tuple, dict[int, tuple]] = {}
        self.provisional: set[tuple] = set()

    def fold(self, engine, records, first_offset=0):
        for folded in engine.fold(as_rows(records, first_offset)):
            for r in folded.results:
                for i in range(len(r)):
                    self.add(r, i)
        return self

    def add(self, r, i):
        columns = {**{n: getattr(r, n) for n in NAMES[:6]}, **r.extra}
        got = bits(float(columns[name][i]) for name in NAMES)
        key = (r.device[i], r.metric[i], int(r.start_ms[i]))
        if r.rank[i] < 0:
            self.provisional.add((*key, got))
        else:
            before = self.results.setdefault(key, {}).setdefault(int(r.rank[i]), got)
            assert before == got, "one revision, two contents"

    @property
    def greatest(self):
        return {key: max(ranks) for key, ranks in self.results.items()}


def engine_for(definition):
    return StreamEngine([definition], RULES, 2)


def run(definition, records, cuts, engine=None):
    engine, told = engine or engine_for(definition), Told()
    edges = [0, *sorted(c % (len(records) + 1) for c in cuts), len(records)]
    for a, b in pairwise(edges):
        if a < b:
            told.fold(engine, records[a:b], a)
    return told


@EACH_KIND
@settings(max_examples=150)
@given(logs(), CUTS)
def test_any_batching_gives_what_the_rules_say_row_by_row(definition, records, cuts):
    expected, engine = Plain(definition).run(records), engine_for(definition)
    told = run(definition, records, cuts, engine)
    assert told.greatest == {key: max(ranks) for key, ranks in expected.results.items()}
    for key, ranks in told.results.items():
        for rank, got in ranks.items():
            assert got == expected.results[key][rank], (key, rank)
    assert told.provisional == expected.provisional
    assert engine.refused.tolist() == [expected.refused]
    assert engine.operators[0].given_up() == expected.dropped


@EACH_KIND
@settings(max_examples=100)
@given(logs(), st.integers(0, 20), st.integers(0, 20), CUTS)
def test_a_crash_at_any_point_changes_nothing(definition, records, checkpoint, crash, cuts):
    first, told, stored = engine_for(definition), Told(), {}
    for offset in range(crash % (len(records) + 1)):
        told.fold(first, records[offset : offset + 1], offset)
        if offset == checkpoint % len(records):
            stored = {s: (offset, snapshot(first, s)) for s in range(offset % 2, 2)}
    again = engine_for(definition)
    for shard, (stamp, state) in stored.items():
        restore(again, shard, stamp, state)
    edges = [0, *sorted(c % (len(records) + 1) for c in cuts), len(records)]
    for a, b in pairwise(edges):
        if a < b:
            told.fold(again, records[a:b], a)
    expected = run(definition, records, [])
    assert told.greatest == expected.greatest
    assert told.provisional == expected.provisional
    for key, rank in told.greatest.items():
        assert told.results[key][rank] == expected.results[key][rank]


@EACH_KIND
@settings(max_examples=60)
@given(logs())
def test_how_devices_are_interleaved_changes_nothing(definition, records):
    apart = [
        Record(r.log_ms, tuple(sorted(r.rows, key=lambda row: row.device, reverse=True)))
        for r in records
    ]
    one, other = run(definition, records, []), run(definition, apart, [])
    assert (one.results, one.provisional) == (other.results, other.provisional)


@EACH_KIND
@settings(max_examples=40)
@given(logs(), CUTS)
def test_what_is_forgotten_is_needed_no_more(definition, records, cuts):
    class Eager:
        """Sweeps after every batch."""

        def fold(self, rows):
            engine.operators[0]._sweep_at = engine.operators[0]._sweep_points_at = 0
            return engine.fold(rows)

    engine = engine_for(definition)
    swept = run(definition, records, cuts, Eager())
    assert swept.results == run(definition, records, cuts).results


def row(device, metric, t_ms, value=1.0):
    return Row(device, metric, t_ms, value, received_ms=1_000_000, timed=False)


def test_a_window_that_closes_in_a_batch_keeps_its_points_until_it_is_told():
    """Another metric moves the device's time far on before this one's row comes."""
    definition = sliding("60ms", size_ms=60, horizon_ms=0)
    before = [row("a", "x", 100 + i) for i in range(30)]
    records = [Record(0, tuple(before)), Record(0, (row("a", "y", 9_000), row("a", "x", 9_000)))]
    counts = {t: float(min(i + 1, 60)).hex() for i, t in enumerate(range(100, 130))}
    told = run(definition, records, [1]).results
    assert {t: told["a", "x", t - 59][0][0] for t in counts} == counts


def test_a_series_gives_up_its_oldest_points_and_the_corrections_that_need_them():
    definition = sliding("10ms", size_ms=10, grace_ms=0, horizon_ms=10_000, max_points=50)
    engine = engine_for(definition)
    steady = Record(0, tuple(row("a", "x", t) for t in range(100, 300)))
    told = run(definition, [steady], [], engine)
    assert engine.operators[0].given_up() == 150
    assert set(told.greatest.values()) == {0}
    # 250 to 299 are kept. For one more, 250 would go: windows that end before 260 need it.
    late = [Record(0, (row("a", "x", 259), row("a", "x", 260)))]
    corrected = Told().fold(engine, late, 1).greatest
    assert corrected == {("a", "x", t - 9): 1 for t in range(260, 270)}
    assert engine.refused.tolist() == [1]
    assert engine.late_for[0].tolist() == [1]
