"""Every kind of window against a few plain lines, in any batching and over crashes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.engine import DeviceRules, StreamEngine
from streams.core.snapshots import restore, snapshot
from streams.core.windows import Calendar, Hopping, Session, Tumbling
from tests.oracle import Record, Row
from tests.property.test_engine import as_rows

DISORDER, IDLE, IDLE_FINAL = 10, 500, 900
RULES = DeviceRules(DISORDER, 10**9, IDLE, IDLE_FINAL, 1000, 100_000, 1000, 1000)
GRACE, HORIZON = 15, 120
COMMON = {"grace_ms": GRACE, "horizon_ms": HORIZON}
EXTRA = (
    *("first", "last", "delta", "rate", "trend", "trend_last", "p50", "p90"),
    *("time_weighted_mean", "distinct"),
)
HOPPING = Hopping(name="hop", size_ms=100, step_ms=40, offset_ms=7, aggregates=EXTRA, **COMMON)
SESSION = Session(name="session", gap_ms=45, aggregates=EXTRA, **COMMON)
BOUNDS = np.asarray([0, 50, 180, 200, 420, 421, 700, 10_000], np.int64)
CALENDAR = Calendar(
    name="calendar", calendar="odd", boundaries_ms=BOUNDS, aggregates=EXTRA, **COMMON
)
TUMBLING = Tumbling(name="tumbling", size_ms=90, aggregates=EXTRA, **COMMON)
# Panes that keep too little for the time-weighted mean, and for the distinct values.
FULL = [replace(d, name=f"{d.name}-full", max_points=2) for d in (TUMBLING, HOPPING, SESSION)]
KINDS = [TUMBLING, CALENDAR, HOPPING, SESSION, *FULL]

rows = st.builds(
    Row,
    device=st.sampled_from(["a", "b"]),
    metric=st.sampled_from(["x", "y"]),
    t_ms=st.integers(100, 700),
    value=st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, 0.1, 1e9 + 0.01])),
    received_ms=st.just(1000),
    timed=st.just(False),
)


@st.composite
def logs(draw):
    clock, records = 0, []
    for group in draw(st.lists(st.lists(rows, min_size=1, max_size=4), min_size=1, max_size=14)):
        clock += draw(st.sampled_from([0, 1, 40, 499, 501, 1000]))
        records.append(Record(clock, tuple(group)))
    return records


@dataclass
class Window:
    """One window: its readings in order of arrival, and how often it was corrected."""

    start: int
    end: int
    readings: list[tuple[int, float]] = field(default_factory=list)
    late: int = 0
    idle: bool = False
    told: bool = False
    shown: bool = False


class Plain:
    """Rules 7 to 13 for one definition, a reading at a time. Results: key -> {rank: readings}."""

    def __init__(self, definition):
        self.d = definition
        self.windows: dict[tuple, list[Window]] = {}
        self.max_t: dict[str, int] = {}
        self.log: dict[str, tuple[int, bool]] = {}
        self.results: dict[tuple, dict[int, list]] = {}

    def run(self, records):
        for record in records:
            self.pass_time(record.log_ms)
            for row in record.rows:
                self.take(row)
            for name in {row.device for row in record.rows}:
                self.log[name] = (record.log_ms, False)
        return self

    def pass_time(self, log_ms):
        for name, (seen, done) in list(self.log.items()):
            if seen + IDLE < log_ms and not done:
                for _, window in self.all_of(name):
                    window.shown = window.shown or not window.told
            if seen + IDLE_FINAL < log_ms and not done:
                self.log[name] = (seen, True)
                for key, window in self.all_of(name):
                    if not window.told:
                        window.told = window.idle = True
                        self.tell(key, window)

    def all_of(self, device):
        return [(k, w) for k, ws in self.windows.items() if k[0] == device for w in ws]

    def closes(self, window):
        return window.end + self.d.grace_ms

    def take(self, row):
        key = (row.device, row.metric)
        before = self.max_t.get(row.device, -1) - DISORDER if row.device in self.max_t else -1
        self.max_t[row.device] = max(row.t_ms, self.max_t.get(row.device, -1))
        mine = self.windows.setdefault(key, [])
        for window in self.places(mine, row.t_ms, before, key):
            late = before >= self.closes(window) or window.idle
            window.readings.append((row.t_ms, row.value + 0.0))  # 0.0 for -0.0
            window.late += late
            if isinstance(self.d, Session):
                window.start = min(window.start, row.t_ms)
                window.end = max(window.end, row.t_ms + self.d.gap_ms)
            if late and window.told:
                self.tell(key, window)
        for other, window in self.all_of(row.device):
            if not window.told and self.max_t[row.device] - DISORDER >= self.closes(window):
                window.told = True
                self.tell(other, window)

    def places(self, mine, t, before, key):
        if isinstance(self.d, Session):
            return self.session(mine, t, before, key)
        if isinstance(self.d, Hopping):
            spans = [(s, s + 100) for s in range(7 - 400, t + 1, 40) if s <= t < s + 100]
        elif isinstance(self.d, Calendar):
            spans = [(int(a), int(b)) for a, b in pairwise(BOUNDS) if a <= t < b]
        else:
            spans = [(t // 90 * 90, t // 90 * 90 + 90)]
        # The slices of the hopping windows are 20 wide: all windows over one agree.
        if isinstance(self.d, Hopping):
            begin = t - (t - 7) % 20
            last = max(s for s in range(7 - 400, begin + 1, 40))
            if before >= last + 100 + GRACE + HORIZON:
                return []
        elif before >= spans[0][1] + GRACE + HORIZON:
            return []
        for a, b in spans:
            if all(w.start != a for w in mine):
                mine.append(Window(a, b))
        return [w for w in mine if (w.start, w.end) in spans]

    def session(self, mine, t, before, key):
        gap = self.d.gap_ms
        if before >= t + gap + GRACE + HORIZON:
            return []
        met = sorted((w for w in mine if w.start - gap < t < w.end), key=lambda w: w.start)
        if not met:
            mine.append(Window(t, t + gap))
            return mine[-1:]
        first, was_closed = met[0], [before >= self.closes(w) or w.idle for w in met]
        for window, closed in zip(met, was_closed, strict=True):
            if (closed or window.shown) and window.start != min(t, first.start):
                gone = self.results.setdefault((*key, window.start), {})
                gone[window.late + closed] = None
        for other in met[1:]:
            first.readings += other.readings
            first.late += other.late
            first.end = max(first.end, other.end)
            mine.remove(other)
        if any(was_closed):
            first.told = first.idle = True
        return [first]

    def tell(self, key, window):
        self.results.setdefault((*key, window.start), {})[window.late] = list(window.readings)


def told(engine_results, into):
    """Collect results; one (series, window, revision) has one content."""
    for r in engine_results:
        for i in range(len(r)):
            rank = int(r.rank[i])
            if rank < 0:
                continue
            key = (r.device[i], r.metric[i], int(r.start_ms[i]))
            names = ("count", "sum", "min", "max", "mean", "sd")
            got = {n: float(getattr(r, n)[i]) for n in names}
            got |= {n: float(values[i]) for n, values in r.extra.items()}
            bits = {n: v.hex() for n, v in got.items()}
            before = into.setdefault(key, {}).setdefault(rank, (got, bits))
            assert before[1] == bits, "one revision, two contents"


def engine_for(definition):
    return StreamEngine([definition], RULES, 2)


def run(definition, records, cuts):
    engine, results = engine_for(definition), {}
    edges = [0, *sorted(c % (len(records) + 1) for c in cuts), len(records)]
    for a, b in pairwise(edges):
        if a < b:
            for folded in engine.fold(as_rows(records[a:b], a)):
                told(folded.results, results)
    return results


def check(got, readings):
    values = [v for _, v in readings]
    assert got["count"] == len(values)
    assert (got["min"], got["max"]) == (min(values), max(values))
    scale = sum(map(abs, values))
    assert got["sum"] == pytest.approx(math.fsum(values), abs=1e-9 * scale + 1e-12)
    if len(values) > 1:
        mean = math.fsum(values) / len(values)
        sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
        # Squares of less than 1e-154 are no normal numbers any more.
        assert got["sd"] == pytest.approx(sd, rel=1e-6, abs=1e-6 * scale + 1e-150)
    first = min(readings, key=lambda r: r[0])
    last = max(enumerate(readings), key=lambda r: (r[1][0], r[0]))[1]
    assert got["first"] == first[1]
    if sum(t == last[0] for t, _ in readings) == 1:
        assert got["last"] == last[1]
        assert got["delta"] == last[1] - first[1]
    check_trend(got, readings)
    nearest = sorted(values)[int(0.5 * (len(values) - 1))]
    assert got["p50"] == pytest.approx(nearest, rel=0.0101, abs=1e-150)


def check_trend(got, readings):
    """Exact fractions, as far as the spread of the values lets a float follow."""
    times = [Fraction(t) for t, _ in readings]
    values = [Fraction(value) for _, value in readings]
    n = len(readings)
    t_mean, x_mean = sum(times) / n, sum(values) / n
    spread = sum((t - t_mean) ** 2 for t in times)
    if not spread:
        assert math.isnan(got["trend"])
        assert math.isnan(got["trend_last"])
        return
    pairs = zip(times, values, strict=True)
    slope = sum((t - t_mean) * (x - x_mean) for t, x in pairs) / spread
    scale = max(abs(v) for v in values) * Fraction(1, 10**9) + Fraction(1, 10**300)
    assert abs(Fraction(got["trend"]) / 1000 - slope) <= scale
    last = x_mean + slope * (max(times) - t_mean)
    assert abs(Fraction(got["trend_last"]) - last) <= 1000 * scale


def check_kept(got, readings, definition):
    """To the bit: what needs every reading, or every value."""
    slice_ms = definition.slice_ms if isinstance(definition, Hopping) else 10**9
    panes = {}
    for t, value in readings:
        panes.setdefault((t - 7) // slice_ms, []).append(value)
    mean, distinct = time_weighted_mean(readings), len({v for _, v in readings})
    if max(map(len, panes.values())) > definition.max_points:
        mean = math.nan
    if max(len(set(values)) for values in panes.values()) > definition.max_points:
        distinct = math.nan
    assert [got["time_weighted_mean"], got["distinct"]] == pytest.approx(
        [mean, distinct], rel=0, abs=0, nan_ok=True
    )


def time_weighted_mean(readings):
    """Each value holds until the next reading; sorting keeps the order of arrival."""
    steps = sorted(readings, key=lambda r: r[0])
    area = span = 0.0
    for (t, value), (until, _) in pairwise(steps):
        area += value * (until - t)
        span += until - t
    return area / span if span else steps[-1][1]


@pytest.mark.parametrize("definition", KINDS, ids=lambda d: d.name)
@settings(max_examples=120)
@given(logs(), st.lists(st.integers(0, 20), max_size=5))
def test_the_greatest_revisions_are_what_the_rules_say(definition, records, cuts):
    expected = Plain(definition).run(records).results
    results = run(definition, records, cuts)
    assert results.keys() == expected.keys()
    for key, revisions in results.items():
        assert max(revisions) == max(expected[key]), key
        for rank, (got, _) in revisions.items():
            readings = expected[key][rank]
            if readings is None:
                assert got["count"] == 0
            else:
                check(got, readings)
                check_kept(got, readings, definition)


@pytest.mark.parametrize("definition", KINDS, ids=lambda d: d.name)
@settings(max_examples=80)
@given(logs(), st.lists(st.integers(0, 20), max_size=5))
def test_no_batching_changes_a_bit(definition, records, cuts):
    one_by_one = run(definition, records, range(len(records)))
    batched = run(definition, records, cuts)
    assert {k: max(v) for k, v in batched.items()} == {k: max(v) for k, v in one_by_one.items()}
    for key, revisions in batched.items():
        for rank, (_, bits) in revisions.items():
            assert one_by_one[key][rank][1] == bits


@pytest.mark.parametrize("definition", KINDS, ids=lambda d: d.name)
@settings(max_examples=80)
@given(logs(), st.integers(0, 20), st.integers(0, 20), st.lists(st.integers(0, 20), max_size=3))
def test_a_crash_changes_nothing(definition, records, checkpoint, crash, cuts):
    crash_at = crash % (len(records) + 1)
    first, results, stored = engine_for(definition), {}, {}
    for offset in range(crash_at):
        for folded in first.fold(as_rows(records[offset : offset + 1], offset)):
            told(folded.results, results)
        if offset == checkpoint % len(records):
            stored = {s: (offset, snapshot(first, s)) for s in range(offset % 2, 2)}
    again = engine_for(definition)
    for shard, (stamp, state) in stored.items():
        restore(again, shard, stamp, state)
    edges = [0, *sorted(c % (len(records) + 1) for c in cuts), len(records)]
    for a, b in pairwise(edges):
        if a < b:
            for folded in again.fold(as_rows(records[a:b], a)):
                told(folded.results, results)
    expected = run(definition, records, [])
    assert {k: max(v) for k, v in results.items()} == {k: max(v) for k, v in expected.items()}
