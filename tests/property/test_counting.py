"""A window folded again from its readings is what the engine had told of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.adapters.results import decode_windows
from streams.agents.readings import make_readings
from streams.explain import recompute
from streams.recovery.counting import refold
from streams.settings import Devices, Settings, Window
from streams.testing import Driver, frame

SETTINGS = Settings(
    windows=[
        Window(name="w", size_ms=1_000, horizon_ms=1_000_000, aggregates=["last", "p50"]),
        Window(name="h", kind="hopping", size_ms=1_000, step_ms=250, horizon_ms=1_000_000),
    ],
    devices=Devices(idle_ms=10_000, idle_final_ms=20_000),
)
values = st.lists(
    st.tuples(st.integers(0, 999), st.floats(-1e9, 1e9), st.integers(0, 5_000)),
    min_size=1,
    max_size=12,
)


def greatest(told, window):
    """The result of greatest rank of the window from zero, as plain values."""
    found = [
        (int(part.rank[i]), part, i)
        for part in told
        for i in range(len(part))
        if part.window[i] == window and int(part.start_ms[i]) == 0
    ]
    _, part, at = max(found, key=lambda item: item[0])
    names = ("count", "sum", "min", "max", "mean", "sd", "last_received_ms", "kafka_ms")
    values = {name: getattr(part, name)[at] for name in names}
    extra = {name: column[at] for name, column in part.extra.items()}
    return SimpleNamespace(**values, extra=extra)


@settings(max_examples=60)
@given(values)
def test_refolding_gives_the_same_bits_as_the_engine_and_plain_arithmetic(given_values):
    driver = Driver(make_readings(SETTINGS))
    rows, at_ms = [], 1_000
    for seq, (t_ms, value, pause_ms) in enumerate(given_values):
        at_ms += pause_ms
        number = {"boot": 1, "seq": seq}
        row = {"device": "d", "metric": "m", "t_ms": t_ms, "value": value}
        driver.append(frame({**row, **number}, received_ms=at_ms), at_ms=at_ms)
        names = {"tenant": "default", "site": "default"}
        rows.append({**row, **names, "received_ms": at_ms, "kafka_ms": at_ms})
    driver.run()
    driver.tick(at_ms=at_ms + 50_000)
    told = [decode_windows(value) for value in driver.values("aggregates")]
    last = greatest(told, "w")
    again = refold(SETTINGS, "w", rows, 0)
    assert {name: values[0] for name, values in again.extra.items()} == last.extra
    hopping = refold(SETTINGS, "h", rows, 0)
    assert int(hopping.count[0]) == len(rows)
    assert hopping.sum[0] == greatest(told, "h").sum
    for name in ("count", "sum", "min", "max", "mean", "sd", "last_received_ms", "kafka_ms"):
        ours, theirs = getattr(again, name)[0], getattr(last, name)
        assert np.array_equal(ours, theirs, equal_nan=True), name
    plain = recompute([value for _, value, _ in given_values])
    assert plain == {name: getattr(last, name) for name in plain}
