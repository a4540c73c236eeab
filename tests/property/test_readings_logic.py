"""The readings logic in memory: records in, records out, whatever happens in between."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.adapters import frames
from streams.adapters.results import decode_scores, decode_windows
from streams.agents.readings import make_readings
from streams.core.readings import Labels, Readings
from streams.settings import Detection, Devices, Settings, Topics, Window
from streams.testing import Driver

SETTINGS = Settings(
    topics=Topics(shards=3),
    windows=[Window(name="w", size_ms=100, grace_ms=10, horizon_ms=200)],
    devices=Devices(disorder_ms=5, idle_ms=500, idle_final_ms=900),
    detection=Detection(half_life=8, warmup=3, emit_score=3.0),
)


def frame(rows, received_ms=10_000):
    n = len(rows)
    return frames.encode(
        Readings(
            Labels.constant("t", n),
            Labels.constant("s", n),
            Labels.of(f"d{d}" for d, _, _ in rows),
            Labels.constant("x", n),
            np.asarray([t for _, t, _ in rows], np.int64),
            np.full(n, received_ms, np.int64),
            np.asarray([v for _, _, v in rows], np.float64),
            np.zeros(n, np.uint8),
            np.full(n, -1, np.int64),
            np.full(n, -1, np.int64),
            {},
            {},
        )
    )


def message(numbered, d, t, v):
    """One JSON message of device *d*, numbered by its time if it is numbered."""
    seq = f',"seq":{t},"boot":1' if numbered else ""
    return b"t/d%d" % d, b'{"t_ms":%d,"x":%r%b}' % (t, v, seq.encode())


reading = st.tuples(st.integers(0, 5), st.integers(0, 2000), st.floats(-100, 100))
several = st.lists(
    st.builds(lambda numbered, r: message(numbered, *r), st.booleans(), reading),
    min_size=1,
    max_size=12,
)
other = st.one_of(
    reading.map(lambda r: (b"t/d%d" % r[0], b'[{"n":"x","v":%r,"bt":-%d}]' % (r[2], r[1] % 9))),
    reading.map(lambda r: (b"t/d%d" % r[0], b'{"x":%r,"y":{"z":1}}' % r[2])),
    st.sampled_from(
        [(b"t/d1", b'{"x":'), (b"t/d1", b'{"x":"one"}'), (b"t", b'{"x":1}'), (None, b'{"x":1}')]
    ),
).map(lambda one: [one])

rows = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 2000), st.floats(-100, 100)), min_size=1, max_size=6
)
events = st.lists(
    st.one_of(rows, several, other, st.just("time"), st.just("garbage")), min_size=1, max_size=15
)


def fill(driver, events):
    clock = 10_000
    for event in events:
        clock += 150
        if event == "time":
            driver.append(b"", at_ms=clock, headers={"hw-time": b"1"})
        elif event == "garbage":
            driver.append(b"no frame", at_ms=clock)
        elif isinstance(event[0][1], bytes):
            for key, value in event:
                driver.append(value, at_ms=clock, key=key)
        else:
            driver.append(frame(event), at_ms=clock)


def windows(driver):
    best = {}
    for value in driver.values("aggregates"):
        w = decode_windows(value)
        for i in range(len(w)):
            key = (w.device[i], w.metric[i], int(w.start_ms[i]))
            held = (int(w.rank[i]), int(w.count[i]), *(float(c[i]).hex() for c in (w.sum, w.sd)))
            best[key] = max(best.get(key, held), held)
    return best


def scores(driver):
    told = set()
    for value in driver.values("anomalies"):
        s = decode_scores(value)
        told |= {(int(s.offset[i]), int(s.row[i]), s.score[i].hex()) for i in range(len(s))}
    return told


def others(driver, topic):
    return {p.headers["hw-source"] for p in driver.output if p.topic == topic}


@settings(max_examples=100)
@given(
    events,
    st.lists(st.integers(1, 20), max_size=8),
    st.lists(st.sampled_from(["checkpoint", "partial", "crash"]), max_size=8),
)
def test_crashes_and_batches_change_nothing_that_was_told(events, batches, happenings):
    calm = Driver(make_readings(SETTINGS))
    fill(calm, events)
    calm.run()
    rough = Driver(make_readings(SETTINGS))
    fill(rough, events)
    for size, happening in zip(batches, happenings, strict=False):
        rough.step(size)
        match happening:
            case "checkpoint":
                rough.checkpoint()
            case "partial":
                rough.checkpoint(keys=1)
            case "crash":
                rough.crash()
    rough.run()
    assert windows(rough) == windows(calm)
    assert scores(rough) == scores(calm)
    for topic in ("rejected", "late", "quarantine"):
        assert others(rough, topic) == others(calm, topic)


def test_a_poison_record_costs_only_itself():
    driver = Driver(make_readings(SETTINGS))
    driver.append(frame([(0, 10, 1.0)]), at_ms=1)
    driver.append(b"\xff\xff\xff\xffgarbage", at_ms=2)
    driver.append(frame([(0, 120, 1.0)]), at_ms=3)
    driver.run()
    (refused,) = [p for p in driver.output if p.topic == "rejected"]
    assert refused.value == b"\xff\xff\xff\xffgarbage"
    assert refused.headers["hw-source"] == b"kafka:readings/0/1"
    assert refused.headers["hw-reason"] == b"truncated-frame"
    assert windows(driver) == {("d0", "x", 0): (0, 1, (1.0).hex(), "nan")}


def test_without_windows_readings_are_judged_all_the_same():
    driver = Driver(make_readings(SETTINGS.model_copy(update={"windows": []})))
    driver.send(frame([(0, 10, 1.0), (1, 20, 2.0)]), at_ms=1)
    driver.send(frame([(0, 10, 1.0)]), at_ms=2)
    driver.tick(at_ms=9_000)
    devices = driver.logic.engine.registry.devices
    assert (devices["accepted"].sum(), devices["duplicate"].sum()) == (2, 1)


def test_a_clock_a_year_ahead_is_quarantined_with_the_reading_itself():
    driver = Driver(make_readings(SETTINGS))
    driver.send(frame([(0, 31_536_000_000, 1.0)]), at_ms=1)
    (held,) = [p for p in driver.output if p.topic == "quarantine"]
    assert held.headers["hw-reason"] == b"clock-ahead"
    assert frames.decode(held.value).t_ms.tolist() == [31_536_000_000]


def test_a_silent_device_gets_a_provisional_result_and_then_a_final_one():
    driver = Driver(make_readings(SETTINGS))
    driver.send(frame([(0, 10, 4.0)]), at_ms=1_000)
    assert driver.logic.wants_time()
    driver.tick(at_ms=1_502)
    driver.tick(at_ms=1_902)
    told = [decode_windows(v) for v in driver.values("aggregates")]
    assert [(int(w.rank[0]), w.reason[0]) for w in told] == [(-1, "provisional"), (0, "idle")]
    assert not driver.logic.wants_time()


def test_one_window_counts_readings_of_all_three_codecs():
    driver = Driver(make_readings(SETTINGS))
    driver.append(frame([(7, 10, 1.0)]), at_ms=1_000)
    driver.append(b'{"t_ms":20,"x":2}', at_ms=1_000, key=b"t/d7", headers={"hw-site": b"s"})
    pack = b'[{"n":"x","v":4,"t":-0.97}]'
    kind = {"content-type": b"application/senml+json", "hw-site": b"s"}
    driver.append(pack, at_ms=1_000, key=b"t/d7", headers=kind)
    driver.append(b'{"t_ms":120,"x":0}', at_ms=1_000, key=b"t/d7")
    driver.run()
    ((key, (rank, count, total, _)),) = windows(driver).items()
    assert (key, rank, count, total) == (("d7", "x", 0), 0, 3, (7.0).hex())


def test_a_refused_record_says_whose_it_was_as_far_as_known():
    driver = Driver(make_readings(SETTINGS))
    driver.append(b'{"x":"one"}', at_ms=5, key=b"acme/d1", headers={"hw-site": b"north"})
    driver.append(b'{"x":1}', at_ms=6, key=b"nobody")
    driver.run()
    first, second = [p for p in driver.output if p.topic == "rejected"]
    told = {name: first.headers[f"hw-{name}"] for name in ("tenant", "site", "device", "reason")}
    assert told == {
        "tenant": b"acme", "site": b"north", "device": b"d1", "reason": b"not-a-number"
    }  # fmt: skip
    assert second.headers["hw-reason"] == b"bad-key"
    assert "hw-device" not in second.headers
    assert second.headers["hw-received-ms"] == b"6"
