"""What operators say of alarms: counted once, heeded at one place of the log, within bounds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.adapters.label_records import MARKER, decode, label_id
from streams.adapters.lake import LakeTable, rows_of
from streams.agents.readings import make_readings
from streams.core.feedback import FALSE_ALARM, KINDS, MISSED, Feedback, FeedbackRules, Label
from streams.lake import labels as labels_of_the_lake
from streams.ports import TIME_MARKER_HEADER
from streams.settings import Detection, Settings
from streams.testing import Driver, frame

RULES = FeedbackRules(step=0.1, most=1.5, labels=5)
SERIES = ("default", "kiln", "t")
T0 = 1_700_000_000_000


def label(kind=FALSE_ALARM, since_ms=T0, *, removed=False, series=SERIES):
    identity = label_id(*series, kind, since_ms)
    return Label(identity, *series, kind, since_ms, since_ms + 1, "eve", "", T0, removed)


def test_a_bound_follows_labels_by_steps_and_stops_at_its_limits():
    book = Feedback(RULES)
    assert not book
    assert book.factor(0, SERIES) == 1.0
    book.take(0, label())
    assert book.factor(0, SERIES) == pytest.approx(1.1)
    for k in range(1, 5):
        book.take(0, label(since_ms=T0 + k))
    assert book.factor(0, SERIES) == 1.5
    assert not book.take(0, label(since_ms=T0 + 9))  # as many as a shard may hold
    missed = Feedback(RULES)
    for k in range(5):
        missed.take(0, label(MISSED, T0 + k))
    assert missed.factor(0, SERIES) == pytest.approx(1 / 1.5)


said = st.lists(
    st.builds(label, st.sampled_from(KINDS), st.integers(T0, T0 + 2)), min_size=1, max_size=5
)


@given(said, st.randoms())
def test_it_follows_from_the_set_of_labels_whatever_their_order(held, random):
    once, again = Feedback(RULES), Feedback(RULES)
    for one in held:
        once.take(3, one)
    shuffled = list({one.id: one for one in held}.values())
    random.shuffle(shuffled)
    for one in shuffled + shuffled:
        again.take(3, one)
    assert once.factor(3, SERIES) == again.factor(3, SERIES)
    restored = Feedback(RULES)
    restored.restore(3, once.of_shard(3))
    assert restored.factor(3, SERIES) == once.factor(3, SERIES)


def say(driver, one, at_ms):
    value = orjson.dumps(one.as_json())
    headers = {TIME_MARKER_HEADER: b"1", MARKER: value}
    driver.append(b"", at_ms=at_ms, headers=headers)


def hour(k, spike=None):
    rng = np.random.default_rng(k)
    value = rng.normal(20.0, 0.5, 60)
    if spike is not None:
        value[30] = spike
    rows = [
        {"device": "kiln", "metric": "t", "t_ms": T0 + (60 * k + i) * 60_000, "value": v}
        for i, v in enumerate(value.tolist())
    ]
    return frame(*rows), rows[-1]["t_ms"]


def spikes(driver):
    return {row["t_ms"]: row["score"] for row in driver.rows("anomalies") if row["why"]}


def worker():
    return Driver(make_readings(Settings(detection=Detection(feedback_max=2.0))))


def test_what_was_no_anomaly_scores_less_from_the_marker_on_and_again_when_taken_back():
    heard, deaf = worker(), worker()
    for k in range(6):
        value, at_ms = hour(k, spike=26.0 if k in (2, 3, 5) else None)
        for driver in (heard, deaf):
            driver.append(value, at_ms=at_ms)
        if k == 2:
            say(heard, label(), at_ms)
            say(heard, label(), at_ms)
        if k == 3:
            say(heard, label(removed=True), at_ms)
    heard.run()
    deaf.run()
    first, second, third = (T0 + (60 * k + 30) * 60_000 for k in (2, 3, 5))
    assert spikes(heard)[first] == spikes(deaf)[first]
    assert spikes(heard)[second] == pytest.approx(spikes(deaf)[second] / 1.1)
    assert spikes(heard)[third] == spikes(deaf)[third]


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["step", "checkpoint", "partial", "crash"]), max_size=14))
def test_crashes_and_batches_heed_a_label_at_the_same_reading(happenings):
    calm, rough = worker(), worker()
    for k in range(5):
        value, at_ms = hour(k, spike=26.0)
        for driver in (calm, rough):
            driver.append(value, at_ms=at_ms)
            if k == 2:
                say(driver, label(), at_ms)
                say(driver, label(series=("default", "other", "t")), at_ms)
    calm.run()
    for happening in happenings:
        match happening:
            case "step":
                rough.step(1)
            case "checkpoint":
                rough.checkpoint()
            case "partial":
                rough.checkpoint(keys=1)
            case "crash":
                rough.crash()
    rough.run()
    assert spikes(rough) == spikes(calm)


def test_what_is_no_label_moves_nothing():
    driver = worker()
    value, at_ms = hour(0)
    driver.send(value, at_ms=at_ms)
    for bad in (b"", b"{}", b"[]", b"\xff", orjson.dumps(label().as_json() | {"kind": "maybe"})):
        driver.send(b"", at_ms=at_ms, headers={TIME_MARKER_HEADER: b"1", MARKER: bad})
        with pytest.raises(ValueError, match=r"label|not valid|unexpected|invalid"):
            decode(bad)
    assert not driver.logic.watch.feedback


def test_the_lake_holds_each_label_once_and_none_that_was_taken_back(tmp_path):
    said = [label(), label(MISSED, T0 + 5), label(), label(MISSED, T0 + 5, removed=True)]
    table = LakeTable(tmp_path, "labels")
    for offset, one in enumerate(said):
        value = orjson.dumps(one.as_json())
        record = SimpleNamespace(partition=0, offset=offset, timestamp=T0 + offset, value=value)
        table.append(rows_of("labels", record), {0: offset})
    (row,) = labels_of_the_lake(device="kiln", root=tmp_path).to_pylist()
    assert (row["kind"], row["metric"], row["since_ms"]) == (FALSE_ALARM, "t", T0)
