"""Group commit and what is in its records."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge import contents
from edge.commit import READINGS_LANE, GroupCommit, SpoolThread
from edge.errors import SpoolFullError
from edge.filters import Filters
from edge.keeping import Keeping
from edge.readings import open_spool
from edge.ring import Ring
from edge.spool import losses
from edge.spool.disk import Disk
from edge.spool.lane import Entry
from edge.spool.records import Record
from edge.spool.spool import LOSSES
from streams.adapters import frames
from streams.core.readings import Labels, Readings, concat_readings
from streams.settings import Edge, EdgeSpool, Filter


def series(device: str, values: list[float], first_ms: int = 0) -> Readings:
    n = len(values)
    return Readings(
        *(Labels.constant(name, n) for name in ("acme", "north", device, "m")),
        first_ms + 1_000 * np.arange(n),
        first_ms + 1_000 * np.arange(n) + 5,
        np.array(values, np.float64),
        np.zeros(n, np.uint8),
        np.ones(n, np.int64),
        np.arange(n),
        {},
        {},
    )


def edge(data: Path) -> Edge:
    return Edge(data=data, spool=EdgeSpool(max_bytes=(1 << 24) + 60))


@pytest.fixture
def thread(tmp_path: Path) -> Iterator[SpoolThread]:
    found = SpoolThread(open_spool(edge(tmp_path), 0))
    yield found
    found.close()


def commit(thread: SpoolThread, stored: list[Entry], max_waiting_rows: int = 1_000) -> GroupCommit:
    keep = Keeping(lambda: 77, lambda: 78).keep
    return GroupCommit(thread, keep, stored.extend, max_rows=100, max_waiting_rows=max_waiting_rows)


async def test_those_who_come_together_share_a_write_and_their_order(
    thread: SpoolThread, tmp_path: Path
) -> None:
    stored: list[Entry] = []
    take = commit(thread, stored)
    await asyncio.gather(*(take(series(f"d{n}", [n, n + 0.5])) for n in range(40)))
    assert len(stored) < 40
    assert sum(entry.record.rows for entry in stored) == 80
    found = concat_readings([contents.unpack(entry.record.payload) for entry in stored])
    assert found.device.to_list() == [f"d{n}" for n in range(40) for _ in range(2)]
    assert {entry.record.written_ms for entry in stored} == {78}
    again = open_spool(edge(tmp_path), 0)
    assert sum(e.record.rows for e in again.claim(READINGS_LANE, 1_000, 1 << 30)) == 80


async def test_more_than_may_wait_is_refused_and_the_rest_is_stored(thread: SpoolThread) -> None:
    stored: list[Entry] = []
    take = commit(thread, stored, max_waiting_rows=5)
    first = asyncio.create_task(take(series("a", [1.0, 2.0, 3.0])))
    await asyncio.sleep(0)
    with pytest.raises(SpoolFullError, match="wait for the disk already"):
        await take(series("b", [1.0, 2.0, 3.0]))
    await first
    await take(series("b", [1.0, 2.0, 3.0]))
    assert sum(entry.record.rows for entry in stored) == 6


async def test_a_spool_that_is_full_tells_all_who_came_together(thread: SpoolThread) -> None:
    full = Record(bytes(1 << 24), 1, 0, 0)
    with pytest.raises(SpoolFullError):
        await thread.run(lambda spool: [spool.append(READINGS_LANE, [full], 0) for _ in range(2)])
    stored: list[Entry] = []
    take = commit(thread, stored)
    told = await asyncio.gather(
        *(take(series(f"d{n}", [1.0])) for n in range(3)), return_exceptions=True
    )
    assert [type(one) for one in told] == [SpoolFullError] * 3
    assert stored == []


def test_payloads_are_joined_with_devices_together() -> None:
    parts = [series("b", [1, 2]), series("a", [3]), series("b", [4], 9_000)]
    found = contents.unpack(contents.join([contents.pack(part) for part in parts]))
    assert found.device.to_list() == ["b", "b", "b", "a"]
    assert found.value.tolist() == [1, 2, 4, 3]
    assert contents.join([b"as it is"]) == b"as it is"


def test_devices_are_counted_by_tenant() -> None:
    both = concat_readings([series("b", [1, 2]), series("a", [3])])
    assert contents.count_devices(contents.pack(both)) == {"acme/b": 2, "acme/a": 1}


def test_thinning_keeps_what_shows_the_course_of_each_window() -> None:
    values = [5.0, 1.0, 3.0, 9.0, 4.0, 2.0, 2.5, 2.0, 8.0, 7.0]
    thin = contents.thinner(5_000)
    record = Record(contents.pack(series("a", values)), 10, 3, 4)
    (kept,) = thin([record])
    found = contents.unpack(kept.payload)
    assert found.value.tolist() == [5.0, 1.0, 9.0, 4.0, 2.0, 8.0, 7.0]
    assert kept.rows == len(found) == len(frames.decode(frames.encode(found)))
    for window in range(2):
        was = values[5 * window : 5 * window + 5]
        inside = found.value[found.t_ms // 5_000 == window].tolist()
        assert (inside[0], inside[-1]) == (was[0], was[-1])
        assert (min(inside), max(inside)) == (min(was), max(was))
    assert thin([record]) == [kept]
    assert thin([]) == []


def test_tallies_leave_a_ledger_that_does_not_go_up_to_losses(tmp_path: Path) -> None:
    spool, now_ms = open_spool(edge(tmp_path), 0), 0
    ring = Ring(Disk(tmp_path / "ring"), max_bytes=1 << 30, retention_ms=1 << 40, life=1,
                segment_bytes=1 << 30)  # fmt: skip
    thinning = Filters([Filter(mode="deadband", bound=9.0)], 10)
    keeping = Keeping(lambda: now_ms, lambda: now_ms, thinning, ring, tell_ms=10)
    for n in range(400):
        now_ms += 10
        keeping.keep(series("d", [n % 2], now_ms), spool)
        keeping.keep_house(spool)
    told = spool.claim(LOSSES, 1_000, 1 << 30)
    assert 100 < len(told) < 200
    spool.confirm(told)
    # Once there is room again, one says all of it.
    keeping.tell(spool)
    (entry,) = spool.claim(LOSSES, 1_000, 1 << 30)
    last = losses.decode(entry.record.payload)
    assert (last.readings or 0) + sum(last.up.values()) == 400
