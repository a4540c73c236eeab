"""Windows of an edge are those that the cloud would have told, whenever it dies.

::

    readings ─▶ filters ─▶ ring ─▶ site ─▶ windows, up
                   └─▶ up                    crash: from the last checkpoint, by the ring
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import contents
from edge.filters import Filters, Offered, released
from edge.readings import has_windows
from edge.windowing.site import Outcome, SiteWindows
from streams.adapters import frames, results, zstd
from streams.adapters.edge_ledger import EdgeLedger
from streams.adapters.edge_windows import DAY_MS, Told, held_against_results
from streams.agents.readings import make_readings
from streams.core.readings import (
    ABSENT,
    ELSEWHERE,
    TIME_OF_RECEIPT,
    Labels,
    Readings,
    concat_readings,
)
from streams.core.results import EDGE, WindowResults
from streams.errors import DecodeError
from streams.gateway.edge_windows import window_records
from streams.settings import Filter, Settings, Window
from streams.testing import Driver, Record
from streams.topics import AGGREGATES

WINDOWS = [
    Window(name="1s", size_ms=1_000, grace_ms=500, horizon_ms=5_000, aggregates=["last", "p50"]),
    Window(name="hop", kind="hopping", size_ms=4_000, step_ms=2_000, horizon_ms=3_000),
    Window(name="visit", kind="session", gap_ms=1_500, horizon_ms=5_000),
]
SETTINGS = Settings(
    windows=WINDOWS,
    devices={"disorder_ms": 1_000, "skew_ms": 50_000},
    detection={"warmup": 5, "emit_score": 3.0},
    filters=[
        Filter(devices=("d1",), metrics=("t",), mode="windows"),
        Filter(devices=("d2",), mode="windows-and-anomalies", around_ms=2_000),
        Filter(devices=("d1",), mode="deadband", bound=1.0),
    ],
)
WINDOWED = {("d1", "t"), ("d2", "t"), ("d2", "p")}
Key = tuple[str, str, str, int]
Row = tuple[str, str, int, float, int]

rows = st.lists(
    st.tuples(
        st.sampled_from(("d1", "d2", "d3")),
        st.sampled_from(("t", "p")),
        st.integers(0, 20_000),
        st.floats(0, 100, allow_nan=False),
        st.sampled_from((0, 0, 0, 2, TIME_OF_RECEIPT)),
    ),
    max_size=12,
)
steps = st.lists(st.tuples(st.integers(0, 90_000), rows), min_size=1, max_size=8)


def readings(found: list[Row], received_ms: int, seq: int) -> Readings:
    n = len(found)
    return Readings(
        Labels.constant("acme", n),
        Labels.constant("north", n),
        Labels.of(row[0] for row in found),
        Labels.of(row[1] for row in found),
        np.array([row[2] for row in found], np.int64),
        np.full(n, received_ms, np.int64),
        np.array([row[3] for row in found], np.float64),
        np.array([row[4] for row in found], np.uint8),
        np.ones(n, np.int64),
        np.arange(seq, seq + n, dtype=np.int64),
        {},
        {},
    )


def filters_of(found: Settings) -> Filters:
    return Filters(found.filters, 100, has_windows(found.windows))


@dataclass
class Site:
    """Filters, a ring that loses nothing, and windows; what they told is kept."""

    settings: Settings = field(default_factory=lambda: SETTINGS)
    ring: list[tuple[int, Readings]] = field(default_factory=list)
    told: list[WindowResults] = field(default_factory=list)
    up: list[Readings] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    place: int = 0
    """Of the last checkpoint, in the ring."""
    folded: int = 0
    ledger: EdgeLedger = field(default_factory=EdgeLedger)
    """Of the cloud: what the edge has said of its windows."""

    def __post_init__(self) -> None:
        self.filters = filters_of(self.settings)
        self.site = SiteWindows(self.settings, self.filters)

    def keep(self, part: Readings, at_ms: int) -> None:
        self.store(self.filters.offer(part), at_ms)

    def store(self, offered: Offered, at_ms: int) -> None:
        if len(offered.up):
            self.up.append(offered.up)
        if offered.ring is not None:
            self.ring.append((at_ms, offered.ring))

    def fold(self) -> None:
        news, self.folded = self.ring[self.folded :], len(self.ring)
        self.take(self.site.fold(news))

    def take(self, outcome: Outcome) -> None:
        self.told += outcome.windows
        if outcome.up:
            self.store(released(concat_readings(outcome.up)), self.ring[-1][0])

    def tick(self, at_ms: int) -> None:
        self.fold()
        self.take(self.site.pass_time(at_ms))

    def checkpoint(self) -> None:
        self.fold()
        self.stored |= self.site.take_state()
        self.place = self.folded

    def say(self) -> list[dict]:
        """Tell the ledger, and audit; return what it shows of each device and window."""
        headers = (("hw-tenant", b"acme"), ("hw-site", b"north"), ("hw-batch", b"5f.1/losses/1"))
        for entry in self.site.account.untold(0):
            self.ledger.add(Record(0, 0, None, entry.encode(), headers=headers))
        told: dict[tuple, Told] = {}
        for (device, _, window, start_ms), found in final(self.told).items():
            cell = "acme", "north", device, window, start_ms - start_ms % DAY_MS
            before = told.get(cell, Told(0, 0))
            told[cell] = Told(before.count + found[0], max(before.newest_ms, found[1]))
        rows, problems = held_against_results(self.ledger.windows.counts(), told, {}, -1)
        assert problems == []
        return rows

    def crash(self) -> None:
        self.site = SiteWindows(self.settings, self.filters)
        if self.stored:
            self.take(self.site.restore(self.stored))
        for at_ms, ring in self.ring[: self.place]:
            self.site.remember(ring, at_ms)
        self.site.note_sent(ring for _, ring in self.ring)
        self.folded = self.place
        self.fold()
        self.site.is_up_to_date()


def current(told: list[WindowResults], bits: dict[tuple[Key, int], tuple] | None = None) -> dict:
    """The greatest rank of every window of the series that count."""
    found: dict[Key, tuple] = {}
    for part in told:
        for i in range(len(part)):
            series = part.device[i], part.metric[i]
            if series not in WINDOWED:
                continue
            key = (*series, part.window[i], int(part.start_ms[i]))
            rank, count = int(part.rank[i]), int(part.count[i])
            numbers = (part.sum, part.min, part.max, part.mean, part.sd, *part.extra.values())
            values = tuple(float(column[i]).hex() for column in numbers)
            row = (rank, count, int(part.end_ms[i]), int(part.last_received_ms[i]), *values)
            if bits is not None and rank >= 0:
                # What is told again of a revision is the same, to the bit.
                assert bits.setdefault((key, rank), row) == row
            if key not in found or row[:2] > found[key][:2]:
                found[key] = row
    return found


def final(told: list[WindowResults]) -> dict[Key, tuple[int, int]]:
    """Readings and latest receipt of the final results of windows that follow each other."""
    found: dict[Key, tuple[int, int, int]] = {}
    for part in told:
        for i in np.flatnonzero(part.rank >= 0).tolist():
            if part.window[i] != "1s":
                continue
            key = part.device[i], part.metric[i], "1s", int(part.start_ms[i])
            row = int(part.rank[i]), int(part.count[i]), int(part.last_received_ms[i])
            found[key] = max(row, found.get(key, row))
    return {key: row[1:] for key, row in found.items()}


def of_cloud(driver: Driver) -> list[WindowResults]:
    return [results.decode_windows(value) for value in driver.values(AGGREGATES)]


@settings(max_examples=25, deadline=None)
@given(
    steps,
    st.sets(st.integers(0, 7)),
    st.sets(st.integers(0, 7)),
    st.sets(st.integers(0, 7)),
    st.booleans(),
)
def test_an_edge_tells_the_windows_that_the_cloud_would_tell_and_counts_what_is_inside(
    given_steps, checkpoints, says, crashes, ticks
) -> None:
    site, cloud, after = Site(), Driver(make_readings(SETTINGS)), Driver(make_readings(SETTINGS))
    at_ms, seq = 100_000, 0
    for number, (pause_ms, found) in enumerate(given_steps):
        at_ms += pause_ms
        if ticks:
            site.tick(at_ms)
            cloud.tick(at_ms)
        part = readings(found, at_ms, seq)
        seq += len(found)
        if found:
            site.keep(part, at_ms)
            cloud.send(frames.encode(part), at_ms=at_ms)
        if number in checkpoints:
            site.checkpoint()
        if number in says:
            site.fold()
            site.say()
        if number in crashes:
            site.crash()
    for later_ms in (at_ms + 2_000_000, at_ms + 4_000_000):
        site.tick(later_ms)
        cloud.tick(later_ms)
    told = current(site.told, {})
    assert told == current(of_cloud(cloud))
    assert all(row["counted"] == row["in_log"] and not row["open"] for row in site.say())
    assert bool(site.ledger.windows.counts()) == any(key[2] == "1s" for key in final(site.told))
    assert all(part.source.values == (EDGE,) for part in site.told)
    # The cloud itself makes none of what goes up raw.
    if site.up:
        after.send(frames.encode(concat_readings(site.up)), at_ms=at_ms)
        after.tick(at_ms + 4_000_000)
    assert current(of_cloud(after)) == {}


@settings(max_examples=15, deadline=None)
@given(steps)
def test_every_reading_of_a_window_is_in_one_or_goes_up(given_steps) -> None:
    site, at_ms, seq = Site(), 100_000, 0
    measured: Counter[tuple[str, str]] = Counter()
    for pause_ms, found in given_steps:
        at_ms += pause_ms
        if found:
            # Every reading has a time of its own, so none is a duplicate.
            unique = [(d, m, 20_000 * seq + n, v, q) for n, (d, m, _, v, q) in enumerate(found)]
            part = replace(readings(unique, at_ms, seq), received_ms=np.full(len(found), 1 << 40))
            seq += len(found)
            measured.update((d, m) for d, m, *_ in unique if (d, m) in WINDOWED)
            site.keep(part, at_ms)
    site.tick(at_ms + 4_000_000)
    inside: Counter[tuple[str, str]] = Counter()
    for (device, metric, window, _), (_, count, *_rest) in current(site.told).items():
        if window == "1s":
            inside[device, metric] += count
    near = {
        (device, metric, t_ms)
        for part in site.up
        for device, metric, t_ms in zip(
            part.device.to_list(), part.metric.to_list(), part.t_ms.tolist(), strict=True
        )
        if (device, metric) in WINDOWED
    }
    assert inside == measured
    # What goes up besides is near anomalies, each reading once, and marked.
    assert len(near) == sum(
        (d, m) in WINDOWED
        for part in site.up
        for d, m in zip(part.device.to_list(), part.metric.to_list(), strict=True)
    )


ANOMALOUS = SETTINGS.model_copy(
    update={
        "filters": [
            Filter(metrics=("t",), mode="windows-and-anomalies", around_ms=5_000, score_over=6.0)
        ]
    }
)


@pytest.mark.parametrize("crash", [None, 57, 60, 62, 64, 80])
@pytest.mark.parametrize("checkpoint", [0, 55, 61])
def test_readings_around_an_anomaly_go_up_once_whenever_the_edge_dies(crash, checkpoint) -> None:
    site = Site(ANOMALOUS)
    for n in range(100):
        value = 500.0 if n == 60 else 20.0 + n % 3
        site.keep(readings([("d2", "t", 1_000 * n, value, 0)], 1_000 * n, n), 1_000 * n)
        if n == checkpoint:
            site.checkpoint()
        if n == crash:
            site.crash()
        site.fold()
    sent = concat_readings(site.up)
    assert sorted(sent.t_ms.tolist()) == [1_000 * n for n in range(55, 66)]
    assert (sent.quality & ELSEWHERE).all()
    assert (sent.seq == ABSENT).all()


@pytest.mark.parametrize("crashes", [False, True])
def test_an_edge_that_was_down_knows_what_came_before_an_anomaly(crashes) -> None:
    site = Site(ANOMALOUS)
    for n in range(100):
        at_ms = 1_000 * n + (60_000 if n >= 59 else 0)
        value = 500.0 if n == 60 else 20.0 + n % 3
        site.keep(readings([("d2", "t", 1_000 * n, value, 0)], at_ms, n), at_ms)
        site.fold()
        if n == 58 and crashes:
            site.checkpoint()
            site.crash()
    assert sorted(concat_readings(site.up).t_ms.tolist()) == [1_000 * n for n in range(55, 66)]


def test_a_reading_that_no_window_takes_goes_up_marked() -> None:
    site = Site()
    site.keep(readings([("d1", "t", 90_000, 1.0, 0)], 90_000, 0), 90_000)
    site.keep(readings([("d1", "t", 5, 2.0, 0), ("d1", "t", 999_999, 3.0, 0)], 90_001, 1), 90_001)
    site.fold()
    (sent,) = site.up
    assert sent.value.tolist() == [2.0, 3.0]
    assert (sent.quality & ELSEWHERE).all()


def test_of_a_metric_without_windows_all_readings_go_up() -> None:
    narrow = [Window(name="1s", size_ms=1_000, metrics=["p"])]
    site = Site(SETTINGS.model_copy(update={"windows": narrow}))
    site.keep(readings([("d1", "t", 5, 2.0, 0)], 10, 0), 10)
    assert [part.value.tolist() for part in site.up] == [[2.0]]


def test_open_windows_of_a_definition_that_is_gone_are_told_at_the_next_start() -> None:
    site = Site()
    site.keep(readings([("d1", "t", 5, 2.0, 0)], 10, 0), 10)
    site.checkpoint()
    assert not site.told
    site.settings = SETTINGS.model_copy(update={"windows": WINDOWS[:1]})
    site.crash()
    assert {part.window[0] for part in site.told} == {"hop", "visit"}
    site.tick(4_000_000)
    assert ("d1", "t", "1s", 0) in current(site.told)


def payload(site: Site) -> bytes:
    packed = contents.pack_windows(site.told, "5e77")
    return zstd.inflate(contents.join_windows([one for one, _ in packed]), 1 << 24)


@settings(max_examples=10, deadline=None)
@given(steps)
def test_what_an_edge_sends_is_in_aggregates_bit_by_bit(given_steps) -> None:
    site, at_ms, seq = Site(), 100_000, 0
    for pause_ms, found in given_steps:
        at_ms += pause_ms
        if found:
            site.keep(readings(found, at_ms, seq), at_ms)
            seq += len(found)
    site.tick(at_ms + 4_000_000)
    if not site.told:
        return
    records = window_records(payload(site), "acme", "north", 4, 5)
    assert {record.topic for record in records} == {AGGREGATES}
    there = [results.decode_windows(record.value or b"") for record in records]
    assert current(there) == current(site.told)
    assert {results.lineage(record.value or b"").settings for record in records} == {"5e77"}


@pytest.mark.parametrize(
    ("tenant", "site", "change", "reason"),
    [
        ("other", "north", {}, "wrong-tenant"),
        ("acme", "south", {}, "wrong-site"),
        ("acme", "north", {"source": Labels.constant("cloud", 1)}, "wrong-source"),
        ("acme", "north", {"reason": Labels.constant("because", 1)}, "wrong-reason"),
        ("acme", "north", {"rank": np.array([1 << 25], np.int32)}, "bad-window"),
        ("acme", "north", {"start_ms": np.array([1 << 50])}, "bad-window"),
        ("acme", "north", {"device": Labels.constant("a/b", 1)}, "bad-name"),
    ],
)
def test_what_no_edge_may_tell_is_refused(tenant, site, change, reason) -> None:
    told = Site()
    told.keep(readings([("d1", "t", 5, 2.0, 0)], 10, 0), 10)
    told.tick(4_000_000)
    told.told = [replace(told.told[0], **change)]
    with pytest.raises(DecodeError) as refused:
        window_records(payload(told), tenant, site, 4, 100)
    assert refused.value.reason == reason
