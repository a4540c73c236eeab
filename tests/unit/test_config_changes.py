"""Windows that are added or taken away at a record, whatever the batches and the crashes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.adapters.config_log import MARKER, Documents
from streams.adapters.results import read_table
from streams.agents.readings import make_readings
from streams.errors import SettingsError, StateError
from streams.settings import Mapping, MetricSpec, Rule, Settings, Window
from streams.settings.applied import (
    Document,
    changes,
    document_of,
    following,
    in_force,
    introduced,
    newest,
    parse,
)
from streams.testing import Driver, frame

FEW = [Window(name="w", size_ms=100, horizon_ms=300, aggregates=["distinct"])]
MORE = [
    *FEW,
    Window(name="wide", size_ms=400, horizon_ms=500, aggregates=["p50", "last"]),
    Window(name="hop", kind="hopping", size_ms=200, step_ms=50),
    Window(name="visit", kind="session", gap_ms=120, horizon_ms=300),
]
DEVICES = [f"d{i}" for i in range(6)]


def of(*windows):
    return Settings(windows=list(windows), rollups=[], devices={"idle_ms": 2_000})


def documents_of(*stages):
    known = Documents()
    document = document_of(stages[0])
    known.add(document.encode())
    for stage in stages[1:]:
        document = following(stage, document)
        known.add(document.encode())
    return known


def only(known, revision):
    found = Documents()
    for document in known.values():
        if document.revision <= revision:
            found.add(document.encode())
    return found


def mark(driver, document, at_ms):
    driver.append(b"", at_ms=at_ms, headers={"hw-time": b"1", MARKER: document.id.encode()})


def fill(driver, rows, begin=0):
    for at, (device, t_ms, value) in enumerate(rows, begin):
        row = {"device": DEVICES[device], "metric": "m", "t_ms": t_ms, "value": value}
        driver.append(frame(row | {"boot": 1, "seq": at}, received_ms=t_ms), at_ms=10_000 + at)


def told(driver):
    """The last word on each window: those that are retracted or provisional are none."""
    last = {}
    for row in driver.rows("aggregates"):
        key = row["window"], row["device"], row["start_ms"]
        last[key] = max(last.get(key, (-2, 0, 0)), (row["rank"], row["count"], row["sum"]))
    return {key: found for key, found in last.items() if found[0] >= 0 and found[1]}


rows = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 2_000), st.integers(-9, 9).map(float)),
    min_size=5,
    max_size=60,
).map(lambda all_rows: sorted(all_rows, key=lambda row: row[1] // 150))


def played(first, before, then, *, batches, crashes=(), revision=1):
    known = documents_of(*first)
    live = only(known, 0)
    driver = Driver(make_readings(first[0], live))
    fill(driver, before)
    driver.run()
    driver.checkpoint()
    for document in known.values():
        live.add(document.encode())
        if document.revision:
            mark(driver, document, 20_000)
    fill(driver, then, len(before))
    for device in range(6):
        fill(driver, [(device, 9_000, 0.0)], 1_000 + device)
    for size, crash in zip(batches, crashes, strict=False):
        driver.step(size)
        if crash:
            driver.checkpoint(crash)
            driver.crash()
    driver.run()
    return driver


@settings(max_examples=30)
@given(rows, rows)
def test_what_an_added_window_tells_is_what_it_would_have_told_from_the_beginning(before, then):
    then = [(device, t_ms + 1_900, value) for device, t_ms, value in then]
    added = told(played([of(*FEW), of(*MORE)], before, then, batches=[]))
    whole = Driver(make_readings(of(*MORE)))
    fill(whole, before)
    fill(whole, then, len(before))
    for device in range(6):
        fill(whole, [(device, 9_000, 0.0)], 1_000 + device)
    whole.run()
    every = told(whole)
    assert {k: v for k, v in added.items() if k[0] == "w"} == {
        k: v for k, v in every.items() if k[0] == "w"
    }
    seen = {}
    for device, t_ms, _ in before:
        seen[DEVICES[device]] = max(seen.get(DEVICES[device], -1), t_ms)
    apart = {"visit": 119}
    expected = {
        key: found
        for key, found in every.items()
        if key[0] != "w" and (key[1] not in seen or key[2] > seen[key[1]] + apart.get(key[0], 0))
    }
    assert {k: v[1:] for k, v in added.items() if k[0] != "w"} == {
        k: v[1:] for k, v in expected.items()
    }


@settings(max_examples=30)
@given(
    rows,
    rows,
    st.lists(st.integers(1, 12), max_size=8),
    st.lists(st.sampled_from([0, 1, 2, 99]), max_size=8),
)
def test_batches_and_crashes_around_a_change_change_nothing(before, then, batches, crashes):
    before = [*((device, 0, 1.0) for device in range(6)), *before]
    stages = [of(*FEW), of(*MORE), of(*MORE[1:])]
    calm = played(stages, before, then, batches=[])
    rough = played(stages, before, then, batches=batches, crashes=crashes)
    assert told(rough) == told(calm)


def test_a_window_that_is_taken_away_tells_nothing_behind_the_marker():
    driver = played([of(*MORE), of(*FEW)], [(0, 10, 1.0)], [(0, 500, 1.0)], batches=[])
    assert {key[0] for key in told(driver)} == {"w"}
    assert driver.logic.engine.definitions[0].name == "w"
    assert len(driver.logic.engine.definitions) == 1


def test_a_marker_without_a_document_and_a_second_one_are_let_be():
    known = documents_of(of(*FEW), of(*MORE))
    forged = document_of(of(), revision=9)
    driver = Driver(make_readings(of(*FEW), only(known, 0)))
    fill(driver, [(0, 10, 1.0)])
    mark(driver, forged, 15_000)
    driver.run()
    assert len(driver.logic.engine.definitions) == 1
    driver = played([of(*FEW), of(*MORE)], [(0, 10, 1.0)], [(0, 500, 1.0)], batches=[])
    before = driver.logic.engine
    mark(driver, newest(known.values()), 40_000)
    driver.run()
    assert driver.logic.engine is before


def test_a_new_worker_begins_with_what_was_applied_and_passes_its_marker_over():
    known = documents_of(of(*FEW), of(*MORE))
    driver = Driver(make_readings(of(*FEW), known))
    fill(driver, [(0, 10, 1.0)])
    mark(driver, newest(known.values()), 15_000)
    fill(driver, [(0, 1_900, 1.0)], 1)
    driver.run()
    assert ("wide", "d0", 0) in told(driver)


def test_the_fingerprint_of_results_follows_the_change():
    driver = played([of(*FEW), of(*MORE)], [(0, 10, 1.0)], [(0, 500, 1.0)], batches=[])
    found = {read_table(v).schema.metadata[b"hw.settings"] for v in driver.values("aggregates")}
    assert found == {of(*windows).fingerprint().encode() for windows in (FEW, MORE)}


def test_the_catalogue_changes_at_the_marker():
    metrics = {"note": MetricSpec(type="text")}
    before, after = of(*FEW), of(*FEW).model_copy(update={"metrics": metrics})
    known = documents_of(before, after)
    live = only(known, 0)
    driver = Driver(make_readings(before, live))
    key, value = b"t/d", b'{"t_ms": 5, "note": "x"}'
    driver.send(value, at_ms=10, key=key)
    live.update(known)
    mark(driver, newest(known.values()), 11)
    driver.send(value, at_ms=12, key=key)
    assert [row["reason"] for row in driver.rows("rejected")] == ["not-a-number"]


def test_state_that_follows_a_document_which_is_gone_is_refused_with_what_to_do():
    driver = played([of(*FEW), of(*MORE)], [(0, 10, 1.0)], [(0, 500, 1.0)], batches=[])
    driver.checkpoint()
    other = documents_of(of(*FEW), of(*MORE[:2]))
    logic = make_readings(of(*FEW), other)(0, 1)
    with pytest.raises(StateError, match=r"topic config, which is not there .* new worker\.id"):
        for key, (stamp, state) in driver.stored.items():
            logic.restore(key, stamp, state)


def test_a_window_that_changes_under_its_name_is_its_next_generation():
    def names(document):
        return [window.name for window in document.windows()]

    first = document_of(of(*FEW))
    wider = FEW[0].model_copy(update={"size_ms": 200})
    second = following(of(wider), first)
    assert names(second) == ["w@2"]
    assert in_force(of(*FEW), second).windows == [wider.model_copy(update={"name": "w@2"})]
    gone = following(of(MORE[1]), second)
    assert names(following(of(MORE[1], wider), gone)) == ["wide", "w@2"]
    assert names(following(of(*FEW), gone)) == ["w@3"]
    assert parse(gone.encode()) == gone


def test_a_document_brings_a_window_once_and_again_after_it_was_gone():
    first = document_of(of(*FEW))
    second = following(of(*MORE[:2]), first)
    third = following(of(*FEW), second)
    fourth = following(of(*MORE[:2]), third)
    assert introduced([first, second], "wide") is second
    assert introduced([first, second, third, fourth], "wide") is fourth
    assert introduced([first, second], "w") is None
    with pytest.raises(SettingsError, match="'wide' is not in force"):
        introduced([first, second, third], "wide")


def test_a_file_names_no_generation():
    with pytest.raises(ValueError, match="name"):
        Window(name="w@2", size_ms=100)


def test_differences_are_told_by_section_and_name():
    one = of(*FEW).model_copy(update={"mappings": [Mapping(topic="a/{device}")]})
    two = of(*MORE[:2]).model_copy(
        update={
            "mappings": [Mapping(topic="b/{device}"), Mapping(topic="a/{device}", site="s")],
            "metrics": {"m": MetricSpec(unit="K")},
        }
    )
    found = changes(document_of(one).sections, document_of(two).sections)
    assert [(c.section, c.name, c.what) for c in found] == [
        ("mappings", "a/{device}", "changed"),
        ("mappings", "b/{device}", "added"),
        ("metrics", "m", "added"),
        ("windows", "wide", "added"),
    ]


def test_a_document_is_read_as_it_was_written_and_an_unknown_version_is_refused():
    document = following(of(*MORE), document_of(of(*FEW)))
    assert parse(document.encode()) == document
    assert in_force(of(*FEW), document).windows == MORE
    assert b'"version":3' in document.encode()
    with pytest.raises(SettingsError, match="version 4, expected up to 3"):
        parse(document.encode().replace(b'"version":3', b'"version":4'))
    with pytest.raises(SettingsError, match="cannot be read"):
        parse(b"{}")


def test_a_document_of_the_first_version_keeps_its_id():
    written = (
        b'{"mappings":[],"metrics":{},"retired":{},"revision":3,"version":1,'
        b'"windows":[{"name":"w","size_ms":100}]}'
    )
    document = parse(written)
    assert document.encode() == written
    assert document.windows()[0].size_ms == 100
    assert following(of(*document.windows()), document).generations == {}
    mine = of(*FEW).model_copy(update={"rules": [Rule(name="mine")]})
    assert in_force(mine, document).rules == mine.rules
    typed = {**document.sections, "types": [{"name": "t", "devices": ["d0"]}]}
    assert b'"version":2' in Document(4, typed, {}).encode()
    after = following(mine, document)
    assert b'"version":3' in after.encode()
    assert in_force(of(*FEW), parse(after.encode())).rules == mine.rules


def test_of_two_that_applied_at_once_the_first_counts():
    first = document_of(of(*FEW))
    a, b = following(of(*MORE), first), following(of(*MORE[:2]), first)
    assert newest([first, a, b]) is a
    assert newest([first, document_of(of(*MORE))]).windows() == MORE
