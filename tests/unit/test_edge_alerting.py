"""Alerts of edges: told as all alerts are, once each, and refused where they cannot be."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from edge.local.evaluation import Evaluation
from streams.agents.edge_alerting import make_edge_alerting
from streams.settings import Alerts, Rule, Settings, Webhook
from streams.testing import Driver
from streams.topics import ALERTS, DELIVERIES, REJECTED
from tests.property.test_local_work import SETTINGS, readings

SITE = {"hw-tenant": b"default", "hw-site": b"north"}


def settings(tmp_path, **alerts: Any) -> Settings:
    secret = tmp_path / "secret"
    secret.write_text("nobody reads it")
    hook = Webhook(name="ops", url="https://ops.example/", secret_file=secret)
    return Settings(webhooks=[hook], alerts=Alerts(**alerts))


def an_alert(**more: Any) -> dict[str, Any]:
    """What an edge really tells."""
    edge = Evaluation(SETTINGS)
    hot = [("d1", "p", n * 1_000, 70.0) for n in range(4)]
    found = edge.take(readings(hot, 100_000), 100_000).alerts
    (alert,) = [one for one in found if one["rule"] == "hot"]
    return orjson.loads(orjson.dumps(alert | more))


def states(driver: Driver) -> list[tuple[str, str]]:
    return [(row["id"], row["state"]) for row in driver.rows(ALERTS)]


def test_a_state_of_an_alert_is_told_once_however_often_it_comes(tmp_path) -> None:
    driver = Driver(make_edge_alerting(settings(tmp_path)))
    fires = an_alert()
    over = an_alert(state="resolved", resolved_ms=9_000)
    driver.send(orjson.dumps([fires]), at_ms=1, headers=SITE)
    driver.send(orjson.dumps([fires, over]), at_ms=2, headers=SITE)
    driver.checkpoint()
    driver.crash()
    driver.send(orjson.dumps([fires, over]), at_ms=3, headers=SITE)
    assert states(driver) == [(fires["id"], "firing"), (fires["id"], "resolved")]
    assert driver.rows(ALERTS)[0] == fires
    assert [row["alert"]["state"] for row in driver.rows(DELIVERIES)] == ["firing", "resolved"]
    assert driver.rows(REJECTED) == []


def test_an_endpoint_that_the_edge_has_told_is_not_told_again(tmp_path) -> None:
    driver = Driver(make_edge_alerting(settings(tmp_path)))
    driver.send(orjson.dumps(an_alert(told_by_edge=["ops"])), at_ms=1, headers=SITE)
    assert len(states(driver)) == 1
    assert driver.rows(DELIVERIES) == []
    # Where the names differ, the endpoint is another one.
    over = an_alert(told_by_edge=["site"], state="resolved", resolved_ms=9_000)
    driver.send(orjson.dumps(over), at_ms=2, headers=SITE)
    (message,) = driver.rows(DELIVERIES)
    assert (message["endpoint"], message["alert"]["state"]) == ("ops", "resolved")


def test_a_crash_before_the_checkpoint_tells_the_same_again(tmp_path) -> None:
    driver = Driver(make_edge_alerting(settings(tmp_path)))
    made = driver.send(orjson.dumps(an_alert()), at_ms=1, headers=SITE)
    driver.crash()
    assert driver.run() == made


def test_the_oldest_alerts_are_forgotten(tmp_path) -> None:
    driver = Driver(make_edge_alerting(settings(tmp_path, max_edge_alerts=2)))
    several = [an_alert(id=f"alt_{n:024x}") for n in range(3)]
    driver.send(orjson.dumps(several), at_ms=1, headers=SITE)
    driver.send(orjson.dumps(several[1:]), at_ms=2, headers=SITE)
    assert len(states(driver)) == 3
    driver.send(orjson.dumps(several[:1]), at_ms=3, headers=SITE)
    assert len(states(driver)) == 4


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([7], "found int; expected an object"),
        ({"site": "south"}, "site: found 'south'; expected 'north'"),
        ({"tenant": None}, "tenant: found None; expected 'default'"),
        ({"id": "alt_1"}, "id: found 'alt_1'; expected alt_..."),
        ({"state": "on"}, "expected firing or resolved or retracted"),
        ({"severity": 1}, "expected info or warning or critical"),
        ({"why": "x" * 2_000}, "expected a text"),
        ({"told_by_edge": "ops"}, "told_by_edge: found 'ops'; expected names of endpoints"),
        ({"told_by_edge": [1]}, "expected names of endpoints"),
        ({"fired_ms": None}, "fired_ms: found None; expected milliseconds"),
        ({"resolved_ms": "now"}, "expected ms or null"),
        ({"sample": []}, "sample: found []; expected an object"),
        ({"sample": {"t_ms": 1}}, "received_ms: found nothing; expected milliseconds"),
    ],
)
def test_what_is_no_alert_of_the_site_is_refused_and_stops_nothing(tmp_path, value, says) -> None:
    driver = Driver(make_edge_alerting(settings(tmp_path)))
    wrong = value if type(value) is list else an_alert(**value)
    driver.send(orjson.dumps(wrong), at_ms=1, headers=SITE)
    driver.send(orjson.dumps(an_alert()), at_ms=2, headers=SITE)
    (refused,) = driver.rows(REJECTED)
    assert says in refused["detail"]
    assert len(states(driver)) == 1


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (orjson.dumps(an_alert())[:-1] + b',"more":' + b"[" * 300 + b"]" * 300 + b"}", SITE),
        (b"[" * 1_000 + b"1234567890123456789" + b"]" * 1_000, SITE),
        (orjson.dumps(an_alert()), SITE | {"hw-site": b"\xff"}),
    ],
    ids=["too deep to be told", "too deep to be read", "a site that is no text"],
)
def test_a_poisonous_record_is_refused_and_stops_nothing(tmp_path, value, headers) -> None:
    driver = Driver(make_edge_alerting(settings(tmp_path)))
    driver.send(value, at_ms=1, headers=headers)
    driver.send(orjson.dumps(an_alert()), at_ms=2, headers=SITE)
    assert len(driver.rows(REJECTED)) == 1
    assert len(states(driver)) == 1


def test_the_rules_of_edges_are_not_judged_in_the_cloud() -> None:
    from streams.agents.rule_definitions import anomaly_rules, window_rules

    cloud = [rule.name for rule in (*anomaly_rules(SETTINGS), *window_rules(SETTINGS))]
    edge = [
        rule.name
        for rule in (
            *anomaly_rules(SETTINGS, at_edge=True),
            *window_rules(SETTINGS, at_edge=True),
        )
    ]
    assert cloud == ["now", "cloud-only"]
    assert edge == ["strange", "hot", "now", "both-of", "quiet"]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"commands": [{"name": "fan"}]}, 'expected where = "edge" or "both"'),
        ({"where": "edge", "commands": [{"name": "a/b"}]}, "String should match pattern"),
        (
            {"where": "edge", "commands": [{"name": "fan", "topic": "set/+"}]},
            "expected one topic to publish to",
        ),
        (
            {"where": "edge", "commands": [{"name": "fan", "device": "{line}"}]},
            "{line} is not known; there are tenant, site, device",
        ),
        (
            {"where": "edge", "alerts": False, "commands": [{"name": "fan"}]},
            "a rule with alerts = false gives no commands",
        ),
        (
            {"where": "edge", "kind": "compare", "window": "1m", "over": 1.0, "among": "site"},
            "compares among devices is judged in the cloud",
        ),
    ],
)
def test_a_rule_that_no_edge_can_follow_is_refused(rule, says) -> None:
    with pytest.raises(ValueError, match=r".*") as error:
        Rule(**{"name": "r", **rule})
    assert says in str(error.value)


def test_a_composition_is_judged_where_its_members_are() -> None:
    member = {"kind": "threshold", "window": "1m", "over": 1.0}
    rules = [Rule(name="a", where="both", **member), Rule(name="b", **member)]
    whole = {"name": "all", "kind": "all", "of": ["a", "b"]}
    Settings(rules=[*rules, Rule(**whole)])
    with pytest.raises(ValueError, match="'b' is judged at 'cloud', 'all' at 'edge'"):
        Settings(rules=[*rules, Rule(**whole, where="edge")])
