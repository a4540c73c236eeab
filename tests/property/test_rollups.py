"""Roll-ups against a few plain lines: the same bits in any batching, after any crash."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.adapters import results
from streams.agents.rollups import make_groups, make_partials
from streams.core.readings import Labels
from streams.core.results import WindowResults
from streams.settings import Devices, Rollup, Settings, Window
from streams.testing import Driver

QUIET_MS = 100
PATIENCE = 5
SIZE_MS = 1_000


def make_settings(*, horizon_ms=10_000_000, **rollup):
    return Settings(
        windows=[Window(name="w", size_ms=SIZE_MS, horizon_ms=horizon_ms)],
        devices=Devices(idle_ms=1, idle_final_ms=1),
        rollups=[
            Rollup(name="site", group="site", quiet_ms=QUIET_MS, **rollup),
            Rollup(name="all", group="tenant", quiet_ms=QUIET_MS, metrics=["x"], **rollup),
        ],
    )


@dataclass(frozen=True)
class Told:
    """A device's result."""

    device: str
    site: str
    window: int
    rank: int
    count: int
    mean: float
    sd: float

    @property
    def values(self):
        m2 = self.sd * self.sd * (self.count - 1) if self.count > 1 else 0.0
        return self.count, self.count * self.mean, self.mean, m2


def frame(told):
    n = len(told)

    def ints(pick):
        return np.asarray([pick(t) for t in told], np.int64)

    def floats(pick):
        return np.asarray([pick(t) for t in told], np.float64)

    return results.encode(
        WindowResults(
            tenant=Labels.constant("t", n),
            site=Labels.of(t.site for t in told),
            device=Labels.of(t.device for t in told),
            metric=Labels.constant("x", n),
            window=Labels.constant("w", n),
            source=Labels.constant("cloud", n),
            reason=Labels.constant("closed", n),
            start_ms=ints(lambda t: t.window * SIZE_MS),
            end_ms=ints(lambda t: (t.window + 1) * SIZE_MS),
            rank=ints(lambda t: t.rank).astype(np.int32),
            count=ints(lambda t: t.count),
            sum=floats(lambda t: t.count * t.mean),
            min=floats(lambda t: t.mean - 1),
            max=floats(lambda t: t.mean + 1),
            mean=floats(lambda t: t.mean),
            sd=floats(lambda t: t.sd if t.count > 1 else math.nan),
            last_received_ms=ints(lambda t: t.window),
            kafka_ms=ints(lambda t: t.window),
        ),
        code="test",
        settings="test",
    )


def fold(values):
    """Count, sum and sample deviation of parts, one after the other."""
    n, total, first = 0, 0.0, None
    for count, part, mean, _ in values:
        n, total = n + count, total + part
        first = mean if first is None else first
    if not n:
        return 0, 0.0, math.nan
    around = m2 = 0.0
    for count, _, mean, _ in values:
        around += count * (mean - first)
    middle = first + around / n
    for count, _, mean, inside in values:
        m2 += inside + count * ((mean - middle) * (mean - middle))
    return n, total, math.sqrt(m2 / (n - 1.0)) if n > 1 else math.nan


class Oracle:
    """The groups of one partition; ``told`` holds each (group, window, revision, n, sum, sd...)."""

    def __init__(self, group_of):
        self.group_of = group_of
        self.best, self.retired, self.since, self.changed = {}, {}, {}, {}
        self.first, self.home = {}, {}
        self.told = set()

    def run(self, records):
        for log_ms, rows in records:
            self.advance(log_ms)
            for row in rows:
                self.take(row, log_ms)
        return self

    def advance(self, log_ms):
        for cell, since in list(self.since.items()):
            if min(self.changed[cell] + QUIET_MS, since + PATIENCE * QUIET_MS) < log_ms:
                del self.since[cell]
                self.tell(*cell)

    def take(self, row, log_ms):
        group = self.group_of(row)
        home, newest = self.home.get(row.device, (None, -1))
        if home != group and row.window >= newest:
            self.first[row.device] = row.window
        elif home == group:
            self.first[row.device] = min(row.window, self.first[row.device])
        if home == group or row.window >= newest:
            self.home[row.device] = (group, max(row.window, newest))
        held = self.best.get((row.device, row.window))
        if held and (row.rank, row.count) <= (held.rank, held.count):
            return
        cells = {(group, row.window)}
        if held and self.group_of(held) != group:
            old = (self.group_of(held), row.window)
            self.retired[old] = self.retired.get(old, 0) + held.rank + 2
            cells.add(old)
        self.best[row.device, row.window] = row
        for cell in cells:
            self.since.setdefault(cell, log_ms)
            self.changed[cell] = log_ms

    def tell(self, group, window):
        rows = [
            r
            for (_, w), r in sorted(self.best.items())
            if w == window and self.group_of(r) == group
        ]
        live = [r for r in rows if r.count]
        revision = sum(r.rank + 1 for r in rows) + self.retired.get((group, window), 0)
        final = sum(r.rank >= 0 for r in live)
        known = {d for d, (g, _) in self.home.items() if g == group and self.first[d] <= window}
        missing = len(known - {r.device for r in rows}) + len(rows) - len(live)
        n, total, sd = fold([r.values for r in live])
        content = (n, hexed(total), hexed(sd), final, len(live) - final, missing)
        self.told.add((group, window, revision, *content))


def hexed(value):
    return "nan" if math.isnan(value) else float(value).hex()


def said(driver, topic, rollup):
    """Everything that was told, and the last of each group's window."""
    told, last = set(), {}
    for value in driver.values(topic):
        r = results.decode_rollups(value)
        for i in range(len(r)):
            if r.rollup[i] != rollup:
                continue
            window, rank = int(r.start_ms[i]) // SIZE_MS, int(r.rank[i])
            counts = (int(r.final[i]), int(r.provisional[i]), int(r.missing[i]))
            content = (int(r.count[i]), hexed(r.sum[i]), hexed(r.sd[i]), *counts)
            told.add((r.group[i], window, rank, *content))
            best = last.get((r.group[i], window), (-1, -1))
            last[r.group[i], window] = max(best, (rank, *content))
    return told, last


told = st.builds(
    Told,
    device=st.sampled_from("abcd"),
    site=st.sampled_from(["north", "south"]),
    window=st.integers(0, 3),
    rank=st.integers(-1, 4),
    count=st.integers(0, 5),
    mean=st.one_of(st.floats(-1e9, 1e9), st.sampled_from([1e9 + 0.01, 1e9 - 0.01, 0.1])),
    sd=st.floats(0, 1e6),
)
pauses = st.sampled_from([0, 1, 60, 99, 100, 101, 700])
logs = st.lists(st.tuples(pauses, st.lists(told, max_size=4)), min_size=1, max_size=20)


def records_of(log):
    clock, records = 1_000, []
    for pause, rows in [*log, (10_000, [])]:
        clock += pause
        records.append((clock, rows))
    return records


def fill(driver, records):
    for log_ms, rows in records:
        if rows:
            driver.append(frame(rows), at_ms=log_ms)
        else:
            driver.append(b"", at_ms=log_ms, headers={"hw-time": b"1"})


@settings(max_examples=100)
@given(logs)
def test_groups_are_told_as_the_oracle_tells_them(log):
    records = records_of(log)
    driver = Driver(make_partials(make_settings()))
    fill(driver, records)
    driver.run()
    assert said(driver, "rollups.partial", "site")[0] == Oracle(lambda r: r.site).run(records).told
    assert said(driver, "rollups.partial", "all")[0] == Oracle(lambda r: "*").run(records).told


happenings = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from(["go on", "checkpoint", "partial", "crash"])),
    max_size=20,
)
small = st.sampled_from(
    [
        {},
        {"horizon_ms": 0, "max_members": 2},
        {"horizon_ms": 0, "max_results": 3},
    ]
)


@settings(max_examples=100)
@given(logs, happenings, small)
def test_batches_and_crashes_tell_nothing_else_and_forget_nothing(log, happenings, bounds):
    factory = make_partials(make_settings(**bounds))
    calm, rough = Driver(factory), Driver(factory)
    for driver in (calm, rough):
        fill(driver, records_of(log))
    calm.run()
    for records, happening in happenings:
        rough.step(records)
        match happening:
            case "checkpoint":
                rough.checkpoint()
            case "partial":
                rough.checkpoint(keys=1)
            case "crash":
                rough.crash()
    rough.run()
    rough.crash()
    rough.run()
    for rollup in ("site", "all"):
        found, expected = (said(d, "rollups.partial", rollup) for d in (rough, calm))
        assert found == expected
    assert not rough.logic.wants_time()


def through_both_stages(records, partitions):
    """Devices spread over partitions, their parts joined by the group's owner."""
    joined = Driver(make_groups(make_settings()), partitions=partitions)
    for p in range(partitions):
        first = Driver(make_partials(make_settings()), partition=p, partitions=partitions)
        mine = [(ms, [r for r in rows if ord(r.device) % partitions == p]) for ms, rows in records]
        fill(first, mine)
        first.run()
        for part in first.output:
            joined.append(
                part.value, at_ms=len(joined.log), key=part.key, headers=dict(part.headers)
            )
    joined.tick(at_ms=1_000_000)
    return joined


@settings(max_examples=100)
@given(logs)
def test_a_group_of_several_partitions_ends_as_the_fold_of_all_its_devices(log):
    records = records_of(log)
    oracle = Oracle(lambda r: r.site).run(records)
    joined = through_both_stages(records, 3)
    _, last = said(joined, "rollups", "site")
    expected = {}
    for group, window, revision, count, *_ in oracle.told:
        key = (group, window)
        expected[key] = max(expected.get(key, (-1, -1)), (revision, count))
    assert {key: value[:2] for key, value in last.items()} == expected
    for (group, window), (_, count, total, sd, *_) in last.items():
        rows = [
            r for (_, w), r in oracle.best.items() if w == window and r.site == group and r.count
        ]
        n, exact, deviation = fold([r.values for r in rows])
        assert count == n
        scale = max((abs(r.mean) for r in rows), default=0.0)
        assert math.isclose(float.fromhex(total), exact, rel_tol=1e-12, abs_tol=1e-12 * n * scale)
        if n > 1:
            near = 1e-7 * scale
            assert math.isclose(float.fromhex(sd), deviation, rel_tol=1e-7, abs_tol=near)


def result(device, window=0, rank=0, count=2, *, site="north", mean=1.0, sd=0.5):
    return Told(device, site, window, rank, count, mean, sd)


def test_a_correction_of_a_member_corrects_the_group():
    driver = Driver(make_partials(make_settings()))
    driver.send(frame([result("a"), result("b", mean=3.0)]), at_ms=1)
    driver.tick(at_ms=200)
    driver.send(frame([result("a", rank=1, count=3)]), at_ms=300)
    driver.tick(at_ms=500)
    told, _ = said(driver, "rollups.partial", "site")
    assert sorted(t[2:4] for t in told) == [(2, 4), (3, 5)]


def test_a_device_that_moves_is_retracted_from_its_old_site():
    driver = Driver(make_partials(make_settings()))
    driver.send(frame([result("a")]), at_ms=1)
    driver.tick(at_ms=200)
    driver.send(frame([result("a", rank=1, site="south")]), at_ms=300)
    driver.tick(at_ms=500)
    parts = [results.decode_rollups(v) for v in driver.values("rollups.partial")]
    seen = [
        (p.group[0], int(p.rank[0]), int(p.count[0]), p.reason[0])
        for p in parts
        if p.rollup[0] == "site"
    ]
    assert seen == [
        ("north", 1, 2, "closed"),
        ("north", 2, 0, "retracted"),
        ("south", 2, 2, "closed"),
    ]


def test_a_group_says_who_is_missing_and_who_is_provisional_also_in_silent_partitions():
    records = [
        (1, [result("a"), result("b"), result("c")]),
        (2_000, [result("a", 1), result("b", 1, -1)]),
        (4_000, []),
    ]
    joined = Driver(make_groups(make_settings()), partitions=3)
    parts = []
    for p in range(3):
        first = Driver(make_partials(make_settings()), partition=p, partitions=3)
        fill(first, [(ms, [r for r in rows if ord(r.device) % 3 == p]) for ms, rows in records])
        first.run()
        parts += [part for part in first.output if b"/site/" in part.key]
    parts.sort(key=lambda part: int(results.decode_rollups(part.value).start_ms[0]))
    for at, part in enumerate(parts):
        joined.send(part.value, at_ms=1_000 * at, key=part.key, headers=dict(part.headers))
    joined.tick(at_ms=60_000)
    _, last = said(joined, "rollups", "site")
    assert last["north", 0][-3:] == (3, 0, 0)
    assert last["north", 1][-3:] == (1, 1, 1)


def test_the_deviation_of_a_large_offset_keeps_its_digits():
    driver = Driver(make_partials(make_settings()))
    rows = [result(d, mean=1e9 + off, sd=0.01) for d, off in (("a", 0.01), ("b", -0.01))]
    driver.send(frame(rows), at_ms=1)
    driver.tick(at_ms=200)
    ((*_, sd, _, _, _),) = said(driver, "rollups.partial", "site")[0]
    assert math.isclose(float.fromhex(sd), math.sqrt((2e-4 + 4e-4) / 3), rel_tol=1e-4)


def test_a_poison_record_costs_only_itself():
    driver = Driver(make_partials(make_settings()))
    driver.append(b"no frame", at_ms=1)
    driver.append(frame([result("a")]), at_ms=2)
    driver.tick(at_ms=500)
    (refused,) = [p for p in driver.output if p.topic == "rejected"]
    assert refused.headers["hw-source"] == b"kafka:aggregates/0/0"
    assert len(said(driver, "rollups.partial", "site")[0]) == 1


def test_what_comes_for_a_window_that_is_gone_does_not_tell_a_wrong_group():
    driver = Driver(make_partials(make_settings(horizon_ms=0)))
    driver.send(frame([result("a"), result("b")]), at_ms=1)
    driver.tick(at_ms=200)
    driver.tick(at_ms=60_000)
    driver.send(frame([result("a", rank=7, count=9)]), at_ms=60_001)
    driver.tick(at_ms=70_000)
    told, _ = said(driver, "rollups.partial", "site")
    assert [t[2:4] for t in told] == [(2, 4)]
