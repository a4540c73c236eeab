"""Windows compared with another metric, and with the median of a group; any order, any batching."""

from __future__ import annotations

from statistics import median

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.agents.peers import make_peers
from streams.agents.window_alerting import REFUSED, make_window_alerting
from streams.core.placement import group_key, group_partition
from streams.settings import Alerts, DeviceType, Rule, Settings, Topics, Webhook, Window
from streams.testing import Driver
from tests.property.test_window_alerts import states, told
from tests.windows import MINUTE_MS, result, results_frame

LEAK = {"kind": "compare", "window": "1m", "metrics": ["in"], "with_metric": "out"}
ODD = {"kind": "compare", "window": "1m", "among": "site", "metrics": ["m"]}
QUIET_MS = 2_000


def settings_with(*rules, **alerts):
    return Settings(
        topics=Topics(shards=2),
        windows=[Window(name="1m", size_ms=MINUTE_MS, aggregates=["p90"])],
        types=[DeviceType(name="pump", devices=["p*"])],
        rules=[Rule(**{"name": f"r{i}", "resolve_ms": 0, **rule}) for i, rule in enumerate(rules)],
        webhooks=[Webhook(name="hook", url="https://example.org/", secret_file="none")],
        alerts=Alerts(**alerts),
    )


def flows(i, into=None, out=None, device="d", rank=0):
    pairs = (("in", into), ("out", out))
    rows = [
        result(i, value, metric=metric, device=device, rank=rank)
        for metric, value in pairs
        if value is not None
    ]
    return results_frame(*rows)


class TestMetrics:
    def test_a_difference_is_judged_once_both_are_known_and_anew_when_one_is_corrected(self):
        driver = Driver(make_window_alerting(settings_with({**LEAK, "over": 5.0})))
        assert states(driver.send(flows(0, into=20), at_ms=1)) == "-"
        (fired,) = told(driver.send(flows(0, out=10), at_ms=2))
        assert (fired["metric"], fired["sample"]["value"]) == ("in", 10.0)
        assert fired["why"] == "mean of in of d, less that of out, in 1m was 10, over 5"
        assert states(driver.send(flows(1, 20, 19), at_ms=3)) == "res"
        (gone,) = told(driver.send(flows(0, out=18, rank=1), at_ms=4))
        assert (gone["state"], gone["id"]) == ("retracted", fired["id"])

    def test_a_ratio_of_another_aggregate_says_nothing_of_a_zero(self):
        rule = {**LEAK, "by": "ratio", "aggregate": "max", "under": 0.5}
        driver = Driver(make_window_alerting(settings_with(rule)))
        assert states(driver.send(flows(0, 1, 0), at_ms=1)) == "-"
        assert states(driver.send(flows(1, 1, 4), at_ms=2)) == "fir"
        assert states(driver.send(flows(2, 0, 0), at_ms=3)) == "-"

    def test_devices_are_not_mixed_and_it_may_be_a_part_of_others(self):
        parts = {**LEAK, "over": 5.0, "alerts": False, "name": "leak"}
        hot = {"kind": "threshold", "window": "1m", "over": 90.0, "metrics": ["t"], "name": "hot"}
        both = {"kind": "all", "of": ["leak", "hot"], "name": "both"}
        both.pop("resolve_ms", None)
        chosen = settings_with(parts, {**hot, "alerts": False})
        chosen = chosen.model_copy(update={"rules": [*chosen.rules, Rule(**both)]})
        driver = Driver(make_window_alerting(chosen))
        driver.send(flows(0, into=20, device="d"), at_ms=1)
        driver.send(flows(0, out=1, device="e"), at_ms=2)
        hot_row = results_frame(result(0, 99, metric="t"))
        assert states(driver.send(hot_row, at_ms=3)) == "-"
        assert states(driver.send(flows(0, out=1, device="d"), at_ms=4)) == "fir"

    def test_what_cannot_be_held_is_counted(self):
        driver = Driver(make_window_alerting(settings_with({**LEAK, "over": 5.0}, max_compared=1)))
        before = REFUSED._value.get()
        driver.send(flows(0, 20, device="d"), at_ms=1)
        driver.send(flows(0, 20, 10, device="e"), at_ms=1)
        assert REFUSED._value.get() == before + 2


def forwarded(chosen, *rows):
    """The frames that the rules on windows hand on, with their partitions."""
    driver = Driver(make_window_alerting(chosen))
    driver.send(results_frame(*rows), at_ms=1)
    return driver.records("alert.peers")


def play(driver, chosen, *rows, at_ms):
    out = []
    for one in forwarded(chosen, *rows):
        out += driver.send(one.value, at_ms=at_ms, headers=dict(one.headers))
    return out


def crowd(i, values, rank=0):
    return [result(i, v, device=f"d{n}", rank=rank) for n, v in enumerate(values)]


class TestGroups:
    def test_the_odd_one_fires_once_its_group_is_quiet(self):
        chosen = settings_with({**ODD, "over": 5.0})
        driver = Driver(make_peers(chosen))
        assert states(play(driver, chosen, *crowd(0, [20, 21, 30, 20]), at_ms=1_000)) == "-"
        assert driver.logic.wants_time()
        assert states(driver.tick(at_ms=1_000 + QUIET_MS - 1)) == "-"
        (fired,) = told(driver.tick(at_ms=1_000 + QUIET_MS))
        assert (fired["device"], fired["sample"]["value"]) == ("d2", 9.5)
        assert fired["why"] == (
            "mean of m of d2, less the median of its site, in 1m was 9.5, over 5"
        )
        assert not driver.logic.wants_time()
        play(driver, chosen, *crowd(1, [20, 21, 22, 20]), at_ms=70_000)
        assert states(driver.tick(at_ms=80_000)) == "res"

    def test_a_late_member_moves_the_median_and_takes_an_alert_back(self):
        chosen = settings_with({**ODD, "over": 5.0})
        driver = Driver(make_peers(chosen))
        play(driver, chosen, *crowd(0, [20, 20, 30]), at_ms=1_000)
        (fired,) = told(driver.tick(at_ms=9_000))
        more = [result(0, 30, device=name) for name in ("e1", "e2", "e3")]
        play(driver, chosen, *more, at_ms=10_000)
        back = [(a["device"], a["state"]) for a in told(driver.tick(at_ms=20_000))]
        assert back == [("d2", "retracted")]
        assert fired["device"] == "d2"

    def test_of_too_few_nothing_is_said(self):
        chosen = settings_with({**ODD, "over": 5.0, "least": 4})
        driver = Driver(make_peers(chosen))
        play(driver, chosen, *crowd(0, [20, 20, 90]), at_ms=1_000)
        assert states(driver.tick(at_ms=9_000)) == "-"
        play(driver, chosen, result(0, 20, device="late"), at_ms=10_000)
        assert states(driver.tick(at_ms=19_000)) == "fir"

    @pytest.mark.parametrize(
        ("among", "places"),
        [
            ("site", {("site", "n"): {"p1", "q1"}, ("site", "s"): {"p2"}}),
            ("tenant", {("tenant", "*"): {"p1", "q1", "p2"}}),
            ("type", {("type", "pump"): {"p1", "p2"}, ("type", ""): {"q1"}}),
        ],
    )
    def test_a_group_has_one_partition(self, among, places):
        chosen = settings_with({**ODD, "among": among, "over": 5.0})
        rows = [
            result(0, 1, device=device, site=site)
            for device, site in (("p1", "n"), ("p2", "s"), ("q1", "n"))
        ]
        made = forwarded(chosen, *rows)
        driver = Driver(lambda *_: None)
        found = {}
        for one in made:
            driver.output = [one]
            for row in driver.rows("alert.peers"):
                found.setdefault(one.partition, set()).add(row["device"])
        wanted = {}
        for group, devices in places.items():
            place = group_partition(group_key("t", *group), chosen.topics.partitions)
            wanted.setdefault(place, set()).update(devices)
        assert found == wanted

    def test_what_is_no_frame_of_results_goes_to_rejected(self):
        driver = Driver(make_peers(settings_with({**ODD, "over": 5.0})))
        (bad,) = driver.send(b"nonsense", at_ms=1, headers={"hw-among": b"site"})
        assert bad.topic == "rejected"
        (bad,) = driver.send(results_frame(result(0, 1)), at_ms=2, headers={"hw-among": b"x"})
        assert bad.topic == "rejected"
        assert b"expected one of" in bad.headers["hw-detail"]


one = st.tuples(
    st.integers(0, 3),
    st.sampled_from([0.0, 10.0, 20.0]),
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from(["n", "s"]),
    st.sampled_from([0, 0, 1, 2]),
)
events = st.lists(
    st.one_of(st.lists(one, min_size=1, max_size=5), st.just("time")), min_size=1, max_size=12
)


def fill(driver, chosen, events):
    for step, event in enumerate(events):
        at_ms = (step + 1) * 1_100
        if event == "time":
            driver.append(b"", at_ms=at_ms, headers={"hw-time": b"1"})
            continue
        rows = [result(i, v, device=d, site=s, rank=r, kafka_ms=5) for i, v, d, s, r in event]
        driver.append(results_frame(*rows), at_ms=at_ms, headers={"hw-among": b"site"})
    driver.append(b"", at_ms=10**6, headers={"hw-time": b"1"})


flow = st.tuples(
    st.integers(0, 3),
    st.sampled_from([0.0, 10.0, 20.0]),
    st.sampled_from(["in", "out", "aside"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["n", "s"]),
    st.sampled_from([0, 0, 1, 2]),
)
steps_taken = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(["", "checkpoint", "part", "crash"])), max_size=9
)
FLOWS = settings_with(
    {**LEAK, "over": 5.0},
    {**LEAK, "metrics": ["*"], "sites": ["n"], "under": 1.5, "by": "ratio"},
    {**LEAK, "with_metric": "in", "metrics": ["out"], "over": 5.0},
)


def flow_row(row):
    i, value, metric, device, site, rank = row
    return result(i, value, metric=metric, device=device, site=site, rank=rank, kafka_ms=5)


@settings(max_examples=150)
@given(st.lists(st.lists(flow, min_size=1, max_size=6), min_size=1, max_size=10), steps_taken)
def test_metrics_are_compared_alike_over_crashes_and_batches(frames, steps):
    calm, rough = Driver(make_window_alerting(FLOWS)), Driver(make_window_alerting(FLOWS))
    for step, rows in enumerate(frames):
        frame = results_frame(*(flow_row(row) for row in rows))
        for driver in (calm, rough):
            driver.append(frame, at_ms=(step + 1) * MINUTE_MS)
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
    sent = [{p.key: p.value for p in d.output if p.topic == "deliveries"} for d in (rough, calm)]
    assert sent[0] == sent[1]


@settings(max_examples=150)
@given(st.lists(st.tuples(flow, st.booleans()), min_size=1, max_size=20))
def test_what_fires_in_the_end_is_what_differs_in_the_newest_results(rows):
    """One window; a frame ends where a flag says so, and holds several ranks of one series."""
    driver = Driver(make_window_alerting(settings_with({**LEAK, "over": 5.0})))
    newest, frame = {}, []
    for step, ((_, *row), ends) in enumerate(rows):
        value, metric, device, _, rank = row
        frame.append(flow_row((0, *row)))
        if rank > newest.get((device, metric), (-1, 0))[0]:
            newest[device, metric] = (rank, value)
        if ends or step == len(rows) - 1:
            driver.send(results_frame(*frame), at_ms=(step + 1) * 1_000)
            frame = []
    both = {d for d, _ in newest if (d, "in") in newest and (d, "out") in newest}
    differ = {d for d in both if newest[d, "in"][1] - newest[d, "out"][1] >= 5.0}
    last = {a["device"]: a["state"] for a in map(orjson.loads, driver.values("alerts"))}
    assert {device for device, state in last.items() if state == "firing"} == differ


@settings(max_examples=150)
@given(
    events,
    steps_taken,
)
def test_crashes_and_batches_tell_the_same_messages_under_the_same_ids(events, steps):
    chosen = settings_with({**ODD, "over": 5.0}, {**ODD, "under": 0.5, "by": "ratio"})
    calm, rough = Driver(make_peers(chosen)), Driver(make_peers(chosen))
    fill(calm, chosen, events)
    fill(rough, chosen, events)
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
    sent = [{p.key: p.value for p in d.output if p.topic == "deliveries"} for d in (rough, calm)]
    assert sent[0] == sent[1]


@settings(max_examples=150)
@given(st.lists(one, min_size=1, max_size=30))
def test_what_fires_in_the_end_is_what_is_odd_among_the_newest_results(rows):
    """One window of one site: the alerts that stand are those of the last state of the group."""
    chosen = settings_with({**ODD, "over": 5.0})
    driver = Driver(make_peers(chosen))
    newest = {}
    for step, (_, value, device, _, rank) in enumerate(rows):
        frame = results_frame(result(0, value, device=device, rank=rank))
        driver.send(frame, at_ms=(step + 1) * 3_000, headers={"hw-among": b"site"})
        if rank > newest.get(device, (-1, 0))[0]:
            newest[device] = (rank, value)
    driver.tick(at_ms=10**6)
    values = {device: value for device, (_, value) in newest.items()}
    middle = median(values.values())
    odd = {d for d, v in values.items() if v - middle >= 5.0} if len(values) >= 3 else None
    last = {a["device"]: a["state"] for a in map(orjson.loads, driver.values("alerts"))}
    firing = {device for device, state in last.items() if state == "firing"}
    if odd is not None:
        assert firing == odd
    else:
        assert not firing
