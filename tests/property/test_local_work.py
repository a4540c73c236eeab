"""An edge says of readings what the cloud says of them, and commands follow what stands."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge.local.evaluation import Evaluation
from edge.local.pacing import Pacer
from streams.adapters import frames
from streams.alerts.trial import Trial
from streams.core.readings import ABSENT, Labels, Readings
from streams.settings import Rule, Settings, Window

METRICS = ("t", "p")
SETTINGS = Settings(
    windows=[
        Window(name="1s", size_ms=1_000, horizon_ms=5_000, aggregates=["last"]),
        Window(name="each", kind="sliding", last=1, metrics=["p"], horizon_ms=5_000),
    ],
    detection={"warmup": 5, "emit_score": 3.0},
    rules=[
        Rule(name="strange", score_over=4.0, resolve_ms=2_000, where="edge"),
        Rule(
            name="hot", kind="threshold", window="1s", over=60.0, clear=40.0, hold_ms=1_000,
            resolve_ms=1_000, where="edge",
        ),
        Rule(
            name="now", kind="threshold", window="each", aggregate="max", metrics=["p"],
            over=80.0, resolve_ms=0, where="both",
        ),
        Rule(name="both-of", kind="any", of=["hot", "now"], where="edge"),
        Rule(name="quiet", kind="absence", window="1s", silent_ms=70_000, where="edge"),
        Rule(name="cloud-only", kind="threshold", window="1s", over=0.0),
    ],
)  # fmt: skip

rows = st.lists(
    st.tuples(
        st.sampled_from(("d1", "d2")),
        st.sampled_from(METRICS),
        st.integers(0, 20_000),
        st.floats(0, 100, allow_nan=False),
    ),
    max_size=12,
)
batches = st.lists(st.tuples(st.integers(0, 90_000), rows), min_size=1, max_size=8)


def readings(found: list[tuple[str, str, int, float]], received_ms: int) -> Readings:
    n = len(found)
    return Readings(
        Labels.constant("default", n),
        Labels.constant("north", n),
        Labels.of(row[0] for row in found),
        Labels.of(row[1] for row in found),
        np.array([row[2] for row in found], np.int64),
        np.full(n, received_ms, np.int64),
        np.array([row[3] for row in found], np.float64),
        np.zeros(n, np.uint8),
        np.full(n, ABSENT, np.int64),
        np.full(n, ABSENT, np.int64),
        {},
        {},
    )


# A rule of the cloud alone fires beside a composition that it is no member of: while a series is
# known by provisional windows only, and after more is known of one.
@settings(max_examples=50, deadline=None)
@example([(0, [("d2", "t", 0, 60.0), ("d2", "t", 1_000, 0.0), ("d2", "p", 2_000, 0.0)])])
@example([(0, [("d1", "t", 2_000, 0.0), ("d1", "p", 0, 60.0), ("d1", "p", 1_000, 0.0)])])
@given(batches)
def test_an_edge_tells_the_alerts_that_the_cloud_would_tell(given_batches) -> None:
    at_ms = 100_000
    edge, cloud = Evaluation(SETTINGS), Trial(SETTINGS)
    told: dict[str, list[str]] = {}

    def note(alerts) -> None:
        for alert in alerts:
            told.setdefault(alert["id"], []).append(alert["state"])

    for pause_ms, found in given_batches:
        at_ms += pause_ms
        part = readings(found, at_ms)
        note(edge.take(part, at_ms).alerts)
        if found:
            cloud.send(frames.encode(part), at_ms)
    # Markers of one time go through one partition after the other: two let all of it happen.
    for later_ms in (at_ms + 2_000_000, at_ms + 4_000_000):
        note(edge.pass_time(later_ms).alerts)
        cloud.pass_time(later_ms)
    expected: dict[str, list[str]] = {}
    for one in cloud.happened:
        if one.alert["rule"] != "cloud-only":
            expected.setdefault(one.alert["id"], []).append(one.alert["state"])
    assert told == expected


@settings(max_examples=50, deadline=None)
@given(batches, st.integers(0, 7))
def test_after_a_start_only_alerts_end_that_were_told(given_batches, cut) -> None:
    at_ms = 100_000
    edge = Evaluation(SETTINGS)
    states: dict[str, str] = {}
    for number, (pause_ms, found) in enumerate(given_batches):
        if number == cut:
            stored = edge.state([*edge.keys(), *map(str, range(SETTINGS.topics.shards))])
            edge = Evaluation(SETTINGS)
            assert edge.restore(stored) <= at_ms
        at_ms += pause_ms
        for alert in edge.take(readings(found, at_ms), at_ms).alerts:
            # Each alert begins with firing, also where it was told before the start.
            assert alert["state"] == "firing" or alert["id"] in states
            states[alert["id"]] = alert["state"]
    for _ in range(3):
        at_ms += 2_000_000
        states |= {one["id"]: one["state"] for one in edge.pass_time(at_ms).alerts}
    absent = {one["id"] for one in edge.pass_time(at_ms + 1).alerts}
    assert not absent


def alert(device: str, metric: str, state: str) -> dict[str, str]:
    return {
        "rule": "hot", "tenant": "t", "device": device, "state": state, "id": f"{device}/{metric}",
    }  # fmt: skip


changes = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.sampled_from(("a", "b")),
        st.sampled_from(("x", "y")),
        st.sampled_from(("firing", "resolved", "retracted")),
    ),
    max_size=40,
)


@given(changes)
def test_commands_follow_what_stands_and_never_come_too_often(given_changes) -> None:
    pacer, now_ms = Pacer({"hot": 30}, 10), 0
    firing: dict[str, set[str]] = {"a": set(), "b": set()}
    given_at: dict[str, list[tuple[int, str]]] = {"a": [], "b": []}
    for pause_ms, device, metric, state in given_changes:
        now_ms += pause_ms
        one = alert(device, metric, state)
        (firing[device].add if state == "firing" else firing[device].discard)(one["id"])
        for due in (*pacer.take(one, now_ms), *pacer.due(now_ms)):
            given_at[due.alert["device"]].append((now_ms, due.state))
    now_ms += 30
    for due in pacer.due(now_ms):
        given_at[due.alert["device"]].append((now_ms, due.state))
    for device, told in given_at.items():
        last = told[-1][1] if told else "resolved"
        assert last == ("firing" if firing[device] else "resolved")
        times = [at_ms for at_ms, _ in told]
        assert all(b - a >= 30 for a, b in pairwise(times))
        # On and off in turn: nothing is given twice in a row.
        kinds = [kind for _, kind in told]
        assert kinds == [("firing", "resolved")[i % 2] for i in range(len(kinds))]
