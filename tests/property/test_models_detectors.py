"""One check suite for every detector that there is: what is promised of all of them."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.core.catalogue import detectors
from models.core.channels import ALL as CHANNELS
from models.core.ensemble import Ensemble, EnsembleParams
from streams.agents.detectors import detector_of
from streams.agents.readings import make_readings
from streams.settings import Settings
from streams.settings.sections import Detection
from streams.testing import Driver, check_detector, frame

PARAMS = EnsembleParams(half_life=32, warmup=4, min_spread=1e-9)
ALL = sorted(detectors())
OURS = [name for name in ALL if name != "robust-level"]
SERIES = 4
values = st.one_of(
    st.floats(-1e12, 1e12, allow_subnormal=False), st.sampled_from([0.0, 20.0, 20.5, 21.0])
)
strange = st.one_of(values, st.sampled_from([1e300, -1e300, np.nan, np.inf, -np.inf, 5e-324]))
steps = st.sampled_from([0, 1, 1_000, 60_000, 3_600_000, 40 * 86_400_000])


def table(of):
    return st.lists(st.tuples(st.integers(0, SERIES - 1), steps, of), min_size=1, max_size=80)


def fresh(name):
    detector = detectors()[name](PARAMS)
    detector.grow(SERIES)
    return detector


def split(rows):
    return (
        np.asarray([s for s, _, _ in rows], np.int32),
        1_700_000_000_000 + np.cumsum([step for _, step, _ in rows]),
        np.asarray([value for _, _, value in rows]),
    )


@pytest.mark.parametrize("name", ALL)
def test_it_keeps_what_the_worker_is_promised(name):
    check_detector(lambda: detectors()[name](PARAMS))


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15)
@given(rows=table(values), cuts=st.lists(st.integers(0, 80), max_size=5))
def test_scores_have_the_same_bits_in_any_batching(name, rows, cuts):
    series, t_ms, value = split(rows)
    whole = np.stack(fresh(name).score(series, t_ms, value))
    detector = fresh(name)
    edges = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    parts = [
        np.stack(detector.score(series[a:b], t_ms[a:b], value[a:b])) for a, b in pairwise(edges)
    ]
    assert np.concatenate(parts, axis=1).tobytes() == whole.tobytes()


def both_ways(chosen=CHANNELS):
    """Return an ensemble that scores each reading in plain numbers, and one that never does."""
    made = [Ensemble(PARAMS, chosen, few=few) for few in (SERIES, 0)]
    for one in made:
        one.grow(SERIES)
    return made


def same_bits(plain, columns, series, t_ms, value):
    found = [one.examine(series, t_ms, value) for one in (plain, columns)]
    for name in ("score", "expected", "spread", "surprise", "since_ms", "details"):
        a, b = (getattr(one, name) for one in found)
        assert a.tobytes() == b.tobytes(), name
    for key, kept in plain.state().items():
        assert kept.tobytes() == columns.state()[key].tobytes(), key


@settings(max_examples=60)
@given(rows=table(strange), back=st.booleans())
@example(rows=[(0, 0, 0.0), (0, 0, -0.0), (0, 0, 0.0)], back=False)
def test_plain_numbers_and_columns_have_the_same_bits(rows, back):
    series, t_ms, value = split(rows)
    same_bits(*both_ways(), series, t_ms[::-1] if back else t_ms, value)


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda one: one.name)
def test_each_channel_alone_has_them_too(channel):
    series, t_ms, value = noisy(400, seed=3)
    same_bits(*both_ways((channel,)), series, t_ms, value)


@pytest.mark.parametrize("shape", ["seasonal", "walk", "counts", "steps", "gaps"])
def test_they_do_over_weeks_of_any_shape(shape):
    rng = np.random.default_rng(6)
    n = 6_000
    series = (np.arange(n) % SERIES).astype(np.int32)
    row = np.arange(n) // SERIES
    t_ms = 1_700_000_000_000 + row * 1_800_000
    noise = rng.normal(size=n)
    value = {
        "seasonal": 10 * np.sin(row * np.pi / 24) + noise,
        "walk": np.cumsum(noise),
        "counts": rng.poisson(2.0, n).astype(float),
        "steps": 20.0 * (row // 400) + noise,
        "gaps": noise,
    }[shape]
    if shape == "gaps":
        t_ms = t_ms + 86_400_000 * (row // 100)
    same_bits(*both_ways(), series, t_ms, value)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=10)
@given(past=table(values), future=table(values))
def test_a_score_does_not_depend_on_what_comes_later(name, past, future):
    alone = fresh(name).score(*split(past))[0]
    with_future = fresh(name).score(*split(past + future))[0][: len(past)]
    assert alone.tobytes() == with_future.tobytes()


@pytest.mark.parametrize("name", OURS)
@settings(max_examples=25)
@given(rows=table(strange), back=st.booleans())
def test_any_input_has_a_finite_score_and_no_warning(name, rows, back):
    series, t_ms, value = split(rows)
    score, expected, spread = fresh(name).score(series, t_ms[::-1] if back else t_ms, value)
    assert np.isfinite(score).all()
    assert (score >= 0).all()
    finite = np.isfinite(value)
    assert (score[~finite] == 0).all()
    assert np.isfinite(expected[finite]).all()
    assert (spread[finite] > 0).all()


@pytest.mark.parametrize("name", OURS)
@settings(max_examples=10)
@given(rows=table(values), at=st.integers(0, 79))
def test_what_is_not_finite_teaches_nothing(name, rows, at):
    at = min(at, len(rows))
    with_nan = [*rows[:at], (0, 0, np.nan), *rows[at:]]
    score = np.delete(fresh(name).score(*split(with_nan))[0], at)
    assert score.tobytes() == fresh(name).score(*split(rows))[0].tobytes()


@pytest.mark.parametrize("name", ALL)
def test_state_put_into_a_new_one_goes_on_to_the_bit(name):
    series, t_ms, value = noisy(800, seed=5)
    whole = fresh(name).score(series, t_ms, value)[0]
    first, second = fresh(name), fresh(name)
    first.score(series[:400], t_ms[:400], value[:400])
    for key, kept in first.state().items():
        second.state()[key][:SERIES] = kept[:SERIES]
    rest = second.score(series[400:], t_ms[400:], value[400:])[0]
    assert rest.tobytes() == whole[400:].tobytes()


def noisy(n, seed):
    rng = np.random.default_rng(seed)
    series = (np.arange(n) % SERIES).astype(np.int32)
    t_ms = 1_700_000_000_000 + np.arange(n) // SERIES * 60_000
    return series, t_ms, rng.normal(20.0, 1.0, n)


@pytest.mark.parametrize("name", ["ensemble", "robust-level"])
def test_the_worker_has_it_under_its_name(name):
    made = detector_of(Detection(detector=name))
    assert made.name.startswith(f"{name}/")
    check_detector(lambda: detector_of(Detection(detector=name, half_life=32, warmup=4)))


def test_a_worker_that_crashes_tells_the_same_anomalies():
    worker = Settings(detection=Detection(detector="ensemble", emit_score=2.0))
    rng = np.random.default_rng(8)
    value = np.where(rng.random(600) < 0.01, 40.0, rng.normal(20.0, 1.0, 600))
    rows = [
        {"device": f"d-{i % 3}", "metric": "m", "t_ms": 1_700_000_000_000 + i * 20_000, "value": v}
        for i, v in enumerate(value.tolist())
    ]

    def play(crashes):
        driver = Driver(make_readings(worker))
        for k in range(0, 600, 50):
            driver.send(frame(*rows[k : k + 50]), at_ms=rows[k + 49]["t_ms"])
            if k == 250:
                driver.checkpoint()
            if k == 350 and crashes:
                driver.crash()
                driver.run()
        return {(row["t_ms"], row["device"]): row["score"] for row in driver.rows("anomalies")}

    undisturbed = play(crashes=False)
    assert undisturbed
    assert play(crashes=True) == undisturbed


def told_of_a_spike(detector, metrics=None):
    """Return the anomalies of a day of readings with one spike, as a worker tells them."""
    rng = np.random.default_rng(9)
    value = rng.normal(20.0, 0.5, 1_440)
    value[1_000] = 58.0
    rows = [
        {"device": "kiln", "metric": "t", "t_ms": 1_700_000_000_000 + i * 60_000, "value": v}
        for i, v in enumerate(value.tolist())
    ]
    watching = Detection(detector=detector, emit_score=4.0)
    driver = Driver(make_readings(Settings(detection=watching, metrics=metrics or {})))
    driver.send(frame(*rows), at_ms=rows[-1]["t_ms"])
    return {row["t_ms"]: row for row in driver.rows("anomalies")}


@pytest.mark.parametrize("name", ["ensemble", "robust-level"])
def test_an_anomaly_says_why_in_the_unit_of_the_catalogue(name):
    told = told_of_a_spike(name, {"t": {"unit": "°C"}})
    spike = 1_700_000_000_000 + 1_000 * 60_000
    assert re.search(r"3[78](\.\d)? °C above the usual (19|20)", told[spike]["why"])
    below = [row for row in told.values() if row["score"] < 4.0]
    assert below
    assert {row["why"] for row in below} == {""}
