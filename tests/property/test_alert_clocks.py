"""Alerts while the clocks of devices jump: none twice, none of the future, none of others lost."""

from __future__ import annotations

from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams.alerts.trial import Trial
from streams.settings import Devices, Rule, Settings, Window
from streams.testing import frame

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
SKEW_MS = MINUTE_MS
START_MS = 500_000 * HOUR_MS
SETTINGS = Settings(
    windows=[Window(name="1m", size_ms=MINUTE_MS, grace_ms=0, horizon_ms=HOUR_MS)],
    devices=Devices(skew_ms=SKEW_MS),
    rules=[
        Rule(name="hot", kind="threshold", window="1m", over=90.0, resolve_ms=0),
        Rule(name="long", kind="threshold", window="1m", over=90.0, hold_ms=2 * MINUTE_MS),
        Rule(name="gone", kind="absence", window="1m", silent_ms=10 * MINUTE_MS),
    ],
)
END = "___^^^^____"
"""The last minutes, at which every clock is right: hot from the fourth to the seventh."""
phases = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from([-24 * 365, -5, -1, 1, 5, 24 * 365]).map(lambda hours: hours * HOUR_MS),
            st.integers(-SKEW_MS, SKEW_MS),
        ),
        st.text("_^", min_size=1, max_size=4),
    ),
    max_size=4,
)


def play(phases, *devices):
    """Play minutes, hot (``^``) or not; the clock of ``odd`` is off by what its phase says."""
    trial = Trial(SETTINGS)
    at_ms = START_MS
    for off_ms, minutes in [*phases, (0, END)]:
        for sign in minutes:
            offs = {"sane": 0, "odd": off_ms}
            rows = [
                {
                    "device": device,
                    "metric": "m",
                    "t_ms": at_ms + s * 1_000 + offs[device],
                    "value": 99.0 if sign == "^" else 20.0,
                    "received_ms": at_ms + s * 1_000,
                }
                for device in devices
                for s in (0, 30)
            ]
            trial.send(frame(*rows), at_ms + 30_000)
            at_ms += MINUTE_MS
    return trial


def told(trial, device):
    return [one for one in trial.happened if one.alert["device"] == device]


@settings(max_examples=8)
@given(phases)
@example([(5 * HOUR_MS, "_^^"), (-5 * HOUR_MS, "^^_"), (SKEW_MS, "^^")])
def test_a_device_whose_clock_jumps_is_told_of_once_and_disturbs_nobody(phases):
    trial = play(phases, "sane", "odd")
    assert told(trial, "sane") == told(play(phases, "sane"), "sane")
    seen = Counter(
        (a["id"], a["state"], a.get("turn", 0)) for a in (one.alert for one in trial.happened)
    )
    assert set(seen.values()) <= {1}
    for one in trial.happened:
        assert one.alert["began_ms"] <= one.at_ms + SKEW_MS
    # Once its clock is right again, nothing is lost: the last heat is told, and its end.
    minutes = sum(len(minutes) for _, minutes in phases)
    hot_ms = START_MS + (minutes + END.index("^")) * MINUTE_MS
    for rule, device in (("hot", "sane"), ("hot", "odd"), ("long", "odd")):
        last = [
            (one.alert["began_ms"], one.alert["state"])
            for one in told(trial, device)
            if one.alert["rule"] == rule and one.alert["began_ms"] >= hot_ms - MINUTE_MS
        ]
        assert last == [(hot_ms, "firing"), (hot_ms, "resolved")]
