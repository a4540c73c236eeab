"""The edge's log: what was appended is there after any end of the process."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from crdt.log import Log
from crdt.sqlite_file import LogError

CHILD = """
import sys
from pathlib import Path
from crdt.log import Log
from crdt.replica import Reading, Replica
log = Log(Path(sys.argv[1]))
replica = Replica(f"edge:s:{log.mint()}", Reading(), log.load().get("d", ()))
for number in range(100_000):
    replica.edit({"desired.n": number}, (), now_ms=1_000 - number)
    log.append("d", replica.drain()[0], replica.stored)
    print(number, flush=True)
"""


def test_kill_9_after_an_acknowledgement_loses_nothing(tmp_path: Path) -> None:
    from crdt.replica import Reading, Replica

    for acknowledgements in (1, 40, 300):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "twins.db")], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(acknowledgements)][-1]
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read().split()
        child.wait()
        child.stdout.close()
        log = Log(tmp_path / "twins.db")
        replica = Replica(f"edge:s:{log.mint()}", Reading(), log.load()["d"])
        log.close()
        found = replica.twin.read(replica.reading.policies)["desired.n"].value
        assert isinstance(found, int)
        assert found >= max([acknowledged, *map(int, rest)])


def test_every_start_and_every_restored_backup_is_a_new_life(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        log = Log(tmp_path / "a.db")
        names.append(log.mint())
        log.close()
    assert [name.split("-")[0] for name in names] == ["1", "2", "3"]
    assert len({name.split("-")[1] for name in names}) == 3


def test_many_updates_of_a_device_become_one_and_others_stay(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.db")
    log.append("other", [b"o"], lambda: b"")
    for number in range(300):
        log.append("d", [b"%d" % number * 10], lambda: b"whole")
    stored = log.load()
    log.close()
    assert stored["other"] == [b"o"]
    assert stored["d"][0] == b"whole"
    assert sum(map(len, stored["d"])) < 5_000


def test_another_doc_takes_the_place_of_all_that_was_stored(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.db")
    log.append("d", [b"of the first Doc"], lambda: b"")
    log.append("d", [b"not stored by itself"], lambda: b"all of the next Doc", replace=True)
    log.append("d", [b"more"], lambda: b"")
    assert log.load()["d"] == [b"all of the next Doc", b"more"]
    log.close()


def test_a_second_process_on_the_same_file_is_told_so(tmp_path: Path) -> None:
    first = Log(tmp_path / "a.db")
    first.mint()
    with pytest.raises(LogError, match="another edge process"):
        Log(tmp_path / "a.db")
    first.close()


def test_a_file_of_another_version_or_kind_is_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "new.db")
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(LogError, match="version 99"):
        Log(tmp_path / "new.db")
    (tmp_path / "text.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(LogError, match="cannot be used"):
        Log(tmp_path / "text.db")
