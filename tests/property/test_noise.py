"""The noise of a series is what it is off its own course, whatever that course."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.noise import WARM_UP, WINDOW, Noise

Series = list[tuple[int, float]]
walks = st.lists(
    st.tuples(st.integers(-10, 5_000), st.one_of(st.floats(-1e9, 1e9), st.just(0.0))),
    max_size=3 * WINDOW,
)


def of(series: Series) -> Noise:
    noise = Noise()
    for t_ms, value in series:
        noise = noise.seen(t_ms, value)
    return noise


def oracle(series: Series) -> float:
    """The same by the book, over the whole series at once."""
    kept: Series = []
    for t_ms, value in series:
        if not kept or t_ms > kept[-1][0]:
            kept.append((t_ms, value))
    t, v = np.array(kept, np.float64).reshape(-1, 2).T
    share = (t[1:-1] - t[:-2]) / (t[2:] - t[:-2])
    off = np.abs(v[1:-1] - v[:-2] - share * (v[2:] - v[:-2]))
    off /= np.sqrt(1 + share**2 + (1 - share) ** 2)
    if len(off) < WARM_UP:
        return 0.0
    return 1.4826 * float(np.quantile(off[-WINDOW:], 0.5, method="lower"))


@given(walks)
def test_it_is_the_median_of_the_last_pseudo_residuals(walk: list[tuple[int, float]]) -> None:
    t_ms, series = 1_750_000_000_000, []
    for step_ms, value in walk:
        t_ms += step_ms
        series.append((t_ms, value))
    assert of(series).deviation == pytest.approx(oracle(series), rel=1e-12, abs=1e-300)


@given(walks, st.integers(0, 2 * WINDOW))
def test_a_reading_makes_another_and_leaves_the_one_before(
    walk: list[tuple[int, float]], cut: int
) -> None:
    before = of(walk[:cut])
    deviation, size = before.deviation, len(before.off)
    for t_ms, value in walk[cut:]:
        assert before.seen(t_ms, value) is not None
    assert (before.deviation, len(before.off)) == (deviation, size)


def test_it_is_the_deviation_of_normal_noise_around_any_trend_at_uneven_times() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(100):
        t_ms = np.cumsum(rng.integers(1, 20_000, WINDOW + 2))
        value = 1e-3 * t_ms + rng.normal(0, 0.25, len(t_ms))
        found.append(of(list(zip(t_ms.tolist(), value.tolist(), strict=True))).deviation)
    assert np.mean(found) == pytest.approx(0.25, rel=0.1)


def test_a_few_jumps_do_not_move_it_and_a_series_that_stands_still_has_none() -> None:
    rng = np.random.default_rng(2)
    value = rng.normal(20, 0.5, WINDOW + 2)
    value[::16] += 1_000
    assert 0.25 < of(list(enumerate(value.tolist()))).deviation < 1.5
    assert of([(n, 20.0 + (n == 40)) for n in range(WINDOW)]).deviation == 0


def test_it_is_not_known_before_there_are_enough() -> None:
    rng = np.random.default_rng(3)
    rows = list(enumerate(rng.normal(0, 1, WARM_UP + 2).tolist()))
    assert of(rows[:-1]).deviation == 0
    assert of(rows).deviation > 0


def test_values_that_are_too_great_to_be_subtracted_say_nothing() -> None:
    noise = of([(n, 1.7e308 * (-1) ** n) for n in range(2 * WINDOW)])
    assert (noise.deviation, len(noise.off)) == (0, 0)
