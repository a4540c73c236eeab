"""Whatever fails or dies: what an edge sends rebuilds the series, and the ring has it all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import contents
from edge.commit import READINGS_LANE
from edge.errors import SpoolError
from edge.filters import MARKS, RELEASED, Filters, unsent_of
from edge.keeping import Keeping
from edge.ring import Ring
from edge.spool.plan import LaneSpec, WhenFull
from edge.spool.spool import LOSSES, Contents, Spool
from streams.adapters.edge_ledger import EdgeLedger
from streams.core.readings import (
    BAD,
    GOOD,
    TIME_OF_RECEIPT,
    Labels,
    Readings,
    concat_readings,
)
from streams.settings import Filter
from streams.testing import Record
from tests.spools import SmallDisk

Row = tuple[str, str, int, float]
BOUND = 0.5
GAP_MS = 50_000
DOOR = Filter(metrics=("t*",), mode="swinging-door", bound=BOUND, max_gap_ms=GAP_MS)
BAND = Filter(metrics=("p",), mode="deadband", bound=BOUND, max_gap_ms=GAP_MS)


def of(rows: list[Row], quality: int = GOOD, first_seq: int = 0) -> Readings:
    device, metric, t_ms, value = zip(*rows, strict=True)
    n = len(rows)
    return Readings(
        Labels.constant("acme", n),
        Labels.constant("north", n),
        Labels.of(device),
        Labels.of(metric),
        np.asarray(t_ms, np.int64),
        np.asarray(t_ms, np.int64),
        np.asarray(value, np.float64),
        np.full(n, quality, np.uint8),
        np.ones(n, np.int64),
        np.arange(first_seq, first_seq + n, dtype=np.int64),
        {},
        {},
    )


def points(readings: Readings) -> list[Row]:
    columns = (readings.device.to_list(), readings.metric.to_list())
    return list(zip(*columns, readings.t_ms.tolist(), readings.value.tolist(), strict=True))


class FailingDisk(SmallDisk):
    """A disk whose writes fail while *fails*, for another reason than that it is full."""

    fails = False

    def _write(self, fd: int, data: bytes) -> None:
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super()._write(fd, data)


class Edge:
    """Filters, ring and spool on a real folder, whose disk fails when told to."""

    def __init__(self, filters: list[Filter], max_series: int = 100) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.filters, self.max_series = filters, max_series
        self.now_ms = 0
        self.begin()

    def begin(self) -> None:
        self.disks = [FailingDisk(self.root / "spool"), FailingDisk(self.root / "ring")]
        lanes = [
            LaneSpec(READINGS_LANE, 2, 1 << 24, 0, WhenFull.REFUSE),
            LaneSpec(LOSSES, 1, 1 << 20, 0, WhenFull.REFUSE),
        ]
        inside = Contents(contents.count_devices, contents.thinner(1_000))
        mint = lambda: "5f00"  # noqa: E731
        self.spool = Spool(self.disks[0], lanes, inside, mint=mint, now_ms=0, segment_bytes=1 << 16)
        self.ring = Ring(
            self.disks[1],
            max_bytes=1 << 24,
            retention_ms=10**9,
            life=self.spool.life,
            segment_bytes=1 << 16,
        )
        filters = Filters(self.filters, self.max_series)
        clock = lambda: self.now_ms  # noqa: E731
        self.keeping = Keeping(clock, clock, filters, self.ring)
        self.keeping.recover(self.spool, GAP_MS)

    def keep(self, readings: Readings) -> None:
        self.now_ms = int(readings.t_ms.max())
        self.spool.release(self.keeping.keep(readings, self.spool))

    def sent(self) -> Readings:
        """All that is to go up, in the order in which it was stored."""
        entries = self.spool.claim(READINGS_LANE, 1 << 30, 1 << 30)
        self.spool.release(entries)
        return concat_readings([contents.unpack(entry.record.payload) for entry in entries])

    def tallies(self) -> tuple[int, int]:
        """Readings that went up and that stayed, as an audit adds them."""
        ledger = EdgeLedger()
        headers = (("hw-tenant", b"acme"), ("hw-site", b"north"), ("hw-batch", b"5f00.1/x/1"))
        for entry in self.spool.claim(LOSSES, 1 << 30, 1 << 30):
            ledger.add(Record(0, 0, None, entry.record.payload, headers=headers))
        counts = ledger.counts()
        return sum(one.up or 0 for one in counts), sum(one.filtered for one in counts)

    def ringed(self) -> Readings:
        found = [r for number in self.ring.segments() for r in self.ring.records(number)]
        return concat_readings([contents.unpack(record.payload) for record in found])

    def close(self) -> None:
        self.spool.close()
        self.ring.close()
        shutil.rmtree(self.root)


walks = st.lists(
    st.tuples(st.sampled_from(["t1", "t2", "p"]), st.integers(1, 20_000), st.floats(-2, 2)),
    min_size=1,
    max_size=40,
)


@settings(deadline=None, max_examples=25)
@given(walks, st.lists(st.sampled_from(["keep", "spool", "ring", "die", "stop"])), st.data())
def test_what_goes_up_is_within_the_bound_and_the_ring_has_every_reading(
    walk: list[tuple[str, int, float]], events: list[str], data: st.DataObject
) -> None:
    edge = Edge([DOOR, BAND])
    try:
        t_ms, value, rows = 1_000_000, 0.0, []
        for metric, step_ms, change in walk:
            t_ms, value = t_ms + step_ms, value + change
            rows.append(("d", metric, t_ms, value))
        at = 0
        while at < len(rows):
            size = data.draw(st.integers(1, 12))
            part = of(rows[at : at + size], first_seq=at)
            event = events.pop() if events else "keep"
            if event in ("spool", "ring"):
                disk = edge.disks[event == "ring"]
                disk.fails = True
                try:
                    edge.keep(part)  # of which perhaps nothing goes up, or nothing stays
                except SpoolError:
                    continue
                finally:
                    disk.fails = False
            else:
                if event == "die":
                    edge.begin()
                elif event == "stop":
                    edge.keeping.flush(edge.spool, everything=True)
                    edge.begin()
                edge.keep(part)
            at += size
        edge.keeping.flush(edge.spool, everything=True)
        check_rebuilt(rows, edge.sent())
        raw = edge.ringed()
        assert set(rows) <= set(points(raw))
        edge.keeping.tell(edge.spool)
        # Whatever died or was refused: what the ledger tells is what the ring holds.
        ups, stayed = edge.tallies()
        assert ups + stayed == sum((raw.quality & RELEASED) == 0)
        assert stayed == unsent_of(raw)
        assert ups <= len(edge.sent())
        unique = {point[:3] for point in points(edge.sent())}
        assert unique <= {point[:3] for point in points(raw)}
    finally:
        edge.close()


def check_rebuilt(rows: list[Row], sent: Readings) -> None:
    assert (sent.seq == -1).all() and (sent.boot == -1).all()
    there = set(points(sent))
    for metric in {row[1] for row in rows}:
        course = [(t, v) for _, m, t, v in rows if m == metric]
        kept = [(t, v) for t, v in course if ("d", metric, t, v) in there]
        assert kept[0] == course[0]
        if metric == "p":
            held = kept[0][1]
            for point in course:
                held = point[1] if point in kept else held
                assert abs(held - point[1]) <= BOUND
            continue
        assert kept[-1] == course[-1]
        for (t0, v0), (t1, v1) in pairwise(kept):
            for t_ms, value in course:
                if t0 < t_ms < t1:
                    line = v0 + (v1 - v0) * ((t_ms - t0) / (t1 - t0))
                    assert abs(line - value) <= BOUND


@given(st.lists(st.integers(1, 12), min_size=1, max_size=10), walks)
def test_batching_does_not_change_what_is_sent(
    sizes: list[int], walk: list[tuple[str, int, float]]
) -> None:
    t_ms, rows = 0, []
    for metric, step_ms, value in walk:
        t_ms += step_ms
        rows.append(("d", metric, t_ms, value))
    whole, parts = Filters([DOOR, BAND], 10), Filters([DOOR, BAND], 10)
    at, found, ring = 0, [], 0
    while at < len(rows):
        size = sizes[at % len(sizes)]
        offered = parts.offer(of(rows[at : at + size]))
        found += points(offered.up)
        ring += unsent_of(offered.ring) if offered.ring else 0
        at += size
    once = whole.offer(of(rows))
    assert once.ring is not None
    assert Counter(found) == Counter(points(once.up))
    # Each reading went up, or lies in the ring alone.
    assert ring == unsent_of(once.ring) == len(rows) - len(found)
    assert len(once.ring) >= len(rows)


def test_a_batch_that_is_taken_back_leaves_no_trace() -> None:
    rows = [("d", m, 1_000 * n, 0.3 * n * (-1) ** (n // 3)) for n in range(30) for m in ("t", "p")]
    plain, undone = Filters([DOOR, BAND], 10), Filters([DOOR, BAND], 10)
    for at in range(0, 60, 6):
        part = of(rows[at : at + 6])
        undone.undo(undone.offer(part))
        assert points(undone.offer(part).up) == points(plain.offer(part).up)


def test_devices_that_no_filter_names_go_up_as_they_are() -> None:
    spare = Filter(devices=("spare-*",), mode="all")
    filters = Filters([spare, DOOR], 10)
    batch = of([("spare-1", "t", n, 0.0) for n in range(5)])
    offered = filters.offer(batch)
    assert offered.up is batch
    assert offered.ring is None


def test_a_device_is_sent_without_numbers_as_a_whole_or_its_gaps_would_be_told_as_lost() -> None:
    filters = Filters([DOOR], 10)
    offered = filters.offer(of([("d", "t", 1, 0.0), ("d", "other", 1, 5.0)]))
    assert offered.up.metric.to_list() == ["t", "other"]
    assert offered.up.seq.tolist() == [-1, -1]
    assert offered.ring is not None
    assert offered.ring.seq.tolist() == [0, 1]


@pytest.mark.parametrize("quality", [BAD, TIME_OF_RECEIPT])
def test_readings_of_bad_quality_or_without_a_time_go_up(quality: int) -> None:
    filters = Filters([DOOR], 10)
    offered = filters.offer(of([("d", "t", n, 0.0) for n in range(5)], quality))
    assert len(offered.up) == 5
    # Without a time of its own a reading is known by its number alone.
    assert (offered.up.seq[0] == -1) == (quality == BAD)


def test_without_a_bound_a_restart_sends_more_and_the_new_bound_is_learnt_anew() -> None:
    rng = np.random.default_rng(4)
    rows = [("d", "t", 1_000 * n, float(v)) for n, v in enumerate(rng.normal(20, 0.5, 400))]
    free = Filter(mode="swinging-door", max_gap_ms=10**9)
    whole, first, again = (Filters([free], 10) for _ in range(3))
    sent = len(whole.offer(of(rows)).up)
    assert sent < 200
    parts = [first.offer(of(rows[:200])), again.offer(of(rows[200:]))]
    # The warm-up of the second life goes up whole.
    assert len(parts[1].up) > 32
    assert sent < sum(len(part.up) for part in parts)
    (shown,) = whole.of_device("d")
    assert (shown["metric"], shown["mode"], shown["bound_by"]) == ("t", "swinging-door", "noise")
    assert 0.5 < shown["bound"] < 2
    assert Filters([DOOR], 1).of_device("d") == []


def test_series_beyond_the_bound_go_up_whole() -> None:
    filters = Filters([BAND], 1)
    rows = [(device, "p", n, 0.0) for n in range(10) for device in ("a", "b")]
    offered = filters.offer(of(rows))
    assert Counter(offered.up.device.to_list()) == {"a": 1, "b": 10}


def test_a_reading_that_waits_too_long_goes_up_with_no_next_one() -> None:
    edge = Edge([DOOR])
    try:
        edge.keep(of([("d", "t", 1_000, 0.0), ("d", "t", 2_000, 0.1)]))
        edge.now_ms = 2_000 + GAP_MS
        assert edge.keeping.flush(edge.spool) == []
        edge.now_ms += 1
        (entry,) = edge.keeping.flush(edge.spool)
        assert contents.unpack(entry.record.payload).t_ms.tolist() == [2_000]
        assert edge.keeping.flush(edge.spool) == []
        assert edge.keeping.filtered == 0
    finally:
        edge.close()


def test_a_life_that_ended_orderly_has_nothing_sent_after_all() -> None:
    edge = Edge([DOOR])
    try:
        edge.keep(of([("d", "t", 1_000 * n, 0.0) for n in range(5)]))
        edge.keeping.flush(edge.spool, everything=True)
        before = points(edge.sent())
        edge.begin()
        assert points(edge.sent()) == before
        assert (edge.ringed().quality & MARKS != 0).sum() == 2
    finally:
        edge.close()
