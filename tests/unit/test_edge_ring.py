"""The bounds of the ring."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import SpoolFullError
from edge.ring import Ring
from edge.spool.records import Record
from tests.spools import SmallDisk


def opened(disk: SmallDisk, life: int = 1) -> Ring:
    return Ring(disk, max_bytes=2_000, retention_ms=1_000, life=life, segment_bytes=500)


def put(ring: Ring, *numbers: int) -> None:
    for number in numbers:
        ring.append(Record(b"%0100d" % number, 1, number, number))


def held(ring: Ring) -> list[int]:
    return [int(r.payload) for segment in ring.segments() for r in ring.records(segment)]


def test_the_oldest_segments_go_at_the_quota_and_the_newest_readings_stay(tmp_path: Path) -> None:
    ring = opened(SmallDisk(tmp_path))
    put(ring, *range(100))
    found = held(ring)
    assert found == list(range(100 - len(found), 100))
    assert 5 <= len(found) < 20
    assert ring.status.size <= 2_000
    again = opened(SmallDisk(tmp_path), life=2)
    put(again, 100)
    assert held(again)[-2:] == [99, 100]


def test_what_is_older_than_the_retention_goes_a_segment_at_a_time(tmp_path: Path) -> None:
    ring = opened(SmallDisk(tmp_path))
    put(ring, *range(5))
    put(ring, 900)
    ring.expire(1_500)
    assert held(ring) == [4, 900]
    ring.expire(1_901)
    assert held(ring) == []


def test_on_a_full_disk_the_ring_gives_its_own_room_and_then_refuses(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path)
    ring = opened(disk)
    put(ring, *range(10))
    disk.free_bytes = disk.used()
    put(ring, 10)
    assert held(ring)[-1] == 10
    disk.free_bytes = 0
    with pytest.raises(SpoolFullError, match="the disk is full"):
        put(ring, 11)
    # What a start looks for is there.
    assert held(ring)[-1] == 10


def test_damage_costs_the_record_that_it_is_in(tmp_path: Path) -> None:
    ring = opened(SmallDisk(tmp_path))
    put(ring, 1, 2, 3)
    ring.close()
    (path,) = (tmp_path / "ring").glob("*.seg")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert held(opened(SmallDisk(tmp_path), life=2)) == [1, 3]


def test_requests_that_were_answered_are_remembered_up_to_a_bound(tmp_path: Path) -> None:
    ring = opened(SmallDisk(tmp_path))
    for number in range(300):
        ring.note_done(f"{number:08x}")
    done = opened(SmallDisk(tmp_path), life=2).done()
    assert len(done) == 256
    assert done[-1] == f"{299:08x}"
