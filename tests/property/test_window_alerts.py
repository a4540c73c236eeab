"""Rules on windows: hysteresis, corrections that retract, silence, compositions; any batching."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.agents.window_alerting import make_window_alerting
from streams.settings import DeviceTag, DeviceType, Rule, Settings, Topics, Webhook, Window
from streams.testing import Driver
from tests.windows import MINUTE_MS, result, results_frame

HOT = {"kind": "threshold", "window": "1m", "over": 90.0, "clear": 80.0, "resolve_ms": 0}
SILENT_MS = 10 * MINUTE_MS


def settings_with(*rules, **more):
    return Settings(
        topics=Topics(shards=2),
        windows=[Window(name="1m", size_ms=MINUTE_MS, aggregates=["rate", "trend", "trend_last"])],
        rules=[Rule(**{"name": f"r{i}", **rule}) for i, rule in enumerate(rules)],
        webhooks=[Webhook(name="hook", url="https://example.org/", secret_file="none")],
        **more,
    )


def told(made):
    return [orjson.loads(p.value) for p in made if p.topic == "alerts"]


def states(made):
    return "".join(alert["state"][:3] + " " for alert in told(made)).strip() or "-"


def story(*values, rule=HOT):
    """Play windows in order, a value a minute; ``None`` is a minute of log time without one."""
    driver = Driver(make_window_alerting(settings_with(rule)))
    out = []
    for i, value in enumerate(values):
        at_ms = (i + 1) * MINUTE_MS + 5
        if value is None:
            made = driver.tick(at_ms=at_ms)
        else:
            made = driver.send(results_frame(result(i, value)), at_ms=at_ms)
        out.append(states(made))
    return out


@pytest.mark.parametrize(
    ("values", "rule", "expected"),
    [
        ([70, 95, 85, 79], {}, ["-", "fir", "-", "res"]),
        ([85, 90, 85], {}, ["-", "fir", "-"]),
        ([95, 79, 85, 95], {}, ["fir", "res", "-", "fir"]),
        ([95, 95, 95], {"hold_ms": 2 * MINUTE_MS}, ["-", "fir", "-"]),
        ([95, 70, 95, 95], {"hold_ms": 2 * MINUTE_MS}, ["-", "-", "-", "fir"]),
        ([95, 70, 95, 70, 70], {"resolve_ms": 2 * MINUTE_MS}, ["fir", "-", "-", "-", "res"]),
        ([95, 70, None, None, None], {"resolve_ms": 2 * MINUTE_MS}, ["fir", "-", "-", "res", "-"]),
        ([95, float("nan"), 70], {}, ["fir", "-", "res"]),
        ([5, -5], {"over": None, "under": 0.0, "clear": 2.0}, ["-", "fir"]),
    ],
)
def test_hysteresis_hold_and_resolve(values, rule, expected):
    given_rule = {k: v for k, v in {**HOT, **rule}.items() if v is not None}
    assert story(*values, rule=given_rule) == expected


def test_a_rate_is_compared_per_the_time_that_the_rule_names():
    rule = {"kind": "rate", "window": "1m", "over": 120.0, "per_ms": 60_000, "resolve_ms": 0}
    driver = Driver(make_window_alerting(settings_with(rule)))
    assert states(driver.send(results_frame(result(0, 5, rate=1.9)), at_ms=1)) == "-"
    (alert,) = told(driver.send(results_frame(result(1, 5, rate=2.0)), at_ms=2))
    assert (alert["sample"]["value"], alert["sample"]["expected"]) == (120.0, 120.0)


@pytest.mark.parametrize(
    ("line", "rule", "expected"),
    [
        # An hour ahead: 80 + 3,600 s at a tenth of a hundredth a second.
        ([(80, 0.0), (80, 0.001), (80, 0.003), (80, 0.002)], {}, ["-", "-", "fir", "res"]),
        ([(80, 0.003), (80, 0.002), (80, 0.0015)], {"clear": 86.0}, ["fir", "-", "res"]),
        # It is there already, and falls.
        ([(91, -0.01), (89, -0.01)], {}, ["fir", "res"]),
        ([(10, -0.003), (0, 0.1), (1, 0.0)], {"under": 0.0, "over": None}, ["fir", "-", "res"]),
    ],
)
def test_a_forecast_fires_where_the_line_of_a_window_reaches_the_bound_in_time(
    line, rule, expected
):
    rule = {"kind": "forecast", "window": "1m", "within_ms": 3_600_000, "over": 90.0, **rule}
    rule = {"resolve_ms": 0, **{k: v for k, v in rule.items() if v is not None}}
    driver = Driver(make_window_alerting(settings_with(rule)))
    made = [
        driver.send(results_frame(result(i, 5, trend_last=last, trend=trend)), at_ms=i)
        for i, (last, trend) in enumerate(line)
    ]
    assert [states(one) for one in made] == expected
    first = told(driver.output)[0]
    assert "m of d" in first["why"]
    assert "in 1 h, as it goes in 1m" in first["why"]


def test_an_expression_sees_names_and_aggregates():
    rule = {"kind": "expression", "window": "1m", "resolve_ms": 0}
    rule["expression"] = 'mean > 2.0 * min + 1.0 || (device.startsWith("d") && rate > 3)'
    driver = Driver(make_window_alerting(settings_with(rule)))
    assert states(driver.send(results_frame(result(0, 5, rate=2.0)), at_ms=1)) == "-"
    assert states(driver.send(results_frame(result(1, 5, rate=4.0)), at_ms=2)) == "fir"
    assert states(driver.send(results_frame(result(2, 5, rate=float("nan"))), at_ms=2)) == "-"


def test_selectors_look_at_device_site_and_metric():
    rule = {**HOT, "devices": ["d[12]"], "sites": ["n*"], "metrics": ["m"]}
    driver = Driver(make_window_alerting(settings_with(rule)))
    names = [("d1", "north", "m"), ("d3", "north", "m"), ("d2", "south", "m"), ("d2", "north", "x")]
    rows = [result(0, 99, device=d, site=s, metric=m) for d, s, m in names]
    assert [a["device"] for a in told(driver.send(results_frame(*rows), at_ms=1))] == ["d1"]
    moved = results_frame(result(1, 99, device="d2", site="north"))
    assert [a["device"] for a in told(driver.send(moved, at_ms=2))] == ["d2"]


TYPED = {
    "types": [DeviceType(name="pump", devices=["p*"]), DeviceType(name="rest", sites=["n"])],
    "tags": [DeviceTag(name="old", devices=["*1"]), DeviceTag(name="loud", devices=["p*", "f1"])],
}


@pytest.mark.parametrize(
    ("labels", "devices"),
    [
        ({"types": ["pump"]}, ["p1", "p2"]),
        ({"types": ["re*"]}, ["f1"]),
        ({"tags": ["old"]}, ["p1", "f1", "g1"]),
        ({"tags": ["loud", "old"], "types": ["r*"]}, ["f1"]),
        ({"tags": ["loud"], "devices": ["*2"]}, ["p2"]),
        ({"tags": ["*"]}, ["p1", "p2", "f1", "g1", "g2"]),
    ],
)
def test_selectors_look_at_a_devices_type_and_tags(labels, devices):
    chosen = settings_with({**HOT, **labels}, **TYPED)
    driver = Driver(make_window_alerting(chosen))
    rows = [
        result(0, 99, device=device, site="n" if device == "f1" else "s")
        for device in ("p1", "p2", "f1", "g1", "g2")
    ]
    assert [a["device"] for a in told(driver.send(results_frame(*rows), at_ms=1))] == devices


def test_a_correction_retracts_and_another_one_brings_back():
    driver = Driver(make_window_alerting(settings_with(HOT)))
    (fired,) = told(driver.send(results_frame(result(0, 95)), at_ms=1))
    assert states(driver.send(results_frame(result(1, 70)), at_ms=2)) == "res"
    (gone,) = told(driver.send(results_frame(result(0, 60, rank=1)), at_ms=3))
    assert (gone["state"], gone["id"]) == ("retracted", fired["id"])
    assert gone["why"] == "a correction shows that mean of m of d in 1m was 60, not over 90"
    assert states(driver.send(results_frame(result(0, 95, rank=0)), at_ms=4)) == "-"
    back = told(driver.send(results_frame(result(0, 99, rank=2)), at_ms=5))
    assert [(a["state"], a["turn"], a["id"]) for a in back] == [
        ("firing", 1, fired["id"]),
        ("resolved", 1, fired["id"]),
    ]
    keys = [p.key for p in driver.records("deliveries")]
    assert len(set(keys)) == len(keys) == 5


def test_a_window_that_a_correction_turns_on_fires_late_and_is_over():
    driver = Driver(make_window_alerting(settings_with(HOT)))
    for i in range(4):
        driver.send(results_frame(result(i, 70)), at_ms=i)
    late = told(driver.send(results_frame(result(1, 99, rank=1)), at_ms=9))
    assert [a["state"] for a in late] == ["firing", "resolved"]
    assert late[1]["resolved_ms"] == 2 * MINUTE_MS


def test_two_alerts_that_a_correction_joins_go_on_as_the_one_that_fires():
    driver = Driver(make_window_alerting(settings_with(HOT)))
    for i, value in enumerate((95, 70, 95)):
        driver.send(results_frame(result(i, value)), at_ms=i)
    assert states(driver.send(results_frame(result(1, 99, rank=1)), at_ms=9)) == "-"
    assert states(driver.send(results_frame(result(3, 70)), at_ms=10)) == "res"
    assert len({a["id"] for a in told(driver.output)}) == 2


def test_a_rule_goes_on_with_the_next_generation_of_its_window():
    driver = Driver(make_window_alerting(settings_with(HOT)))
    (fired,) = told(driver.send(results_frame(result(0, 95, rank=3)), at_ms=1))
    assert states(driver.send(results_frame(result(1, 95), window="1m@2"), at_ms=2)) == "-"
    anew = results_frame(result(0, 70), window="1m@2")
    assert states(driver.send(anew, at_ms=3)) == "-"
    (over,) = told(driver.send(results_frame(result(2, 70), window="1m@2"), at_ms=4))
    assert (over["state"], over["id"], over["window"]) == ("resolved", fired["id"], "1m")


def test_silence_is_told_at_its_deadline_and_its_end():
    rule = {"kind": "absence", "window": "1m", "silent_ms": SILENT_MS}
    driver = Driver(make_window_alerting(settings_with(rule)))
    driver.send(results_frame(result(0, 1, kafka_ms=1_000)), at_ms=70_000)
    assert driver.logic.wants_time()
    assert states(driver.tick(at_ms=SILENT_MS + 999)) == "-"
    (silent,) = told(driver.tick(at_ms=SILENT_MS + 1_000))
    assert (silent["state"], silent["fired_ms"]) == ("firing", SILENT_MS + 1_000)
    assert states(driver.tick(at_ms=SILENT_MS + 9_000)) == "-"
    heard = results_frame(result(20, 1, rank=-1, kafka_ms=SILENT_MS + 9_500))
    (back,) = told(driver.send(heard, at_ms=SILENT_MS + 9_900))
    assert (back["state"], back["id"]) == ("resolved", silent["id"])


@pytest.mark.parametrize("jump_ms", [-3_600_000, -1, 3_600_000])
def test_a_broker_whose_clock_jumps_tells_nothing_twice_and_forgets_nothing(jump_ms):
    rule = {"kind": "absence", "window": "1m", "silent_ms": SILENT_MS}
    driver = Driver(make_window_alerting(settings_with(HOT, rule)))
    begin_ms = 4_000_000
    heard = {"kafka_ms": begin_ms}
    assert states(driver.send(results_frame(result(0, 95, **heard)), at_ms=begin_ms)) == "fir"
    made = driver.tick(at_ms=begin_ms + jump_ms)
    assert states(made) == ("fir" if jump_ms > SILENT_MS else "-")
    driver.tick(at_ms=begin_ms + SILENT_MS - 1)
    driver.tick(at_ms=begin_ms + SILENT_MS)
    driver.tick(at_ms=begin_ms + SILENT_MS + 1)
    later = {"kafka_ms": begin_ms + 2 * SILENT_MS}
    driver.send(results_frame(result(1, 70, **later)), at_ms=begin_ms + 2 * SILENT_MS)
    seen = [(a["rule"], a["state"]) for a in told(driver.output)]
    assert sorted(seen) == [(r, s) for r in ("r0", "r1") for s in ("firing", "resolved")]


def composed(kind, **more):
    parts = [
        {**HOT, "name": "hot", "metrics": ["temp"], "alerts": False},
        {**HOT, "name": "loud", "metrics": ["noise"], "alerts": False},
    ]
    rule = {"name": "both", "kind": kind, "of": ["hot", "loud"], **more}
    return Driver(make_window_alerting(settings_with(*parts, rule)))


def minute(driver, i, temp, noise, at_ms=None):
    rows = [result(i, temp, metric="temp"), result(i, noise, metric="noise")]
    return states(driver.send(results_frame(*rows), at_ms=at_ms or (i + 1) * MINUTE_MS))


def test_all_fires_where_all_fire_on_one_device():
    driver = composed("all")
    assert minute(driver, 0, 95, 5) == "-"
    assert minute(driver, 1, 95, 95) == "fir"
    assert minute(driver, 2, 5, 95) == "res"
    (first, _) = told(driver.output)
    assert (first["rule"], first["metric"], first["began_ms"]) == ("both", "*", MINUTE_MS)
    assert first["why"] == "hot and loud holds on d"
    other = results_frame(result(3, 95, metric="temp"), result(3, 95, metric="noise", device="e"))
    assert states(driver.send(other, at_ms=9 * MINUTE_MS)) == "-"


def test_all_within_a_time_takes_what_was_just_over():
    driver = composed("all", within_ms=2 * MINUTE_MS)
    assert minute(driver, 0, 95, 5) == "-"
    assert minute(driver, 1, 5, 5) == "-"
    assert minute(driver, 2, 5, 95) == "fir"
    assert [minute(driver, i, 5, 5) for i in range(3, 6)] == ["res", "-", "-"]


def test_any_fires_where_one_does_and_until_none_does():
    driver = composed("any")
    assert minute(driver, 0, 95, 5) == "fir"
    assert minute(driver, 1, 5, 95) == "-"
    assert minute(driver, 2, 5, 5) == "res"


def test_a_correction_of_a_part_retracts_the_whole():
    driver = composed("all", hold_ms=2 * MINUTE_MS)
    assert minute(driver, 0, 95, 95) == "-"
    assert minute(driver, 1, 95, 95) == "fir"
    fixed = results_frame(result(1, 5, rank=1, metric="noise"))
    assert states(driver.send(fixed, at_ms=9 * MINUTE_MS)) == "ret"


def test_what_is_beyond_a_limit_is_refused_and_counted():
    from streams.agents.window_alerting import REFUSED

    chosen = settings_with(HOT)
    chosen = chosen.model_copy(
        update={"alerts": chosen.alerts.model_copy(update={"max_series": 2, "max_open": 1})}
    )
    driver = Driver(make_window_alerting(chosen))
    before = REFUSED._value.get()
    rows = [result(0, 99, device=name) for name in "abc"]
    assert [a["device"] for a in told(driver.send(results_frame(*rows), at_ms=1))] == ["a"]
    assert REFUSED._value.get() == before + 2


def test_what_stands_in_a_partition_that_has_moved_is_shown_by_its_new_owner_only():
    from streams.agents.telling import _STANDING

    driver = Driver(make_window_alerting(settings_with({**HOT, "name": "shown"})))
    firing = _STANDING.labels("shown", "firing")
    driver.send(results_frame(result(0, 95)), at_ms=1)
    driver.checkpoint()
    assert firing._value.get() == 1
    driver.logic.forget_shown()
    assert firing._value.get() == 0


RULES = (
    {**HOT, "hold_ms": 2 * MINUTE_MS, "resolve_ms": MINUTE_MS, "name": "hot", "metrics": ["a"]},
    {**HOT, "name": "loud", "metrics": ["b"], "clear": 90.0},
    {"kind": "absence", "window": "1m", "silent_ms": SILENT_MS, "name": "gone"},
    {"kind": "all", "of": ["hot", "loud"], "name": "both"},
)
one = st.builds(
    result,
    st.integers(0, 7),
    st.sampled_from([70.0, 85.0, 95.0]),
    rank=st.sampled_from([-1, 0, 0, 1, 2]),
    device=st.sampled_from("de"),
    metric=st.sampled_from("ab"),
    count=st.sampled_from([1, 1, 1, 0]),
)
events = st.lists(
    st.one_of(st.lists(one, min_size=1, max_size=4), st.just("time")), min_size=1, max_size=14
)


def fill(driver, events):
    for step, event in enumerate(events):
        at_ms = (step + 1) * 3 * MINUTE_MS
        if event == "time":
            driver.append(b"", at_ms=at_ms, headers={"hw-time": b"1"})
        else:
            rows = [{**row, "kafka_ms": at_ms - 7} for row in event]
            driver.append(results_frame(*rows), at_ms=at_ms)


@settings(max_examples=120)
@given(
    events,
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["", "checkpoint", "part", "crash"])),
        max_size=9,
    ),
)
def test_crashes_and_batches_tell_the_same_messages_under_the_same_ids(events, steps):
    factory = make_window_alerting(settings_with(*RULES))
    calm, rough = Driver(factory), Driver(factory)
    fill(calm, events)
    fill(rough, events)
    calm.run()
    for size, happening in steps:
        rough.step(size)
        if happening == "checkpoint":
            rough.checkpoint()
        elif happening == "part":
            rough.checkpoint(keys=1)
        elif happening == "crash":
            rough.crash()
    rough.run()
    assert messages(rough) == messages(calm)


def messages(driver):
    return {p.key: p.value for p in driver.output if p.topic == "deliveries"}


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([70.0, 85.0, 95.0]), min_size=8, max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from([70.0, 85.0, 95.0])), max_size=8),
    st.integers(0, 2),
    st.randoms(use_true_random=False),
)
def test_what_fires_in_the_end_follows_from_the_newest_results(first, corrections, resolve, random):
    """Corrections in whatever order, and repeated: alerts are what the windows as they are say."""
    rule = {**HOT, "hold_ms": 2 * MINUTE_MS, "resolve_ms": resolve * MINUTE_MS}
    rows = [result(i, value, rank=0) for i, value in enumerate(first)]
    later = [result(i, value, rank=n + 1) for n, (i, value) in enumerate(corrections)]
    newest = {row["start"]: row for row in [*rows, *later]}
    shuffled = [*later, *random.sample(rows, 3)]
    random.shuffle(shuffled)
    corrected, plain = (Driver(make_window_alerting(settings_with(rule))) for _ in range(2))
    for row in [*rows, *shuffled]:
        corrected.send(results_frame(row), at_ms=1)
    for row in sorted(newest.values(), key=lambda row: row["start"]):
        plain.send(results_frame({**row, "rank": 0}), at_ms=1)
    assert episodes_of(corrected) == episodes_of(plain)
    assert len(firing(corrected)) == len(firing(plain)) <= 1


def episodes_of(driver):
    pairs = driver.logic.judges.engines[""]._pairs.values()
    return [(e.began_ms, e.fired_ms, e.resolved_ms) for pair in pairs for e in pair.found]


def firing(driver):
    last = {alert["id"]: alert["state"] for alert in told(driver.output)}
    return [key for key, state in last.items() if state == "firing"]


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.integers(1, 90), st.sampled_from([70.0, 95.0]), st.sampled_from([70.0, 95.0])),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 40),
)
def test_a_record_that_reaches_back_beyond_the_corrections_tells_as_its_minutes_one_by_one(
    minutes, size
):
    rows, now = [], 0
    for gap, a, b in minutes:
        now += gap
        at = {"kafka_ms": MINUTE_MS, "device": "d"}
        rows += [result(now, a, metric="a", **at), result(now, b, metric="b", **at)]
    told_by = []
    for portion in (2, 2 * size):
        driver = Driver(make_window_alerting(settings_with(*RULES)))
        for i in range(0, len(rows), portion):
            driver.send(results_frame(*rows[i : i + portion]), at_ms=MINUTE_MS + 5)
        told_by.append(sorted((one["id"], one["state"]) for one in told(driver.output)))
    assert told_by[0] == told_by[1]


def test_a_backlog_of_hours_in_one_record_loses_no_alert():
    rows = [result(i, 95 if i % 4 == 0 else 70) for i in range(600)]
    driver = Driver(make_window_alerting(settings_with(HOT)))
    said = told(driver.send(results_frame(*rows), at_ms=600 * MINUTE_MS))
    assert [one["state"] for one in said].count("firing") == 150
