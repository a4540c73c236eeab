"""Devices change their type at a record: their results leave the old group for the new one."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.adapters.config_log import MARKER, Documents
from streams.agents.rollups import make_groups, make_partials
from streams.settings import Devices, DeviceType, Rollup, Settings, Window
from streams.settings.applied import document_of, following
from streams.testing import Driver
from tests.property.test_rollups import (
    QUIET_MS,
    SIZE_MS,
    Oracle,
    Told,
    fill,
    happenings,
    logs,
    records_of,
    said,
)

TYPES = [
    DeviceType(name="first", devices=["a"]),
    DeviceType(name="northern", devices=["[bc]"], sites=["north"]),
    DeviceType(name="rest", devices=["[cd]"]),
    DeviceType(name="b", devices=["b"], tenants=["t"]),
    DeviceType(name="foreign", devices=["*"], tenants=["other"]),
]
some_types = st.lists(st.sampled_from(TYPES), unique_by=lambda one: one.name)


def of(types):
    return Settings(
        windows=[Window(name="w", size_ms=SIZE_MS, horizon_ms=10_000_000)],
        devices=Devices(idle_ms=1, idle_final_ms=1),
        rollups=[
            Rollup(name="type", group="type", quiet_ms=QUIET_MS),
            Rollup(name="all", group="tenant", quiet_ms=QUIET_MS),
        ],
        types=types,
    )


def group_by(types):
    def group_of(row):
        return next((one.name for one in types if one.takes("t", row.site, row.device)), "")

    return group_of


class Turning(Oracle):
    """Whose groups change in between."""

    def __init__(self, group_of):
        super().__init__(group_of)
        self.newest = {}

    def take(self, row, log_ms):
        super().take(row, log_ms)
        if row.window >= self.newest.get(row.device, row).window:
            self.newest[row.device] = row

    def regroup(self, group_of, log_ms):
        before, self.group_of = self.group_of, group_of
        for device, row in self.newest.items():
            self.home[device] = (group_of(row), self.home[device][1])
        for (_, window), row in self.best.items():
            old, new = (before(row), window), (group_of(row), window)
            if old != new:
                self.retired[old] = self.retired.get(old, 0) + row.rank + 2
                for cell in (old, new):
                    self.since.setdefault(cell, log_ms)
                    self.changed[cell] = log_ms


def documents_of(stages):
    known = Documents()
    found = [document_of(of(stages[0]))]
    for types in stages[1:]:
        found.append(following(of(types), found[-1]))
    for document in found:
        known.add(document.encode())
    return known, found


def put(driver, parts):
    """Fill the log with records, and documents' markers before some of them."""
    for records, document in parts:
        if document:
            headers = {"hw-time": b"1", MARKER: document.id.encode()}
            driver.append(b"", at_ms=records[0][0], headers=headers)
        fill(driver, records)


def parts_of(log, cuts, documents):
    records = records_of(log)
    cuts = sorted(min(cut, len(records) - 1) for cut in cuts[: len(documents) - 1])
    edges = [0, *cuts, len(records)]
    pieces = [records[a:b] for a, b in pairwise(edges)]
    return [
        (piece, document if at else None)
        for at, (piece, document) in enumerate(zip(pieces, documents, strict=False))
        if piece
    ]


stages = st.lists(some_types, min_size=2, max_size=3)
places = st.lists(st.integers(0, 12), min_size=2, max_size=2)


@settings(max_examples=80)
@given(logs, stages, places)
def test_types_that_change_are_told_as_the_oracle_tells_them(log, stages, cuts):
    known, found = documents_of(stages)
    parts = parts_of(log, cuts, found)
    driver = Driver(make_partials(of(stages[0]), known))
    put(driver, parts)
    driver.run()
    oracle = Turning(group_by(stages[0]))
    for records, document in parts:
        if document:
            oracle.advance(records[0][0])
            oracle.regroup(group_by(document.types()), records[0][0])
        oracle.run(records)
    told, _ = said(driver, "rollups.partial", "type")
    assert told == {one for one in oracle.told if one[0]}


@settings(max_examples=60)
@given(logs, stages, places, happenings)
def test_batches_and_crashes_around_a_change_of_types_tell_nothing_else(
    log, stages, cuts, happenings
):
    known, found = documents_of(stages)
    calm, rough = (Driver(make_partials(of(stages[0]), known)) for _ in range(2))
    for driver in (calm, rough):
        put(driver, parts_of(log, cuts, found))
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
    for rollup in ("type", "all"):
        assert said(rough, "rollups.partial", rollup) == said(calm, "rollups.partial", rollup)


def test_a_device_that_comes_into_a_type_leaves_its_old_group_at_once():
    known, (first, second) = documents_of([[TYPES[2]], [TYPES[1], TYPES[2]]])
    driver = Driver(make_partials(of(first.types()), known))
    rows = [Told(d, "north", 0, 0, 2, 1.0, 0.0) for d in "bcd"]
    put(driver, [([(1_000, rows), (2_000, [])], None)])
    driver.run()
    _, last = said(driver, "rollups.partial", "type")
    assert {key: word[1] for key, word in last.items()} == {("rest", 0): 4}
    put(driver, [([(3_000, [])], second), ([(4_000, [])], None)])
    driver.run()
    _, last = said(driver, "rollups.partial", "type")
    assert {key: word[1] for key, word in last.items()} == {("rest", 0): 2, ("northern", 0): 4}
    # d is there with its revision, c was, and has left.
    assert last["rest", 0][0] == 1 + 1 + 1
    groups = Driver(make_groups(of([])))
    for part in driver.output:
        groups.append(part.value, at_ms=len(groups.log), key=part.key, headers=part.headers)
    groups.tick(at_ms=10_000)
    _, last = said(groups, "rollups", "type")
    assert {key: word[1] for key, word in last.items()} == {("rest", 0): 2, ("northern", 0): 4}
