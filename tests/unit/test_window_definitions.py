"""From settings to definitions, and the days of a time zone."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from streams.agents.window_definitions import boundaries_ms, definition_of
from streams.core.windows import Calendar, Hopping, Session, Sliding, Tumbling
from streams.settings import Window

HOUR_MS = 3_600_000


def ms(zone, *when):
    return round(datetime(*when, tzinfo=ZoneInfo(zone)).timestamp() * 1000)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"size_ms": 5}, Tumbling),
        ({"kind": "hopping", "size_ms": 60, "step_ms": 20}, Hopping),
        ({"kind": "session", "gap_ms": 5}, Session),
        ({"kind": "calendar", "period": "day"}, Calendar),
        ({"kind": "sliding", "size_ms": 5}, Sliding),
        ({"kind": "sliding", "last": 5}, Sliding),
    ],
)
def test_each_kind_has_its_definition(given, kind):
    found = definition_of(Window(name="w", metrics=["a", "b*"], aggregates=["p99"], **given))
    assert type(found) is kind
    assert found.applies_to("bus")
    assert not found.applies_to("c")
    assert found.aggregates == ("p99",)


def test_a_day_is_longer_or_shorter_where_the_clocks_change():
    berlin = definition_of(Window(name="d", kind="calendar", period="day", zone="Europe/Berlin"))
    for day, hours in [((2026, 3, 29), 23), ((2026, 10, 25), 25), ((2026, 7, 1), 24)]:
        noon = np.asarray([ms("Europe/Berlin", *day, 12)])
        start = berlin.start_of(noon)
        assert start[0] == ms("Europe/Berlin", *day)
        assert berlin.end_of(start)[0] - start[0] == hours * HOUR_MS


def test_a_boundary_belongs_to_the_window_that_it_begins():
    days = definition_of(Window(name="d", kind="calendar", period="day"))
    midnight = ms("UTC", 2026, 5, 4)
    assert days.start_of(np.asarray([midnight - 1, midnight])).tolist() == [
        midnight - 24 * HOUR_MS,
        midnight,
    ]


def test_weeks_begin_on_monday_and_months_on_the_first():
    weeks, months = boundaries_ms("week", "UTC"), boundaries_ms("month", "UTC")
    assert ms("UTC", 2026, 11, 23) in weeks
    assert set(np.diff(weeks)) == {7 * 24 * HOUR_MS}
    assert ms("UTC", 2026, 2, 1) in months
    assert months[0] < 0
    assert months[-1] > 2**42


def test_definitions_that_differ_in_any_number_are_told_apart():
    def one(**given):
        return repr(definition_of(Window(name="w", **given)))

    days = [{"kind": "calendar", "period": "day", "zone": z} for z in ("UTC", "Asia/Tokyo")]
    assert len({one(**given) for given in [*days, {"size_ms": 5}, {"size_ms": 6}]}) == 4
    sliding = [{"last": 5}, {"size_ms": 5}, {"size_ms": 5, "max_points": 7}]
    assert len({one(kind="sliding", **given) for given in sliding}) == 3
