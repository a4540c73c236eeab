"""Which windows hold a time, and whether they still take a reading."""

from __future__ import annotations

import pytest

from streams.covering import definitions_for, spans_over, takes
from streams.settings import Settings, Window

DAY_MS = 86_400_000


def only(**window):
    (found,) = definitions_for(Settings(windows=[Window(name="w", **window)]), "m")
    return found


@pytest.mark.parametrize(
    ("window", "t_ms", "spans"),
    [
        ({"size_ms": 100, "offset_ms": 10}, 209, [(110, 210)]),
        ({"kind": "hopping", "size_ms": 100, "step_ms": 40}, 90, [(0, 100), (40, 140), (80, 180)]),
        ({"kind": "hopping", "size_ms": 100, "step_ms": 40}, 35, [(-40, 60), (0, 100)]),
        ({"kind": "calendar", "period": "day"}, DAY_MS + 5, [(DAY_MS, 2 * DAY_MS)]),
        ({"kind": "session", "gap_ms": 5}, 1, []),
        ({"kind": "sliding", "size_ms": 5}, 1, []),
    ],
)
def test_the_windows_that_hold_a_time(window, t_ms, spans):
    assert spans_over(only(**window), t_ms) == spans


@pytest.mark.parametrize(
    ("window", "last_ms"),
    [
        ({"size_ms": 100}, 100),
        ({"size_ms": 100, "grace_ms": 7}, 107),
        ({"kind": "hopping", "size_ms": 100, "step_ms": 40}, 140),
        ({"kind": "session", "gap_ms": 30}, 80),
        ({"kind": "sliding", "size_ms": 100}, 51),
        ({"kind": "sliding", "last": 100, "grace_ms": 7}, 58),
    ],
)
def test_a_reading_is_taken_until_the_last_of_its_windows_takes_no_more(window, last_ms):
    definition = only(horizon_ms=1_000, **window)
    assert takes(definition, 50, last_ms + 999)
    assert not takes(definition, 50, last_ms + 1_000)
    assert takes(definition, 50, None)


def test_only_the_definitions_of_a_metric_apply():
    windows = [Window(name="a", metrics=["x*"], size_ms=1), Window(name="b", size_ms=2)]
    found = definitions_for(Settings(windows=windows), "y")
    assert [definition.name for definition in found] == ["b"]
