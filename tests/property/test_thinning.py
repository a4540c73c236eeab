"""What is not sent can be rebuilt within the bound, whatever the series."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.noise import WARM_UP, Noise
from streams.core.thinning import NOISES, Deadband, SwingingDoor, around

Series = list[tuple[int, float]]

steps = st.integers(1, 5_000)
smooth = st.floats(-50, 50)
wild = st.floats(-1e12, 1e12, allow_nan=False)
bounds = st.sampled_from([0.0, 1e-9, 0.05, 0.5, 3.0, 1e6])
gaps = st.sampled_from([1, 60_000, 10**12])


@st.composite
def series(draw: st.DrawFn) -> Series:
    """A walk with jumps, at increasing times of today."""
    t_ms, value = draw(st.integers(0, 2 * 10**12)), draw(wild)
    found = []
    for _ in range(draw(st.integers(1, 60))):
        found.append((t_ms, value))
        t_ms += draw(steps)
        value = draw(st.one_of(smooth.map(lambda d, v=value: v + d), st.just(value), wild))
    return found


def thinned(door: Deadband[int] | SwingingDoor[int], given: Series) -> list[int]:
    sent = [item for at, (t_ms, value) in enumerate(given) for item in door.offer(t_ms, value, at)]
    return [*sent, *door.flush()]


def check_sent(given: Series, sent: list[int], max_gap_ms: int) -> None:
    assert sent == sorted(set(sent))
    assert sent[0] == 0
    for one, other in pairwise(sent):
        far = given[other][0] - given[one][0] > max_gap_ms
        assert not far or other == one + 1


@given(series(), bounds, gaps)
def test_a_line_through_what_a_swinging_door_sends_is_within_the_bound(
    given: Series, bound: float, max_gap_ms: int
) -> None:
    sent = thinned(SwingingDoor(bound, max_gap_ms), given)
    check_sent(given, sent, max_gap_ms)
    assert sent[-1] == len(given) - 1
    for one, other in pairwise(sent):
        (t0, v0), (t1, v1) = given[one], given[other]
        for t_ms, value in given[one + 1 : other]:
            rebuilt = v0 + (v1 - v0) * ((t_ms - t0) / (t1 - t0))
            assert abs(rebuilt - value) <= bound


@given(series(), bounds, gaps)
def test_the_value_that_a_deadband_leaves_is_within_the_bound(
    given: Series, bound: float, max_gap_ms: int
) -> None:
    sent = thinned(Deadband(bound, max_gap_ms), given)
    check_sent(given, sent, max_gap_ms)
    held = 0.0
    for at, (_, value) in enumerate(given):
        held = value if at in sent else held
        assert abs(held - value) <= bound


@given(series(), bounds, st.data())
def test_a_flush_in_between_sends_what_waits_and_the_bound_stays(
    given: Series, bound: float, draw: st.DataObject
) -> None:
    cut = draw.draw(st.integers(0, len(given)))
    door: SwingingDoor[int] = SwingingDoor(bound, 10**12)
    before = thinned(door, given[:cut])
    assert before[-1:] == ([cut - 1] if cut else [])
    after = [cut + at for at in thinned(door, given[cut:])]
    sent = before + after
    for one, other in pairwise(sent):
        (t0, v0), (t1, v1) = given[one], given[other]
        for t_ms, value in given[one + 1 : other]:
            assert abs(v0 + (v1 - v0) * ((t_ms - t0) / (t1 - t0)) - value) <= bound


@given(series(), st.integers(WARM_UP, 3 * WARM_UP), st.data())
def test_without_a_bound_each_stretch_keeps_the_one_that_was_known_when_it_began(
    given: Series, calm: int, draw: st.DataObject
) -> None:
    # A noisy beginning, so that something is left out.
    rng = np.random.default_rng(draw.draw(st.integers(0, 2**32)))
    t_ms, value = given[0]
    spread = draw.draw(st.sampled_from([1e-3, 1.0, 1e6]))
    begin = [(t_ms - 1_000 * n, value + spread * float(rng.normal())) for n in range(calm, 0, -1)]
    given = [*begin, *given]
    door: SwingingDoor[int] = SwingingDoor(None, 10**12)
    noise, sent, bounds = Noise(), [], {}
    for at, (t_ms, value) in enumerate(given):
        noise = noise.seen(t_ms, value)
        for item in door.offer(t_ms, value, at):
            # Of what had come until then, and of nothing that came later.
            bounds[item] = NOISES * noise.deviation
            sent.append(item)
    sent += door.flush()
    check_sent(given, sent, 10**12)
    for one, other in pairwise(sent):
        (t0, v0), (t1, v1) = given[one], given[other]
        for t_ms, value in given[one + 1 : other]:
            assert abs(v0 + (v1 - v0) * ((t_ms - t0) / (t1 - t0)) - value) <= bounds[one]


@given(series())
def test_a_deadband_without_a_bound_keeps_the_one_that_was_known_when_it_sent(
    given: Series,
) -> None:
    given = [*given, *((t_ms + 10**9, value) for t_ms, value in given)]
    door: Deadband[int] = Deadband(None, 10**12)
    noise, held, bound = Noise(), 0.0, 0.0
    for at, (t_ms, value) in enumerate(given):
        noise = noise.seen(t_ms, value)
        if door.offer(t_ms, value, at):
            held, bound = value, NOISES * noise.deviation
        assert door.bound == bound
        assert abs(held - value) <= bound


def test_without_a_bound_a_series_that_stands_still_is_sent_at_its_changes() -> None:
    steps = [(1_000 * n, 20.5 + n // 50) for n in range(200)]
    assert thinned(SwingingDoor(None, 10**9), steps) == [
        0, 49, 50, 99, 100, 149, 150, 199
    ]  # fmt: skip
    assert thinned(Deadband(None, 10**9), steps) == [0, 50, 100, 150]


def test_a_straight_line_is_two_readings_and_a_plateau_one_deadband() -> None:
    line = [(1_000 * n, 0.5 * n) for n in range(100)]
    assert thinned(SwingingDoor(0.1, 10**9), line) == [0, 99]
    assert thinned(Deadband(0.1, 10**9), [(n, 7.0) for n in range(100)]) == [0]


def test_a_corner_stands_where_the_direction_changes() -> None:
    #   value   .
    #         .   .
    #       .       .   time ->
    roof = [(n, float(min(n, 20 - n))) for n in range(21)]
    assert thinned(SwingingDoor(0.25, 10**9), roof) == [0, 10, 20]


@pytest.mark.parametrize("door", [Deadband(1.0, 100), SwingingDoor(1.0, 100)], ids=["dead", "door"])
def test_late_readings_and_those_that_are_no_number_are_sent(
    door: Deadband[int] | SwingingDoor[int],
) -> None:
    rows = [(10, 0.0), (20, 0.0), (5, 0.0), (30, float("nan")), (40, float("inf")), (50, 0.0)]
    sent = thinned(door, rows)
    assert {0, 2, 3, 4} <= set(sent)


@given(st.lists(st.integers(0, 1_000), max_size=30), st.integers(0, 50), st.integers(0, 50))
def test_stretches_cover_what_is_near_an_anomaly_and_nothing_else(
    flagged: list[int], before: int, after: int
) -> None:
    found = around(np.asarray(flagged, np.int64), before, after)
    covered = {t for begin, end in found.tolist() for t in range(begin, end)}
    assert covered == {t for at in flagged for t in range(at - before, at + after + 1)}
    assert (found[1:, 0] > found[:-1, 1]).all()
