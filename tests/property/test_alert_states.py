"""Alerts: hold, resolve, and the same messages whatever the batching or the crashes."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.adapters.results import encode
from streams.agents.alerting import make_alerting
from streams.core.readings import Labels
from streams.core.results import Scores
from streams.settings import Rule, Settings, Webhook
from streams.testing import Driver

STEP_MS = 10


def settings_with(tmp_path="/nowhere", **rule):
    return Settings(
        rules=[Rule(name="r", score_over=5.0, **rule)],
        webhooks=[
            Webhook(name="hook", url="https://example.org/", secret_file=f"{tmp_path}/secret")
        ],
    )


def frame(rows, why=""):
    n = len(rows)
    t_ms = np.asarray([t for _, t, _ in rows], np.int64)
    return encode(
        Scores(
            tenant=Labels.constant("t", n),
            site=Labels.constant("s", n),
            device=Labels.of(device for device, _, _ in rows),
            metric=Labels.constant("m", n),
            detector=Labels.constant("d/1", n),
            t_ms=t_ms,
            received_ms=t_ms,
            kafka_ms=t_ms,
            value=np.asarray([s for *_, s in rows], np.float64),
            score=np.asarray([s for *_, s in rows], np.float64),
            expected=np.zeros(n),
            spread=np.ones(n),
            offset=np.zeros(n, np.int64),
            row=np.arange(n, dtype=np.int32),
            why=Labels.constant(why, n),
        ),
        code="test",
        settings="test",
    )


def story(line, **rule):
    """Play a timeline, a sign a step: ``^`` over, ``_`` below, ``.`` log time passes only."""
    driver = Driver(make_alerting(settings_with(**rule)))
    told = []
    for step, sign in enumerate(line):
        t_ms = (step + 1) * STEP_MS
        if sign == ".":
            made = driver.tick(at_ms=t_ms)
        else:
            made = driver.send(frame([("d", t_ms, 9.0 if sign == "^" else 1.0)]), at_ms=t_ms)
        states = [orjson.loads(p.value)["state"][0] for p in made if p.topic == "alerts"]
        told.append("".join(states) or "-")
    return " ".join(told)


@pytest.mark.parametrize(
    ("line", "rule", "expected"),
    [
        ("^_^_", {"resolve_ms": 0}, "f r f r"),
        ("^^^^", {"resolve_ms": 0}, "f - - -"),
        ("^^^^", {"hold_ms": 20, "resolve_ms": 0}, "- - f -"),
        ("^_^^^", {"hold_ms": 20, "resolve_ms": 0}, "- - - - f"),
        ("^_^__", {"resolve_ms": 20}, "f - - - -"),
        ("^___", {"resolve_ms": 20}, "f - - r"),
        ("^_.....", {"resolve_ms": 30}, "f - - - r - -"),
        ("^_..^", {"resolve_ms": 20}, "f - - r f"),
    ],
)
def test_hold_and_resolve(line, rule, expected):
    assert story(line, **rule) == expected


rows = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.sampled_from([1.0, 4.0, 6.0, 9.0])),
    min_size=1,
    max_size=4,
)
events = st.lists(st.one_of(rows, st.just("time")), min_size=1, max_size=15)


def fill(driver, events):
    for step, event in enumerate(events):
        at_ms = (step + 1) * 40
        if event == "time":
            driver.append(b"", at_ms=at_ms, headers={"hw-time": b"1"})
        else:
            driver.append(frame([(d, step * 40 + t, s) for d, t, s in event]), at_ms=at_ms)


def messages(driver):
    return {p.key: p.value for p in driver.output if p.topic == "deliveries"}


@settings(max_examples=150)
@given(
    events,
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["", "checkpoint", "crash"])), max_size=9
    ),
)
def test_crashes_and_batches_tell_the_same_messages_under_the_same_ids(events, steps):
    factory = make_alerting(settings_with(hold_ms=15, resolve_ms=60))
    calm, rough = Driver(factory), Driver(factory)
    fill(calm, events)
    fill(rough, events)
    calm.run()
    for size, happening in steps:
        rough.step(size)
        if happening == "checkpoint":
            rough.checkpoint()
        elif happening == "crash":
            rough.crash()
    rough.run()
    assert messages(rough) == messages(calm)


def test_a_broken_frame_goes_to_rejected_and_the_next_one_counts():
    driver = Driver(make_alerting(settings_with(resolve_ms=0)))
    driver.append(b"nonsense", at_ms=1)
    driver.append(frame([("d", 5, 9.0)]), at_ms=2)
    driver.run()
    assert [p.topic for p in driver.output] == ["rejected", "alerts", "deliveries"]


def test_the_reason_is_said_in_words():
    driver = Driver(make_alerting(settings_with(resolve_ms=0)))
    (alert, _) = driver.send(frame([("pump", 5, 9.0)]), at_ms=2)
    assert orjson.loads(alert.value)["why"] == (
        "m of pump was 9 where 0 ± 1 is usual: 9.0 robust standard deviations away"
    )


def test_what_the_detector_said_is_the_reason():
    driver = Driver(make_alerting(settings_with(resolve_ms=0)))
    (alert, delivery) = driver.send(frame([("pump", 5, 9.0)], why="level shift up"), at_ms=2)
    assert orjson.loads(alert.value)["why"] == "m of pump was 9: level shift up"
    assert orjson.loads(delivery.value)["alert"]["why"] == "m of pump was 9: level shift up"
