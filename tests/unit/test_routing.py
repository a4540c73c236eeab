"""Routes, inhibitions and maintenance in the settings; the calendar of maintenance."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import orjson
import pytest

from streams.agents.editions import Edition
from streams.agents.routing import Times, mutes_of, routes_of
from streams.agents.telling import Outbox
from streams.errors import SettingsError
from streams.settings import Maintenance, Settings, Webhook, load
from tests.documents import titled

HOOK = (
    '[[webhooks]]\nname = "hook"\nurl = "https://example.org/"\nsecret_file = "s"\n'
    '[[rules]]\nname = "down"\n[[rules]]\nname = "hot"\n'
)
"""Eight lines."""


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        path = tmp_path / "headwater.toml"
        path.write_text(text)
        return load(path)

    return write


INHIBITION = (
    '[[inhibitions]]\nname = "{}"\nsource = {{ rules = ["{}"] }}\ntarget = {{ rules = ["{}"] }}\n'
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '[[routes]]\nname = "r"\nendpoints = ["pager"]\n',
            "toml:11: routes.0.endpoints: there is no webhook or channel 'pager', expected",
        ),
        (
            '[[routes]]\nname = "r"\nescalate_after_ms = 5\n',
            "toml:9: routes.0: escalate_after_ms and escalate_to need each other",
        ),
        (
            '[[routes]]\nname = "r"\ngroup_interval_ms = 5\ngroup_wait_ms = 6\n',
            "toml:12: routes.0.group_wait_ms: expected at most group_interval_ms",
        ),
        ('[[routes]]\nname = "r"\ngroup_by = ["type"]\n', "toml:11: routes.0.group_by.0: Input"),
        (INHIBITION.format("i", "down", "hot"), "toml:9: inhibitions.0: inhibitions need routes"),
        (
            '[[routes]]\nname = "r"\n'
            + INHIBITION.format("i", "down", "hot")
            + INHIBITION.format("j", "h*", "down"),
            "toml:15: inhibitions.1: 'j' makes rules inhibit each other in a circle: ",
        ),
        (
            '[[routes]]\nname = "r"\n' + INHIBITION.format("i", "*", "hot"),
            "inhibit each other in a circle: hot → hot",
        ),
        (
            '[[routes]]\nname = "r"\n[[maintenance]]\nname = "m"\ndays = ["mon"]\nat = "25:00"\n'
            "minutes = 5\n",
            "toml:14: maintenance.0.at: String should match",
        ),
    ],
)
def test_an_offence_is_named_with_its_line(loaded, text, says):
    with pytest.raises(SettingsError) as error:
        loaded(HOOK + text)
    assert says in str(error.value)


def test_severities_keep_source_and_target_apart(loaded):
    loaded(
        HOOK + '[[routes]]\nname = "r"\n[[inhibitions]]\nname = "i"\n'
        'source = { severities = ["critical"] }\ntarget = { severities = ["warning"] }\n'
    )


def test_the_routes_of_the_documentation_can_be_used(loaded):
    settings = loaded(titled("routing.md", "routes.toml"))
    assert [route.name for route in routes_of(Edition("", 0, settings))] == ["urgent", "rest"]
    assert mutes_of(settings).muted_by(dict.fromkeys(("rule", "severity"), "x") | OTHER, 0) is None


OTHER = {"tenant": "t", "site": "s", "device": "d", "metric": "m"}


def at_ms(zone, *when):
    return round(datetime(*when, tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def test_maintenance_goes_by_the_clock_on_the_wall_also_when_it_is_put_forward():
    zone = "Europe/Berlin"
    times = Times(Maintenance(name="m", days=["sat"], at="23:30", minutes=120, zone=zone))
    begins, ends = at_ms(zone, 2026, 3, 28, 23, 30), at_ms(zone, 2026, 3, 29, 1, 30)
    assert [times.is_on(t) for t in (begins - 1, begins, ends - 1, ends)] == [False, True] * 1 + [
        True,
        False,
    ]
    assert times.next_ms(begins - 1) == begins
    assert times.next_ms(begins) == ends
    # A week later the clock on the wall says the same, after 167 hours.
    assert times.next_ms(ends) == at_ms(zone, 2026, 4, 4, 23, 30) == begins + 167 * 3_600_000


def test_maintenance_of_every_day_goes_over_midnight():
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    times = Times(Maintenance(name="m", days=days, at="12:00", minutes=1_440))
    now = at_ms("UTC", 2026, 3, 28, 11)
    assert times.is_on(now)
    assert times.is_on(times.next_ms(now))


def test_a_message_for_an_endpoint_that_the_file_lacks_is_not_lost():
    hook = Webhook(name="hook", url="https://e.org/", secret_file="s", tenants=["other"])
    outbox = Outbox(Settings(webhooks=[hook]), 0)
    alert = {"id": "alt_1", "state": "firing", "tenant": "t"}
    (made,) = outbox.tell(alert, ["hook", "newer"])
    assert orjson.loads(made.value)["endpoint"] == "newer"
    assert outbox.tell(alert) == []
    # What the edge itself delivers to an endpoint of that name is not delivered again.
    assert outbox.tell(alert | {"told_by_edge": ["newer"]}, ["hook", "newer"]) == []
