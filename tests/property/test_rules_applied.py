"""Rules and routes that change at a marker: nobody is left without an end, whatever crashes."""

from __future__ import annotations

from functools import partial

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.agents.alerting import make_alerting
from streams.agents.grouping import make_grouping
from streams.agents.peers import make_peers
from streams.agents.window_alerting import make_window_alerting
from streams.settings import DeviceTag, Inhibition, Match, Route, Rule, Settings, Topics, Webhook
from streams.settings import Window as WindowSettings
from streams.settings.applied import document_of, following
from streams.testing import Driver
from tests.property.test_alert_states import frame as scores
from tests.property.test_window_alerts import states, told
from tests.windows import MINUTE_MS, result, results_frame

HOT = {"name": "hot", "kind": "threshold", "window": "1m", "over": 90.0, "resolve_ms": 0}
WARM = {**HOT, "name": "warm", "over": 50.0}


def of(*rules, **more):
    return Settings(
        topics=Topics(shards=2, partitions=2),
        windows=[WindowSettings(name="1m", size_ms=MINUTE_MS)],
        rules=[Rule(**rule) for rule in rules],
        webhooks=[
            Webhook(name=name, url="https://example.org/", secret_file="none")
            for name in ("one", "two")
        ],
        **more,
    )


class Scene:
    """A logic that is started with settings; later ones are applied to it."""

    def __init__(self, make, first):
        self.first = document_of(first)
        self.documents = {self.first.id: self.first}
        self.driver = Driver(partial(make, first, self.documents)())

    def apply(self, after, at_ms):
        newest = max(self.documents.values(), key=lambda one: one.revision)
        document = following(after, newest)
        self.documents[document.id] = document
        headers = {"hw-time": b"1", "hw-config": document.id.encode()}
        return self.driver.send(None, at_ms=at_ms, headers=headers)


def hot(i, value=95.0, **more):
    return results_frame(result(i, value, **more))


def test_an_alert_whose_rule_is_taken_away_is_resolved_and_says_so():
    scene = Scene(make_window_alerting, of(HOT, WARM))
    scene.driver.send(hot(0), at_ms=1)
    (gone,) = told(scene.apply(of(WARM), at_ms=5_000))
    assert (gone["rule"], gone["state"], gone["resolved_ms"]) == ("hot", "resolved", 5_000)
    assert gone["why"] == "the rule hot is not in the settings any more"
    assert gone["severity"] == "warning"
    (warm,) = told(scene.driver.send(hot(1, 20.0), at_ms=6_000))
    assert (warm["rule"], warm["state"]) == ("warm", "resolved")
    assert states(scene.driver.send(hot(2), at_ms=7_000)) == "fir"


def test_a_rule_that_is_added_judges_from_the_next_window_on_and_a_changed_one_goes_on():
    scene = Scene(make_window_alerting, of(HOT))
    (fired,) = told(scene.driver.send(hot(0), at_ms=1))
    assert states(scene.apply(of({**HOT, "over": 99.0}, WARM), at_ms=2)) == "-"
    rows = told(scene.driver.send(hot(1), at_ms=3))
    assert [(a["rule"], a["state"]) for a in rows] == [("hot", "resolved"), ("warm", "firing")]
    assert rows[0]["id"] == fired["id"]


@pytest.mark.parametrize(
    "after",
    [
        of({**HOT, "devices": ["other"]}),
        of({**HOT, "tags": ["t"]}, tags=[DeviceTag(name="t", devices=["x"])]),
        of({**HOT, "alerts": False}),
    ],
)
def test_an_alert_that_its_rule_does_not_look_at_any_more_is_resolved(after):
    scene = Scene(make_window_alerting, of(HOT))
    scene.driver.send(hot(0), at_ms=1)
    (gone,) = told(scene.apply(after, at_ms=2))
    assert gone["why"] == "the rule hot does not look at it any more"
    assert states(scene.driver.send(hot(1), at_ms=3)) == "-"


def test_silences_compositions_and_comparisons_that_are_gone_resolve_too():
    gone = {"name": "gone", "kind": "absence", "window": "1m", "silent_ms": 200_000}
    both = {"name": "both", "kind": "any", "of": ["hot", "warm"]}
    scene = Scene(make_window_alerting, of({**HOT, "alerts": False}, WARM, both, gone))
    scene.driver.send(hot(0, kafka_ms=1_000), at_ms=1_000)
    assert states(scene.driver.tick(at_ms=300_000)) == "fir"
    rows = told(scene.apply(of({**HOT, "alerts": False}, WARM), at_ms=400_000))
    assert {(a["rule"], a["state"]) for a in rows} == {("both", "resolved"), ("gone", "resolved")}
    odd = {"name": "odd", "kind": "compare", "window": "1m", "among": "site", "over": 5.0}
    scene = Scene(make_peers, of(odd))
    rows = [result(0, value, device=f"d{value}") for value in (1, 2, 3, 30)]
    scene.driver.send(results_frame(*rows), at_ms=1, headers={"hw-among": b"site"})
    assert states(scene.driver.tick(at_ms=10_000)) == "fir"
    assert states(scene.apply(of(HOT), at_ms=20_000)) == "res"


def test_a_rule_on_scores_that_is_gone_resolves_and_one_that_is_added_begins():
    scene = Scene(make_alerting, of({"name": "strange"}))
    scene.driver.send(scores([("d", 5, 9.0)]), at_ms=1)
    (gone,) = told(scene.apply(of({"name": "odd", "score_over": 3.0}), at_ms=2))
    assert (gone["state"], gone["why"]) == (
        "resolved",
        "the rule strange is not in the settings any more",
    )
    assert states(scene.driver.send(scores([("d", 6, 4.0)]), at_ms=3)) == "fir"


@pytest.mark.parametrize(
    ("make", "value"), [(make_window_alerting, hot(0)), (make_alerting, scores([("d", 5, 9.0)]))]
)
def test_a_file_that_lost_a_rule_between_two_starts_resolves_its_alerts_too(make, value):
    driver = Driver(make(of(HOT, {"name": "strange"})))
    assert states(driver.send(value, at_ms=1)) == "fir"
    driver.checkpoint()
    driver._factory = make(of(WARM))
    driver.crash()
    assert driver.logic.wants_time()
    assert states(driver.tick(at_ms=9)) == "res"
    assert not driver.logic.wants_time()


def routed(*endpoints, name="r", **more):
    return Route(name=name, endpoints=list(endpoints), group_wait_ms=1, group_interval_ms=1, **more)


def test_an_alert_goes_on_by_the_route_that_told_it():
    first = of(HOT, routes=[routed("one")])
    rules, groups = Scene(make_window_alerting, first), Scene(make_grouping, first)

    def hand_on(made, at_ms):
        out = []
        for one in [p for p in made if p.topic == "alert.groups"]:
            out += groups.driver.send(one.value, at_ms=at_ms, headers=dict(one.headers))
        return [orjson.loads(p.value)["endpoint"] for p in out]

    assert hand_on(rules.driver.send(hot(0), at_ms=1), 10) == ["one"]
    for after in (of(HOT, routes=[routed("two", name="other")]), of(HOT)):
        groups.apply(after, 15)
        rules.apply(after, 16)
    assert hand_on(rules.driver.send(hot(1, device="e"), at_ms=17), 20) == []  # told directly
    assert hand_on(rules.driver.send(hot(1, 20.0), at_ms=18), 30) == ["one"]
    assert hand_on(rules.driver.send(hot(2, device="d"), at_ms=19), 40) == []


def test_a_route_of_the_same_name_has_other_endpoints_at_once_and_an_inhibition_begins():
    first = of(HOT, WARM, routes=[routed("one", group_by=["device"], repeat_interval_ms=50)])
    scene = Scene(make_grouping, first)

    def alert(rule, device):
        names = {"tenant": "t", "site": "s", "device": device, "metric": "m", "severity": "warning"}
        return {**names, "id": f"alt_{rule}{device}", "rule": rule, "state": "firing", "why": "."}

    def send(given, at_ms, **headers):
        made = scene.driver.send(orjson.dumps(given), at_ms=at_ms, headers=headers)
        return [orjson.loads(p.value)["endpoint"] for p in made]

    assert send({"route": "r", "alert": alert("hot", "a")}, 1) == ["one"]
    by_site = Inhibition(
        name="i", source=Match(rules=["hot"]), target=Match(rules=["warm"]), equal=["device"]
    )
    after = of(
        HOT,
        WARM,
        routes=[routed("two", group_by=["device"], repeat_interval_ms=50)],
        inhibitions=[by_site],
    )
    scene.apply(after, 2)
    (document,) = [one for one in scene.documents.values() if one.revision == 1]
    source = {"kind": "source", "alert": alert("hot", "b")}
    assert send(source, 3, **{"hw-control": b"1"}) == []
    given = {"route": "r", "config": document.id, "alert": alert("warm", "b")}
    assert send(given, 4) == []
    repeated = scene.driver.tick(at_ms=100)
    assert [orjson.loads(p.value)["endpoint"] for p in repeated] == ["two"]


one = st.builds(
    result,
    st.integers(0, 5),
    st.sampled_from([20.0, 60.0, 95.0]),
    rank=st.sampled_from([0, 0, 1, 2]),
    device=st.sampled_from("abcd"),
)
events = st.lists(
    st.one_of(st.lists(one, min_size=1, max_size=4), st.sampled_from(["time", "apply"])),
    min_size=1,
    max_size=14,
)
CHOICES = [
    of(HOT, WARM),
    of({**WARM, "devices": ["[ab]"]}, {**HOT, "hold_ms": MINUTE_MS}),
    of(HOT, {"name": "any", "kind": "any", "of": ["hot", "hot"], "within_ms": MINUTE_MS}),
    of({**WARM, "over": 80.0}),
]


@settings(max_examples=150)
@given(
    events,
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["", "checkpoint", "part", "crash"])),
        max_size=9,
    ),
)
def test_crashes_and_batches_around_a_change_tell_the_same_messages(events, steps):
    first = document_of(CHOICES[0])
    calm_documents, rough_documents = {first.id: first}, {first.id: first}
    calm = Driver(make_window_alerting(CHOICES[0], calm_documents))
    rough = Driver(make_window_alerting(CHOICES[0], rough_documents))
    newest, applied = first, 0
    for step, event in enumerate(events):
        at_ms = (step + 1) * MINUTE_MS
        if event == "apply":
            applied += 1
            newest = following(CHOICES[applied % len(CHOICES)], newest)
            for known in (calm_documents, rough_documents):
                known[newest.id] = newest
        for driver in (calm, rough):
            if isinstance(event, list):
                rows = [{**row, "kafka_ms": at_ms - 7} for row in event]
                driver.append(results_frame(*rows), at_ms=at_ms)
            else:
                marker = {"hw-config": newest.id.encode()} if event == "apply" else {}
                driver.append(b"", at_ms=at_ms, headers={"hw-time": b"1", **marker})
    # Both began with the first document: those applied came while they ran.
    calm.run()
    for size, happening in steps:
        rough.step(size)
        if happening == "checkpoint":
            rough.checkpoint()
        elif happening == "part":
            rough.checkpoint(keys=1)
        elif happening == "crash" and rough.stored:
            rough.crash()
    rough.run()
    sent = [{p.key: p.value for p in d.output if p.topic == "deliveries"} for d in (rough, calm)]
    assert sent[0] == sent[1]
    last = {alert["id"]: alert for alert in told(calm.output)}
    rules = {rule["name"] for rule in newest.sections["rules"]}
    assert all(a["rule"] in rules for a in last.values() if a["state"] == "firing")
