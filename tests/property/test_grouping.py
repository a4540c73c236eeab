"""Groups of alerts: who is told what, when; the same under any batching and crash."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.agents.editions import Editions
from streams.agents.grouping import make_grouping
from streams.agents.telling import CONTROL_HEADER, Teller
from streams.settings import Inhibition, Maintenance, Match, Route, Rule, Settings, Webhook
from streams.testing import Driver

S = 1_000
WAIT, INTERVAL, REPEAT = 30 * S, 300 * S, 3_600 * S


def settings_with(*, inhibitions=(), maintenance=(), listed=20, grouped=1_000, **route):
    given = {"name": "r", "group_by": ["site"], "repeat_interval_ms": REPEAT, **route}
    chosen = Settings(
        rules=[Rule(name=name) for name in ("hot", "down")],
        webhooks=[
            Webhook(name=name, url="https://example.org/", secret_file="none")
            for name in ("hook", "boss")
        ],
        routes=[Route(**{"endpoints": ["hook"], **given})],
        inhibitions=list(inhibitions),
        maintenance=list(maintenance),
    )
    limits = {"max_listed": listed, "max_grouped": grouped}
    return chosen.model_copy(update={"alerts": chosen.alerts.model_copy(update=limits)})


def alert(name, state="firing", *, site="north", rule="hot", turn=0):
    return {
        "id": f"alt_{name}",
        "rule": rule,
        "severity": "warning",
        "tenant": "t",
        "site": site,
        "device": name,
        "metric": "m",
        "state": state,
        "why": f"{name} {state}",
        **({"turn": turn} if turn else {}),
    }


class Scene:
    """A group logic; times in seconds."""

    def __init__(self, **more):
        self.driver = Driver(make_grouping(settings_with(**more)))

    def at(self, second, *alerts, control=None):
        made = self.driver.tick(at_ms=second * S)
        for one in alerts:
            value = orjson.dumps({"route": "r", "alert": one})
            made += self.driver.send(value, at_ms=second * S)
        if control:
            headers = {CONTROL_HEADER: b"1"}
            made += self.driver.send(orjson.dumps(control), at_ms=second * S, headers=headers)
        return [said(p) for p in made]


def said(produce):
    entry = orjson.loads(produce.value)
    if "group" not in entry:
        what = f"{entry['alert']['device']} {entry['alert']['state']}"
    else:
        what = f"{entry['group']['reason']} {entry['group']['count']}"
    return what if entry["endpoint"] == "hook" else f"{entry['endpoint']}: {what}"


def silence(identity, devices, starts, ends):
    return {
        "kind": "silence",
        "id": identity,
        "globs": {"device": devices},
        "starts_ms": starts * S,
        "ends_ms": ends * S,
        "author": "ada",
    }


def test_the_first_goes_at_once_and_the_rest_together():
    scene = Scene()
    assert scene.at(1, alert("a")) == ["a firing"]
    assert scene.at(2, alert("b"), alert("c")) == []
    assert scene.at(30) == []
    assert scene.at(31) == ["changed 2"]
    assert scene.at(40, alert("d"), alert("a", "resolved")) == []
    assert scene.at(330) == []
    assert scene.at(331) == ["changed 2"]
    assert scene.at(332 + 300, alert("e")) == ["e firing"]


def test_an_endpoint_that_edges_tell_themselves_hears_of_nothing_twice():
    scene = Scene(listed=1, endpoints=["hook", "boss"])

    def told(name, **more):
        return alert(name) | {"told_by_edge": ["hook"]} | more

    assert scene.at(1, told("a")) == ["boss: a firing"]
    assert scene.at(2, told("b"), told("c")) == []
    assert scene.at(31) == ["boss: changed 2"]
    # One that nobody has told it of, beyond those that are listed.
    assert scene.at(40, told("d"), alert("e")) == []
    assert scene.at(331) == ["changed 2", "boss: changed 2"]


def test_groups_do_not_wait_for_each_other():
    scene = Scene()
    assert scene.at(1, alert("a"), alert("b", site="south")) == ["a firing", "b firing"]


def test_what_came_and_went_before_it_was_told_is_not_told():
    scene = Scene()
    scene.at(1, alert("a"))
    assert scene.at(2, alert("b"), alert("b", "resolved"), alert("c")) == []
    assert scene.at(31) == ["c firing"]


def test_a_retraction_is_told_after_a_resolution():
    scene = Scene()
    scene.at(1, alert("a"))
    assert scene.at(31, alert("a", "resolved")) == ["a resolved"]
    assert scene.at(400, alert("a", "retracted")) == ["a retracted"]
    assert scene.at(800, alert("a", turn=1)) == ["a firing"]


def test_what_a_crash_upstream_repeats_is_told_once():
    scene = Scene()
    story = [alert("a"), alert("a", "resolved")]
    scene.at(1, *story)
    assert scene.at(31) == ["a resolved"]
    assert scene.at(900, *story) == []


def test_what_fires_on_is_repeated_until_somebody_acknowledges():
    scene = Scene()
    scene.at(0, alert("a"))
    assert scene.at(3_599) == []
    assert scene.at(3_600) == ["repeated 1"]
    assert scene.at(7_200) == ["repeated 1"]
    scene.at(7_300, control={"kind": "acknowledge", "alert": "alt_a", "author": "ada"})
    assert scene.at(20_000) == []
    assert scene.at(20_001, alert("a", "resolved")) == ["a resolved"]


def test_what_nobody_acknowledges_is_escalated_and_its_end_too():
    scene = Scene(escalate_after_ms=600 * S, escalate_to=["boss"])
    scene.at(0, alert("a"), alert("b"))
    scene.at(30)
    scene.at(40, control={"kind": "acknowledge", "alert": "alt_b", "author": "ada"})
    assert scene.at(600) == ["boss: escalated 1"]
    assert scene.at(1_300) == []
    assert scene.at(1_301, alert("a", "resolved")) == ["a resolved", "boss: a resolved"]


def test_a_silence_keeps_back_and_its_end_tells_what_still_fires():
    scene = Scene()
    scene.at(0, control=silence("s", ["a*"], 0, 1_000))
    assert scene.at(1, alert("a1"), alert("a2"), alert("b")) == ["b firing"]
    assert scene.at(500, alert("a2", "resolved")) == []
    assert scene.at(1_000) == ["a1 firing"]
    assert scene.at(1_400, alert("a1", "resolved")) == ["a1 resolved"]


@pytest.mark.parametrize("jump", [-3_000, 10 * 365 * 86_400])
def test_a_broker_whose_clock_jumps_tells_nothing_twice(jump):
    scene = Scene()
    assert scene.at(5_000, alert("a")) == ["a firing"]
    scene.at(5_000 + jump)
    assert scene.at(5_001, alert("a")) == []
    scene.at(5_002 + REPEAT // S)
    ids = [p.key for p in scene.driver.output]
    assert len(set(ids)) == len(ids) == 2  # Told, and repeated.


@pytest.mark.parametrize("off_s", [-18_000, 0, 18_000])
def test_a_silence_counts_from_when_it_is_heard_whatever_the_clock_of_its_author(off_s):
    scene = Scene()
    said_s = 20_000
    control = silence("s", ["a"], said_s + off_s, said_s + off_s + 1_000)
    scene.at(said_s, control=control | {"for_ms": 1_000 * S})
    assert scene.at(said_s + 1, alert("a")) == []
    scene.driver.checkpoint()
    scene.driver.crash()
    assert scene.at(said_s + 999) == []
    assert scene.at(said_s + 1_000) == ["a firing"]


def test_a_silence_ends_early_when_it_is_taken_back():
    scene = Scene()
    scene.at(0, control=silence("s", ["a"], 0, 1_000))
    assert scene.at(1, alert("a")) == []
    assert scene.at(9, control={"kind": "unsilence", "id": "s"}) == ["a firing"]


def test_a_silence_that_begins_later_stops_repetitions():
    scene = Scene()
    scene.at(0, alert("a"), control=silence("s", ["a"], 3_000, 9_000))
    assert scene.at(3_600) == []
    assert scene.at(7_200) == []
    assert scene.at(9_000) == []
    assert scene.at(9_100, alert("a", "resolved")) == ["a resolved"]


def test_a_site_that_is_down_inhibits_its_devices():
    one = Inhibition(
        name="i", source=Match(rules=["down"]), target=Match(rules=["hot"]), equal=["site"]
    )
    scene = Scene(inhibitions=[one])
    gateway = alert("gw", rule="down")
    scene.at(0, control={"kind": "source", "alert": gateway})
    assert scene.at(1, alert("a"), alert("b", site="south")) == ["b firing"]
    gone = {"kind": "source", "alert": {**gateway, "state": "resolved"}}
    assert scene.at(60, control=gone) == ["a firing"]


def test_maintenance_is_a_time_of_the_week():
    # 1970-01-01 was a Thursday; Berlin was an hour ahead of UTC.
    night = Maintenance(name="m", days=["thu"], at="02:00", minutes=60, zone="Europe/Berlin")
    scene = Scene(maintenance=[night])
    assert scene.at(3_599, alert("a")) == ["a firing"]
    assert scene.at(3_600 + 400, alert("b")) == []
    assert scene.at(7_199) == []
    assert scene.at(7_200) == ["b firing"]
    assert scene.at(7_199 + 3_600) == []
    assert scene.at(7_200 + 3_600) == ["repeated 2"]


def test_an_alert_resolved_by_hand_is_over():
    scene = Scene()
    scene.at(0, alert("a"))
    assert scene.at(40, control={"kind": "resolve", "alert": "alt_a", "author": "ada"}) == [
        "a resolved"
    ]
    assert scene.at(9_000, alert("a", "resolved")) == []


def test_a_storm_is_one_message_with_a_count_and_a_sample():
    scene = Scene(listed=3, grouped=20_000)
    names = [f"d{i}" for i in range(10_000)]
    made = scene.at(0, *(alert(name) for name in names))
    assert made == ["d0 firing"]
    assert scene.at(30) == ["changed 9999"]
    group = orjson.loads(scene.driver.output[-1].value)["group"]
    assert [a["device"] for a in group["alerts"]] == ["d1", "d2", "d3"]
    assert group["why"] == "9,999 alerts of t, north changed, 10,000 fire: d1 firing"


def test_beyond_the_limit_alerts_are_told_one_by_one():
    scene = Scene(grouped=1)
    assert scene.at(0, alert("a"), alert("b"), alert("c")) == ["a firing", "b firing", "c firing"]


@pytest.mark.parametrize(
    "value",
    [
        b"nonsense",
        b"{}",
        b'{"route": "r", "alert": {"id": "x"}}',
        b'{"route": "r", "alert": "x"}',
        b"[]",
    ],
)
def test_a_broken_record_goes_to_rejected_and_the_next_one_counts(value):
    driver = Driver(make_grouping(settings_with()))
    made = driver.send(value, at_ms=1)
    assert [p.topic for p in made] == ["rejected"]
    made = driver.send(orjson.dumps({"route": "r", "alert": alert("a")}), at_ms=2)
    assert [said(p) for p in made] == ["a firing"]


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "whisper"},
        {"starts_ms": "now"},
        {"for_ms": 1.5},
        {"globs": {"colour": ["red"]}},
        {"globs": {"device": [7]}},
        {"globs": ["a*"]},
    ],
)
def test_a_broken_silence_goes_to_rejected_and_alerts_are_told(damage):
    driver = Driver(make_grouping(settings_with()))
    control = orjson.dumps(silence("s", ["a*"], 0, 1_000) | damage)
    made = driver.send(control, at_ms=1, headers={CONTROL_HEADER: b"1"})
    assert [p.topic for p in made] == ["rejected"]
    made = driver.send(orjson.dumps({"route": "r", "alert": alert("a")}), at_ms=2)
    assert [said(p) for p in made] == ["a firing"]


def test_an_alert_without_a_route_is_told_as_ever():
    chosen = settings_with(sites=["south"])
    teller = Teller(chosen, 0, Editions(chosen))
    full = {**alert("a"), "sample": {}}
    assert [p.topic for p in teller.tell(full, Editions(chosen).newest())] == [
        "alerts",
        "deliveries",
        "deliveries",
    ]
    full["site"] = "south"
    assert [p.topic for p in teller.tell(full, Editions(chosen).newest())] == [
        "alerts",
        "alert.groups",
    ]


names = st.sampled_from("abcd")
changes = st.builds(
    alert,
    names,
    st.sampled_from(["firing", "firing", "resolved", "retracted"]),
    site=st.sampled_from(["north", "south"]),
    turn=st.sampled_from([0, 0, 1]),
)
controls = st.one_of(
    st.builds(
        silence,
        st.sampled_from("xy"),
        st.lists(names, min_size=1, max_size=2),
        st.integers(0, 900),
        st.integers(0, 2_000),
    ),
    st.builds(lambda i: {"kind": "unsilence", "id": i}, st.sampled_from("xy")),
    st.builds(
        lambda kind, name: {"kind": kind, "alert": f"alt_{name}"},
        st.sampled_from(["acknowledge", "resolve"]),
        names,
    ),
)
steps = st.lists(
    st.tuples(st.integers(0, 400), st.one_of(changes, changes, controls, st.none())),
    min_size=1,
    max_size=25,
)


def fill(driver, steps):
    second = 0
    for pause, step in steps:
        second += pause
        if step is None:
            driver.append(b"", at_ms=second * S, headers={"hw-time": b"1"})
        elif "kind" in step:
            headers = {CONTROL_HEADER: b"1"}
            driver.append(orjson.dumps(step), at_ms=second * S, headers=headers)
        else:
            driver.append(orjson.dumps({"route": "r", "alert": step}), at_ms=second * S)


ESCALATING = {"escalate_after_ms": 500 * S, "escalate_to": ["boss"]}


@settings(max_examples=120)
@given(
    steps,
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(["", "checkpoint", "part", "crash"])),
        max_size=9,
    ),
)
def test_crashes_and_batches_make_the_same_messages_under_the_same_ids(steps, happenings):
    factory = make_grouping(settings_with(**ESCALATING))
    calm, rough = Driver(factory), Driver(factory)
    fill(calm, steps)
    fill(rough, steps)
    calm.run()
    for size, happening in happenings:
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
    return {p.key: p.value for p in driver.output}


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 400), changes), min_size=1, max_size=30))
def test_without_mutes_each_alert_that_fires_in_the_end_was_told_and_nothing_twice(steps):
    driver = Driver(make_grouping(settings_with(listed=100, repeat_interval_ms=10**9)))
    fill(driver, steps)
    driver.run()
    driver.tick(at_ms=10**8)
    told = []
    for produce in driver.output:
        entry = orjson.loads(produce.value)
        listed = entry["group"]["alerts"] if "group" in entry else [entry["alert"]]
        told += [(a["site"], a["id"], a["state"], a.get("turn", 0)) for a in listed]
    assert len(told) == len(set(told))
    last = {(site, identity): state for site, identity, state, _ in told}
    newest = {}
    rank = {"firing": 0, "resolved": 1, "retracted": 2}
    for _, a in steps:
        place, state = (a["site"], a["id"]), (a.get("turn", 0), rank[a["state"]])
        newest[place] = max(newest.get(place, state), state)
    fires = {place for place, state in newest.items() if state[1] == 0}
    assert {place for place, state in last.items() if state == "firing"} == fires
