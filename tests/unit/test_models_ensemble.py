"""The ensemble, fault by fault: what it finds, what it leaves alone, and in which words."""

from __future__ import annotations

import numpy as np
import pytest

from models.core.ensemble import Ensemble, EnsembleParams

MINUTE = 60_000
DAY = 288  # readings, one in five minutes
START_MS = 1_704_067_200_000  # Monday, 2024-01-01 00:00 UTC


def examine(value, t_ms=None):
    detector = Ensemble(EnsembleParams())
    detector.grow(1)
    times = START_MS + np.arange(len(value)) * MINUTE if t_ms is None else t_ms
    return detector.examine(np.zeros(len(value), np.int32), times, np.asarray(value, float))


def noise(n, seed=3):
    return np.random.default_rng(seed).normal(20.0, 0.5, n)


def test_a_spike_is_found_and_named_at_once():
    value = noise(3_000)
    value[2_500] = 28.0
    found = examine(value)
    assert found.score[2_500] > 5
    assert np.delete(found.score, 2_500)[64:].max() < 5
    assert "28 is far from the readings just before" in found.why(2_500)
    assert "above the usual 20" in found.why(2_500)
    assert "outside of all before" in found.why(2_500)


def test_what_is_usual_at_noon_is_strange_at_night():
    row = np.arange(10 * DAY)
    rng = np.random.default_rng(4)
    value = np.where(row * 5 // 60 % 24 == 14, 60.0, 20.0) + rng.normal(0, 0.5, len(row))
    night = 9 * DAY + 3 * 12
    value[night] = 60.0
    found = examine(value, START_MS + row * 5 * MINUTE)
    assert found.score[night] > 5
    assert "40" in found.why(night)
    assert "for Wednesday 03:00 UTC" in found.why(night)
    noon = slice(8 * DAY + 14 * 12, 8 * DAY + 15 * 12)
    assert found.score[noon].max() < 5


def test_a_frozen_sensor_is_found_within_an_hour():
    value = noise(3_000)
    value[2_500:2_560] = value[2_500]
    found = examine(value)
    assert found.score[2_500:2_560].max() > 4
    said = [found.why(at) for at in np.flatnonzero(found.score[2_500:2_560] > 4) + 2_500]
    assert all("quieter than usual" in words or "exactly" in words for words in said)


def test_a_frozen_sensor_that_never_repeated_a_value_is_named_within_the_hour():
    value = noise(25_060)
    value[25_000:] = value[25_000]
    found = examine(value)
    late = np.flatnonzero(found.score[25_000:] >= 5) + 25_000
    assert len(late)
    assert "exactly" in found.why(late[0])


def test_a_level_that_creeps_by_half_a_spread_a_day_is_found_within_days_and_named():
    day, begin = 1_440, 12 * 1_440
    value = noise(17 * day)
    value[begin:] += 0.25 * np.arange(5 * day) / day
    found = examine(value)
    assert found.score[64:begin].max() < 5
    late = np.flatnonzero(found.score[begin:] >= 5) + begin
    assert begin < late[0] < begin + 4 * day
    assert "further from its level of the last days than it wanders" in found.why(late[0])


def test_a_wandering_series_that_becomes_a_little_louder_is_named_and_a_calm_one_is_not():
    rng = np.random.default_rng(6)
    news = rng.normal(0, 1, 20_000)
    value = np.empty(20_000)
    level = 0.0
    for row, one in enumerate(news):
        value[row] = level = 0.9 * level + one
    louder = slice(15_000, 15_360)
    # Three times the variance of the series: noise of a sensor, not of what it measures.
    value[louder] += rng.normal(0, np.sqrt(2) * value.std(), 360)
    found = examine(value)
    assert found.score[:15_000].max() < 5
    told = np.flatnonzero(found.score[louder] >= 5)
    assert told[0] < 60
    said = {found.why(15_000 + row) for row in told[told > 60]}
    assert said
    assert all("steps between readings" in words and "larger than usual" in words for words in said)


def test_missing_data_are_told_at_the_first_reading_after_them():
    t_ms = START_MS + np.arange(3_000) * MINUTE
    t_ms[2_000:] += 90 * MINUTE
    found = examine(noise(3_000), t_ms)
    assert found.score[2_000] > 5
    assert found.why(2_000) == "silent for 91 min, usually 60 s"


def test_another_unit_is_told_and_then_accepted():
    celsius = noise(6_000)
    value = np.where(np.arange(6_000) < 3_000, celsius, celsius * 1.8 + 32.0)
    score = examine(value).score
    assert score[3_000] > 5
    episodes = np.flatnonzero(np.diff((score[3_000:] >= 5).astype(int)) == 1)
    assert len(episodes) <= 2
    assert score[3_600:].max() < 5


@pytest.mark.parametrize(
    "value",
    [
        np.full(2_000, 7.0),
        np.tile([0.0, 1.0], 1_000),
        np.repeat(np.random.default_rng(2).integers(0, 2, 400), 5),
    ],
    ids=["constant", "two values in turn", "two values at random"],
)
def test_series_of_few_values_do_not_flood(value):
    assert (examine(value).score >= 5).sum() <= 1


def test_a_new_series_with_heavy_tails_is_believed_to_have_them():
    series, days = 64, 3
    value = np.random.default_rng(5).standard_t(4, (days * 1_440, series))
    detector = Ensemble(EnsembleParams())
    detector.grow(series)
    index = np.arange(series, dtype=np.int32)
    over = 0
    for row, values in enumerate(value):
        t_ms = np.full(series, START_MS + row * MINUTE)
        over += int((detector.score(index, t_ms, values)[0] >= 5).sum())
    assert over <= 20


def test_a_shift_is_said_with_the_time_since_when():
    value = noise(3_000)
    value[2_500:] += 4.0
    found = examine(value)
    assert found.score[2_500:2_510].max() > 5
    assert "level shift up since 18:" in found.why(2_530)
