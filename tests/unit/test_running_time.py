"""The clock by which readings expire: what people do to the wall clock does not matter to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crdt.core.commands.tray import Instant
from edge.running_time import RunningTime
from edge.spool.disk import Disk
from tests.spools import SmallDisk


@dataclass
class Machine:
    """Its clock since it was started, and which start that was."""

    ms: int = 5_000
    boot: str = "a"

    def __call__(self) -> Instant:
        return Instant(self.boot, self.ms)


def test_it_begins_at_the_wall_clock_and_leaves_it(tmp_path: Path) -> None:
    machine = Machine()
    running = RunningTime(Disk(tmp_path), machine, 1_000_000)
    machine.ms += 70
    assert running() == 1_000_070


def test_it_goes_on_over_a_restart_whatever_the_wall_clock_says(tmp_path: Path) -> None:
    machine = Machine()
    RunningTime(Disk(tmp_path), machine, 1_000_000)
    machine.ms += 300
    assert RunningTime(Disk(tmp_path), machine, 9_000_000)() == 1_000_300
    assert RunningTime(Disk(tmp_path), machine, 0)() == 1_000_300


def test_it_stands_still_while_the_machine_is_off(tmp_path: Path) -> None:
    machine = Machine()
    running = RunningTime(Disk(tmp_path), machine, 1_000_000)
    machine.ms += 59_999
    running.note_now_and_then()  # not yet
    machine.ms += 1
    running.note_now_and_then()
    machine.ms += 10
    machine.boot, machine.ms = "b", 20
    assert RunningTime(Disk(tmp_path), machine, 0)() == 1_060_000


def test_a_damaged_note_begins_anew_and_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "age.json").write_bytes(b"{")
    running = RunningTime(SmallDisk(tmp_path, free_bytes=0), Machine(), 77)
    assert running() == 77
