"""Devices that leave memory and come back: nothing that is told depends on who was away when."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.adapters.results import decode_scores, decode_windows
from streams.agents import eviction, shelving
from streams.agents.readings import ReadingsLogic, make_readings
from streams.core.cold import Cold, hashes_of
from streams.settings import Detection, Devices, Settings, Topics, Window, Worker
from streams.testing import Driver
from tests.unit import test_config_changes as changing

KINDS = [
    Window(name="w", size_ms=100, grace_ms=10, horizon_ms=200, aggregates=["p50", "distinct"]),
    Window(name="h", kind="hopping", size_ms=100, step_ms=50, horizon_ms=200),
    Window(name="g", kind="session", gap_ms=60, horizon_ms=300),
    Window(name="s", kind="sliding", size_ms=80, horizon_ms=200, max_points=6),
    Window(name="l", kind="sliding", last=3, horizon_ms=200, aggregates=["time_weighted_mean"]),
    Window(name="t", size_ms=40, grace_ms=5, horizon_ms=700),
]
SETTINGS = Settings(
    topics=Topics(shards=2),
    windows=KINDS,
    devices=Devices(disorder_ms=5, idle_ms=500, idle_final_ms=900),
    detection=Detection(half_life=8, warmup=3, emit_score=3.0),
    worker=Worker(evict_ms=1_000, shelve_ms=20),
)
NEVER_AWAY = Worker(evict_ms=0, shelve_ms=0)
FEW = {"_LEAST": 1, "_ON_SHELF": 2, "_AT_ONCE": 3}

readings = st.tuples(
    st.integers(0, 4),  # device
    st.integers(-350, 0),  # event time against the clock
    st.sampled_from([1.0, 2.0, 40.0, -7.0, 1e9 + 0.01]),
    st.sampled_from([True, True, False]),  # numbered
    st.sampled_from(["p", "q"]),  # site
    st.sampled_from([False, False, True]),  # once more later
)
events = st.lists(
    st.tuples(st.sampled_from([0, 60, 2_500]), st.lists(readings, max_size=5)),
    min_size=4,
    max_size=12,
)
happenings = st.lists(
    st.tuples(
        st.integers(1, 12),
        st.sampled_from(
            ["evict", "evict, checkpoint", "evict slowly", "checkpoint", "partial", "crash"]
        ),
    ),
    min_size=4,
    max_size=16,
)
kinds = st.lists(st.sampled_from([0, 5, *range(len(KINDS))]), min_size=1, max_size=2, unique=True)


def fill(driver, events, *, name=b"t/d%d", clock=10_000, behind_ms=0):
    """One record a reading; time passes between groups, for the log and for the devices."""
    number, again = 0, []
    for pause_ms, group in events:
        clock += pause_ms
        driver.append(b"", at_ms=clock, headers={"hw-time": b"1"})
        for key, text, headers in again:
            driver.append(text, at_ms=clock, key=key, headers=headers)
        again = []
        for device, back_ms, value, numbered, site, once_more in group:
            number += 1
            seq = f',"seq":{number},"boot":1' if numbered else ""
            text = f'{{"t_ms":{clock + back_ms - behind_ms},"x":{value!r}{seq}}}'.encode()
            key, headers = name % device, {"hw-site": site.encode()}
            driver.append(text, at_ms=clock, key=key, headers=headers)
            if once_more:
                again.append((key, text, headers))


def settings_with(kinds, **changed):
    windows = [KINDS[at] for at in kinds]
    return SETTINGS.model_copy(update={"windows": windows, **changed})


def go_through(driver, happenings):
    """Process all records, with what happens in between."""
    few = {"_LEAST": 1, "_IN_SEGMENT": 2, "_AT_ONCE": 3}
    with patch.multiple(eviction, **few), patch.multiple(shelving, **FEW):
        for records, happening in happenings:
            if happening == "evict slowly":
                evict_slowly(driver, records)
                continue
            driver.step(records)
            if happening.startswith("evict"):
                driver.evict()
            if happening.endswith(("checkpoint", "partial")):
                driver.checkpoint(keys=1 if happening == "partial" else None)
            if happening == "crash":
                driver.crash()
        driver.run()


def evict_slowly(driver, records):
    """Records come while it is being stored."""
    leaving = driver.logic.leave()
    driver.segments |= {part.id: part.state for part in leaving}
    driver.step(records)
    driver.logic.left([part.id for part in leaving])


def told(driver):
    """The greatest revision of each window, every score, and what was put aside."""
    best = {}
    for value in driver.values("aggregates"):
        w = decode_windows(value)
        extra = [w.extra[name] for name in sorted(w.extra)]
        for i in range(len(w)):
            key = (w.device[i], w.metric[i], w.window[i], int(w.start_ms[i]))
            numbers = (w.sum, w.sd, w.min, w.max, *extra)
            bits = tuple(float(column[i]).hex() for column in numbers)
            held = (int(w.rank[i]), int(w.count[i]), int(w.end_ms[i]), w.site[i], bits)
            best[key] = max(best.get(key, held), held)
    scores = set()
    for value in driver.values("anomalies"):
        s = decode_scores(value)
        scores |= {(int(s.offset[i]), int(s.row[i]), s.score[i].hex()) for i in range(len(s))}
    aside = {
        (p.topic, p.headers["hw-source"], p.headers["hw-reason"])
        for topic in ("late", "rejected", "quarantine")
        for p in driver.records(topic)
    }
    return best, scores, aside


@settings(max_examples=60)
@given(kinds, events, happenings)
def test_who_is_away_when_changes_nothing_that_is_told(kinds, events, happenings):
    calm = Driver(make_readings(settings_with(kinds, worker=NEVER_AWAY)))
    fill(calm, events)
    calm.run()
    rough = Driver(make_readings(settings_with(kinds)))
    fill(rough, events)
    go_through(rough, happenings)
    assert told(rough) == told(calm)


SOON = SETTINGS.model_copy(
    update={
        "topics": Topics(shards=1),
        "windows": [
            Window(name="t", size_ms=40, horizon_ms=2_000),
            Window(name="k", size_ms=60, horizon_ms=1_500, aggregates=["p50", "distinct"]),
        ],
        "devices": Devices(disorder_ms=5, idle_ms=100, idle_final_ms=200),
        "worker": Worker(evict_ms=300, shelve_ms=20),
    }
)
"""Devices may leave before the horizon of their windows is over."""
late_readings = st.tuples(
    st.integers(0, 2),
    st.one_of(st.integers(-60, 0), st.integers(-1_800, 0)),
    st.sampled_from([1.0, 2.0, 40.0]),
    st.just(True),
    st.sampled_from(["p", "q"]),
    st.just(False),
)
late_events = st.lists(
    st.tuples(st.sampled_from([30, 60, 60, 120, 700]), st.lists(late_readings, max_size=4)),
    min_size=8,
    max_size=24,
)
often = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.sampled_from(["evict", "evict", "evict, checkpoint", "evict slowly", "crash"]),
    ),
    min_size=12,
    max_size=24,
)


@settings(max_examples=60)
@given(late_events, often)
def test_where_closed_windows_are_kept_changes_nothing_that_is_told(events, happenings):
    calm = Driver(make_readings(SOON.model_copy(update={"worker": NEVER_AWAY})))
    fill(calm, events)
    calm.run()
    rough = Driver(make_readings(SOON))
    fill(rough, events)
    go_through(rough, happenings)
    assert told(rough) == told(calm)


@settings(max_examples=60)
@given(kinds, events, events)
def test_who_takes_the_place_of_another_finds_nothing_of_it(kinds, earlier, events):
    used, new = (Driver(make_readings(settings_with(kinds))) for _ in range(2))
    fill(used, earlier)
    used.run()
    for at_ms in (60_000, 61_000, 62_000):  # Idle rules fire, one after the other.
        used.tick(at_ms)
        new.tick(at_ms)
    assert isinstance(used.logic, ReadingsLogic)
    with patch.multiple(eviction, _LEAST=1):
        used.evict()
    registry = used.logic.engine.registry
    assert len(used.logic.engine.quiet(62_000)) == 0
    before = registry.devices.n
    used.output.clear()
    for driver in (used, new):
        # Their clocks are behind, so that it is the same event time again.
        fill(driver, events, name=b"t/e%d", clock=70_000, behind_ms=60_000)
        driver.run()
        driver.tick(80_000)
        driver.tick(81_000)
    assert registry.devices.n <= max(before, 1 + len({d[0] for _, g in events for d in g}))
    assert _numbers(told(used)) == _numbers(told(new))


def _numbers(found):
    """Offsets differ where another log went before."""
    best, scores, aside = found
    return best, sorted(score for _, _, score in scores), len(aside)


def test_sessions_that_were_joined_stay_so_when_another_device_leaves():
    used, calm = (Driver(make_readings(settings_with([2]))) for _ in range(2))
    for driver in (used, calm):
        driver.send(b'{"t_ms":10000,"x":1}', at_ms=10_000, key=b"t/away")
        driver.tick(11_000)
        driver.tick(14_000)
        for t_ms in (13_900, 14_000, 13_950):  # The third joins the first two.
            driver.send(b'{"t_ms":%d,"x":1}' % t_ms, at_ms=14_000, key=b"t/here")
    with patch.multiple(eviction, _LEAST=1):
        assert used.evict() == 1
    for driver in (used, calm):
        driver.send(b'{"t_ms":14040,"x":1}', at_ms=14_040, key=b"t/here")
        driver.tick(15_000)
        driver.tick(18_000)
    assert told(used) == told(calm)


def test_who_is_heard_while_its_state_is_being_stored_stays():
    driver = Driver(make_readings(settings_with([0])))
    driver.send(b'{"t_ms":10000,"x":1.5,"seq":1}', at_ms=10_000, key=b"t/d1")
    driver.tick(11_000)
    driver.tick(14_000)
    assert isinstance(driver.logic, ReadingsLogic)
    with patch.multiple(eviction, _LEAST=1):
        (part,) = driver.logic.leave()
        driver.segments[part.id] = part.state
        driver.send(b'{"t_ms":14100,"x":1.5,"seq":2}', at_ms=14_100, key=b"t/d1")
        driver.logic.left([part.id])
    assert driver.logic.segments(part.key) == []
    driver.send(b'{"t_ms":14100,"x":1.5,"seq":2}', at_ms=14_200, key=b"t/d1")
    registry = driver.logic.engine.registry
    assert registry.devices["duplicate"].tolist() == [1]


def settled():
    """A driver whose only device has closed windows that may leave: [10000, 10040) and others."""
    driver = Driver(make_readings(SOON.model_copy(update={"windows": SOON.windows[:1]})))
    for number, t_ms in enumerate(range(10_000, 10_400, 20)):
        text = b'{"t_ms":%d,"x":1,"seq":%d}' % (t_ms, number)
        driver.send(text, at_ms=t_ms, key=b"t/d")
    assert isinstance(driver.logic, ReadingsLogic)
    return driver, driver.logic


def late_reading(driver, seq, *, t_ms=10_030, at_ms):
    """Send one; return what it corrects: start, rank, count."""
    driver.output.clear()
    driver.send(b'{"t_ms":%d,"x":1,"seq":%d}' % (t_ms, seq), at_ms=at_ms, key=b"t/d")
    found = [decode_windows(value) for value in driver.values("aggregates")]
    return [(int(w.start_ms[0]), int(w.rank[0]), int(w.count[0])) for w in found]


def windows_here(logic):
    return len(logic.engine.operators[0].held)


def test_closed_windows_leave_memory_and_come_back_for_a_late_reading():
    driver, logic = settled()
    with patch.multiple(shelving, **FEW):
        before = windows_here(logic)
        driver.checkpoint()
        driver.evict()
        assert windows_here(logic) == before - 6
        driver.checkpoint()
        driver.crash()
        assert windows_here(logic) == before - 6
        assert late_reading(driver, 90, at_ms=10_400) == [(10_000, 1, 3)]
        assert late_reading(driver, 91, at_ms=10_410) == [(10_000, 2, 4)]


def test_a_window_that_changes_while_it_is_being_stored_stays():
    driver, logic = settled()
    with patch.multiple(shelving, **FEW):
        leaving = logic.leave()
        driver.segments |= {part.id: part.state for part in leaving}
        assert late_reading(driver, 90, at_ms=10_400) == [(10_000, 1, 3)]
        logic.left([part.id for part in leaving])
        # Its neighbour comes back, and the old state of its own does not.
        assert late_reading(driver, 91, t_ms=10_050, at_ms=10_410) == [(10_040, 1, 3)]
        assert late_reading(driver, 92, at_ms=10_420) == [(10_000, 2, 4)]
        starts = logic.engine.operators[0].held.columns["start_ms"].tolist()
        assert len(starts) == len(set(starts))


def test_windows_of_a_quiet_device_are_back_before_it_leaves_itself():
    driver, logic = settled()
    with patch.multiple(shelving, **FEW), patch.multiple(eviction, _LEAST=1):
        before = windows_here(logic)
        driver.evict()
        assert windows_here(logic) < before
        for at_ms in (11_000, 11_300):  # Quiet for long, but some of its windows are elsewhere.
            driver.tick(at_ms)
        driver.evict()
        assert int(logic.engine.registry.away.sum()) == 0
        driver.tick(13_500)  # Their horizon is over by the log, not by its own time.
        for _ in range(3):
            driver.evict()
        assert int(logic.engine.registry.away.sum()) == 1
        assert windows_here(logic) == 0
        assert late_reading(driver, 90, at_ms=13_600) == [(10_000, 1, 3)]


def test_a_device_whose_windows_are_just_leaving_stays():
    driver, logic = settled()
    with patch.multiple(shelving, **FEW), patch.multiple(eviction, _LEAST=1):
        for at_ms in (11_000, 11_300):
            driver.tick(at_ms)
        driver.evict()
        assert len(logic.segments("0")) > 0
        assert int(logic.engine.registry.away.sum()) == 0
        assert late_reading(driver, 90, at_ms=11_400) == [(10_000, 1, 3)]


def test_devices_that_come_and_go_take_no_more_memory_than_those_that_are_here():
    driver = Driver(make_readings(SETTINGS.model_copy(update={"windows": [KINDS[0]]})))
    assert isinstance(driver.logic, ReadingsLogic)
    for turn in range(30):
        clock = 10_000 + turn * 2_000
        for device in range(200):
            key = b"t/d%d" % (turn * 200 + device)
            driver.append(b'{"t_ms":%d,"x":1.5}' % clock, at_ms=clock, key=key)
        driver.run()
        driver.checkpoint()
        driver.evict()
    registry = driver.logic.engine.registry
    away = int(registry.away.sum())
    assert away >= 30 * 200 - 3 * 200
    assert registry.devices.n <= 800
    assert registry.series.n <= 800
    # Who was away is known when heard again: the second reading of one time is a duplicate.
    before = away
    driver.send(b'{"t_ms":10000,"x":1.5}', at_ms=90_000, key=b"t/d7")
    assert int(registry.away.sum()) == before - 1
    at = registry.find("t", "d7")
    assert int(registry.devices["duplicate"][at]) == 1


def test_a_limit_of_devices_counts_those_that_are_away():
    few = SETTINGS.model_copy(
        update={
            "windows": [KINDS[0]],
            "topics": Topics(shards=1),
            "devices": Devices(disorder_ms=5, idle_ms=500, idle_final_ms=900, max_devices=100),
        }
    )
    driver = Driver(make_readings(few))
    for turn in range(2):
        clock = 10_000 + turn * 5_000
        for device in range(80):
            key = b"t/d%d" % (turn * 80 + device)
            driver.append(b'{"t_ms":%d,"x":1}' % clock, at_ms=clock, key=key)
        driver.run()
        driver.tick(clock + 4_000)
        driver.evict()
    assert len(driver.records("rejected")) == 60
    assert {p.headers["hw-reason"] for p in driver.records("rejected")} == {b"too-many-devices"}


names = st.lists(st.tuples(st.just("t"), st.integers(0, 30).map(str)), unique=True, max_size=12)


@given(st.lists(st.tuples(st.booleans(), names), max_size=30))
def test_the_newest_segment_of_a_device_is_where_it_lies(steps):
    cold, expected = Cold(1), {}
    for number, (add, some) in enumerate(steps):
        if add and some:
            cold.add(f"s{number}", 0, hashes_of(some))
            expected |= dict.fromkeys(some, f"s{number}")
        elif some:
            found = cold.remove(hashes_of(some))
            assert found == [expected.pop(name, "") for name in some]
    assert len(cold) == int(cold.count[0]) == len(expected)
    assert cold.segments(0) == sorted(set(expected.values()), key=lambda name: int(name[1:]))
    assert cold.remove(np.empty(0, "S16")) == []


@settings(max_examples=20)
@given(changing.rows, changing.rows, st.booleans(), st.booleans())
def test_a_window_that_is_added_while_devices_are_away_begins_behind_what_they_had_shown(
    before, then, crash, twice
):
    stages = [_leaving(*changing.FEW), _leaving(*changing.MORE)]
    if twice:
        stages.append(_leaving(*changing.MORE[2:]))
    then = [(device, t_ms + 1_900, value) for device, t_ms, value in then]
    found = []
    for away in (True, False):
        known = changing.documents_of(*stages)
        live = changing.only(known, 0)
        driver = Driver(make_readings(stages[0], live))
        changing.fill(driver, before)
        driver.run()
        for at_ms in (14_000, 16_000, 19_000):
            driver.tick(at_ms)
        driver.checkpoint()
        if away:
            with patch.multiple(eviction, _LEAST=1, _IN_SEGMENT=2):
                assert driver.evict()
            driver.checkpoint()
        for document in known.values():
            live.add(document.encode())
            if document.revision:
                changing.mark(driver, document, 20_000)
        driver.run()
        driver.checkpoint(1)
        if crash:
            driver.crash()
        changing.fill(driver, then, len(before))
        driver.run()
        driver.tick(30_000)
        found.append(changing.told(driver))
    assert found[0] == found[1]


def _leaving(*windows):
    return changing.of(*windows).model_copy(
        update={
            "worker": Worker(evict_ms=1_000),
            "devices": Devices(idle_ms=2_000, idle_final_ms=3_000),
        }
    )
