"""The limits that nobody can beat, which ``benchmarks/faults`` prints beside what was found."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.faults.oracle import NOISES, Surprise, gaussian, limits, student_4
from benchmarks.faults.simulate import NOISES as PLAYED
from benchmarks.faults.simulate import heavy_tailed

MONTH = 43_200


def test_each_noise_that_is_played_has_its_oracle():
    assert NOISES.keys() == PLAYED.keys()


def test_the_density_is_that_of_what_is_played():
    drawn = heavy_tailed(np.random.default_rng(1), 2_000, 100)
    x = np.linspace(-2.0, 2.0, 4_001)
    within = student_4(x).sum() * (x[1] - x[0])
    assert within == pytest.approx((np.abs(drawn) < 2.0).mean(), abs=0.005)


def test_a_gaussian_shift_is_found_as_by_the_textbook():
    # Two-sided at 1 %: 2.576 sd, so a spike of as much is found in half of all cases.
    reached = limits(Surprise(lambda x: gaussian(x, 1.0), 2.5758))
    assert reached.found_at(0.01) == pytest.approx(0.5, abs=0.005)
    assert reached.false_at(0.5) == pytest.approx(0.01, abs=0.0005)


def test_who_knows_everything_finds_few_spikes_of_6_sd_among_heavy_tails():
    heavy = limits(NOISES["heavy-tailed"])
    assert heavy.found_at(1.0 / MONTH) < 0.05
    assert MONTH * heavy.false_at(0.9) > 50
    for light in ("AR(1)", "seasonal"):
        assert limits(NOISES[light]).found_at(1.0 / MONTH) > 0.99
