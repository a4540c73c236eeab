"""Whatever happens to a spool: what was acknowledged is confirmed, waits, or is in the ledger."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.errors import SpoolError
from edge.spool.plan import WhenFull
from edge.spool.records import encode, scan
from tests.spools import SmallDisk, ledger, number_of, opened, reading, waiting


class SpoolMachine(RuleBasedStateMachine):
    """Writes, sends, confirms, fills the disk, dies, over and over."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.stored: set[int] = set()
        self.confirmed: set[int] = set()
        self.in_flight: list = []
        self.now_ms = 0
        self.was_full = False

    @initialize(when_full=st.sampled_from(WhenFull), expiry_ms=st.sampled_from([0, 400]))
    def begin(self, when_full: WhenFull, expiry_ms: int) -> None:
        self.options = {"when_full": when_full, "expiry_ms": expiry_ms, "max_bytes": 2_000}
        self.disk = SmallDisk(self.root)
        self.spool = opened(self.disk, **self.options)

    @rule(count=st.integers(1, 8), claim=st.booleans())
    def store(self, count: int, *, claim: bool) -> None:
        first = len(self.stored) + 1_000 * self.now_ms
        self.now_ms += 1
        records = [reading(first + at, self.now_ms) for at in range(count)]
        try:
            entries = self.spool.append("readings", records, self.now_ms, claim=claim)
        except SpoolError:
            return
        self.stored |= {number_of(record) for record in records}
        self.in_flight += entries if claim else []

    @rule(rows=st.integers(1, 10))
    def send(self, rows: int) -> None:
        self.in_flight += self.spool.claim("readings", rows, 700)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.in_flight), unique_by=id))
        self.spool.confirm(chosen)
        self.confirmed |= {number_of(entry.record) for entry in chosen}
        self.in_flight = [entry for entry in self.in_flight if entry not in chosen]

    @precondition(lambda self: self.in_flight)
    @rule()
    def give_back(self) -> None:
        self.spool.release(self.in_flight)
        self.in_flight = []

    @rule(wait_ms=st.integers(0, 300))
    def age(self, wait_ms: int) -> None:
        self.now_ms += wait_ms
        with suppress(SpoolError):
            self.spool.expire(self.now_ms, self.now_ms)

    @rule(more=st.integers(0, 1_500))
    def fill_the_disk(self, more: int) -> None:
        self.was_full = True
        self.disk.free_bytes = self.disk.used() + more

    @rule()
    def empty_the_disk(self) -> None:
        self.disk.free_bytes = 1 << 40

    @rule(torn=st.integers(0, 99))
    def die(self, torn: int) -> None:
        """End at once, in the middle of a write of which *torn* bytes are there."""
        newest = max((self.root / "readings").glob("*.seg"), default=None)
        if newest is not None:
            with newest.open("ab") as file:
                file.write(encode(reading(999_999, 0))[:torn])
        self.disk = SmallDisk(self.root)
        self.spool = opened(self.disk, now_ms=self.now_ms, **self.options)
        self.in_flight = []
        if self.was_full:
            # What could not be noted is sent once more, and the engine drops it.
            self.confirmed -= set(waiting(self.spool))

    @invariant()
    def nothing_is_forgotten_or_told_twice(self) -> None:
        if not hasattr(self, "spool"):
            return
        there = set(waiting(self.spool)) | {number_of(e.record) for e in self.in_flight}
        assert there <= self.stored
        assert not there & self.confirmed
        lost = sum(x.readings or 0 for x in ledger(self.spool) if x.reason != "damaged")
        assert len(there) + lost + len(self.confirmed) == len(self.stored)

    def teardown(self) -> None:
        shutil.rmtree(self.root)


TestSpool = SpoolMachine.TestCase
TestSpool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.sampled_from([b"HWs1", bytes(40), encode(reading(1, 2)), b"x"])))
def test_a_scan_accounts_for_every_byte(parts: list[bytes]) -> None:
    found = scan(b"".join(parts))
    covered = sum(r.size for _, r in found.records) + sum(d.size for d in found.damage)
    assert covered == len(b"".join(parts))
