"""The spool: durable, bounded, and honest about what it gave up."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import SpoolError, SpoolFullError
from edge.spool.disk import Disk
from edge.spool.plan import LaneSpec, SegmentFacts, WhenFull, make_room
from edge.spool.records import HEAD_BYTES, encode, scan
from tests.spools import SmallDisk, ledger, number_of, opened, reading, waiting


def fill(spool, numbers, now_ms=0):
    for number in numbers:
        spool.append("readings", [reading(number, now_ms)], now_ms)


def test_what_was_stored_is_there_after_a_start_that_follows_no_end(tmp_path: Path) -> None:
    fill(opened(Disk(tmp_path)), range(20))
    assert waiting(opened(Disk(tmp_path))) == list(range(20))


def test_what_was_confirmed_is_not_sent_again_and_its_segments_go(tmp_path: Path) -> None:
    spool = opened(Disk(tmp_path))
    fill(spool, range(20))
    spool.confirm(spool.claim("readings", 12, 1 << 20))
    again = opened(Disk(tmp_path))
    assert waiting(again) == list(range(12, 20))
    again.confirm(again.claim("readings", 100, 1 << 20))
    assert list((tmp_path / "readings").glob("*.seg")) == []
    assert again.status[1].size == 0


def test_what_is_claimed_comes_to_nobody_else_until_it_is_released(tmp_path: Path) -> None:
    spool = opened(Disk(tmp_path))
    fresh = spool.append("readings", [reading(0, 0)], 0, claim=True)
    fill(spool, [1])
    assert waiting(spool) == [1]
    spool.release(fresh)
    assert waiting(spool) == [0, 1]


def test_every_life_has_another_number_and_the_spool_keeps_its_id(tmp_path: Path) -> None:
    first, second = opened(Disk(tmp_path)), opened(Disk(tmp_path))
    assert (first.id, second.id) == ("5f00", "5f00")
    assert second.life == first.life + 1


def test_a_full_lane_that_refuses_keeps_all_that_it_has(tmp_path: Path) -> None:
    spool = opened(Disk(tmp_path), when_full=WhenFull.REFUSE, max_bytes=1_000)
    with pytest.raises(SpoolFullError, match="are taken by what the gateway has not confirmed"):
        fill(spool, range(100))
    assert waiting(spool) == list(range(len(waiting(spool))))
    assert len(waiting(spool)) == 1_000 // reading(0, 0).size
    assert ledger(spool) == []


def test_a_full_lane_that_drops_says_how_many_of_whom_from_when_to_when(tmp_path: Path) -> None:
    spool = opened(Disk(tmp_path), max_bytes=1_000)
    for number in range(30):
        spool.append("readings", [reading(number, 100 + number)], 100 + number)
    kept, told = waiting(spool), ledger(spool)
    assert kept == list(range(30 - len(kept), 30))
    assert sum(loss.readings for loss in told) + len(kept) == 30
    assert sum(sum(loss.devices.values()) for loss in told) + len(kept) == 30
    assert {loss.reason for loss in told} == {"dropped"}
    assert told[0].from_ms == 100
    assert told[-1].to_ms == 100 + kept[0] - 1


def test_what_is_on_its_way_is_not_given_up(tmp_path: Path) -> None:
    spool = opened(Disk(tmp_path), max_bytes=1_000)
    fill(spool, range(3))
    sent = spool.claim("readings", 2, 1 << 20)
    fill(spool, range(3, 40))
    spool.release(sent)
    assert waiting(spool)[:2] == [0, 1]


def test_a_lane_that_thins_drops_only_when_all_is_thin(tmp_path: Path) -> None:
    spool = opened(Disk(tmp_path), when_full=WhenFull.THIN, max_bytes=2_000)
    fill(spool, range(24))
    assert {loss.reason for loss in ledger(spool)} == {"thinned"}
    fill(spool, range(24, 120))
    told = ledger(spool)
    assert {loss.reason for loss in told} == {"thinned", "dropped"}
    assert sum(loss.readings for loss in told) + len(waiting(spool)) == 120
    assert sum(sum(loss.devices.values()) for loss in told) + len(waiting(spool)) == 120


def test_what_is_too_old_is_given_up_as_expired(tmp_path: Path) -> None:
    spool = opened(Disk(tmp_path), expiry_ms=1_000)
    fill(spool, range(5), now_ms=0)
    spool.expire(1_000, 1_000)
    assert ledger(spool) == []
    fill(spool, range(5, 10), now_ms=900)
    spool.expire(1_500, 1_500)
    kept = waiting(spool)
    assert kept[-1] == 9
    assert sum(loss.readings for loss in ledger(spool)) == 10 - len(kept)


def test_what_the_gateway_refuses_for_ever_is_in_the_ledger_with_its_reason(tmp_path: Path) -> None:
    spool = opened(Disk(tmp_path))
    fill(spool, range(4))
    spool.refuse(spool.claim("readings", 2, 1 << 20), "wrong-site", 7)
    again = opened(Disk(tmp_path))
    assert waiting(again) == [2, 3]
    (loss,) = ledger(again)
    assert (loss.reason, loss.detail, loss.readings, loss.at_ms) == ("refused", "wrong-site", 2, 7)


def test_a_crash_between_ledger_and_removal_counts_once(tmp_path: Path) -> None:
    class Dies(Disk):
        def remove(self, *names: str) -> None:
            raise KeyboardInterrupt

    spool = opened(Disk(tmp_path), expiry_ms=10)
    fill(spool, range(5))
    with pytest.raises(KeyboardInterrupt):
        opened(Dies(tmp_path), expiry_ms=10).expire(1_000, 1_000)
    again = opened(Disk(tmp_path), expiry_ms=10)
    assert waiting(again) == []
    again.expire(1_000, 1_000)
    assert [loss.readings for loss in ledger(again)] == [5]


@pytest.mark.parametrize("cut", [1, HEAD_BYTES - 1, HEAD_BYTES + 3])
def test_a_tail_that_was_cut_costs_only_the_record_it_is_in(tmp_path: Path, cut: int) -> None:
    fill(opened(Disk(tmp_path), segment_bytes=1 << 20), range(5))
    (segment,) = (tmp_path / "readings").glob("*.seg")
    data = segment.read_bytes()
    segment.write_bytes(data[: 4 * reading(0, 0).size + cut])
    for _ in range(2):
        again = opened(Disk(tmp_path), segment_bytes=1 << 20)
        assert waiting(again) == [0, 1, 2, 3]
        (loss,) = ledger(again)
        assert loss.reason == "damaged"
        assert f"{cut} bytes" in loss.detail
        assert "perhaps never acknowledged" in loss.detail
        assert loss.readings == (1 if cut > HEAD_BYTES else None)


def test_a_damaged_block_costs_only_the_records_it_is_in(tmp_path: Path) -> None:
    spool = opened(Disk(tmp_path), segment_bytes=1 << 20)
    fill(spool, range(9))
    spool.confirm(spool.claim("readings", 1, 1 << 20))
    (segment,) = (tmp_path / "readings").glob("*.seg")
    data = bytearray(segment.read_bytes())
    size = reading(0, 0).size
    data[4 * size + 5 : 5 * size + 60] = bytes(size + 55)
    segment.write_bytes(data)
    again = opened(Disk(tmp_path), segment_bytes=1 << 20)
    assert waiting(again) == [1, 2, 3, 6, 7, 8]
    (loss,) = ledger(again)
    assert "inside" in loss.detail


def test_a_disk_that_is_full_gives_up_the_oldest_and_still_tells(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path)
    spool = opened(disk, max_bytes=1 << 30, segment_bytes=4_000)
    fill(spool, range(100))
    disk.free_bytes = disk.used() + 10
    fill(spool, range(100, 200))
    kept, told = waiting(spool), ledger(spool)
    assert kept[-1] == 199
    assert sum(loss.readings for loss in told) + len(kept) == 200
    # Room that a removed segment left is again held for the ledger, or the disk has none.
    again = opened(disk, max_bytes=1 << 30, segment_bytes=4_000)
    assert waiting(again) == kept


def test_a_disk_that_is_full_refuses_where_nothing_may_be_given_up(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path)
    spool = opened(disk, when_full=WhenFull.REFUSE, max_bytes=1 << 30)
    fill(spool, range(10))
    disk.free_bytes = disk.used() + 10
    with pytest.raises(SpoolFullError, match="the disk is full"):
        fill(spool, [10])
    disk.free_bytes = 1 << 40
    fill(spool, [11])
    assert waiting(opened(disk)) == [*range(10), 11]
    assert ledger(opened(disk)) == []


def test_a_spool_of_a_later_version_is_refused(tmp_path: Path) -> None:
    opened(Disk(tmp_path))
    (tmp_path / "spool.json").write_text('{"version": 2, "id": "x", "life": 3}')
    with pytest.raises(SpoolError, match="has version 2, this code reads 1"):
        opened(Disk(tmp_path))


def test_records_are_found_behind_anything() -> None:
    data = encode(reading(1, 5))
    found = scan(b"HWs1" + b"x" * 50 + data + data[:20])
    assert [number_of(record) for _, record in found.records] == [1]
    assert [(d.offset, d.size, d.at_end) for d in found.damage] == [
        (0, 54, False),
        (54 + len(data), 20, True),
    ]


def test_room_is_made_of_old_sealed_unclaimed_segments_only() -> None:
    spec = LaneSpec("readings", 2, 100, 0, WhenFull.DROP_OLDEST)
    segments = [
        SegmentFacts(1, 40, 2, 1, 0, active=False, thin=False),
        SegmentFacts(2, 30, 2, 0, 0, active=False, thin=False),
        SegmentFacts(3, 30, 2, 0, 0, active=True, thin=False),
    ]
    assert make_room(segments, spec, 30).give_up == (2,)
    assert make_room(segments, spec, 31).refused
