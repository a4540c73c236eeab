"""Rows of series, looked up by the batch, are those that one look-up each would find."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.adapters.results import decode_windows
from streams.core import series_rows
from streams.core.series_rows import SeriesRows
from tests.windows import result, results_frame

series = st.tuples(
    st.sampled_from(["a", "b", "c"]), st.sampled_from(["n", "s"]), st.sampled_from(["x", "y"])
)


def learn(names, window):
    """As many rows as the device has, each with what tells it apart."""
    rows = [f"{'/'.join(names)}/{window}/{i}" for i in range("abc".index(names.device))]
    return {"name": np.asarray(rows, object)}


@given(st.lists(st.lists(series, min_size=1, max_size=8), max_size=6), st.integers(1, 6))
def test_every_result_finds_the_rows_of_its_series(batches, remembered):
    table = SeriesRows({"name": (object, "")}, learn)
    before, series_rows._REMEMBERED = series_rows._REMEMBERED, remembered
    try:
        for batch in batches:
            rows = (result(0, 1, device=d, site=s, metric=m) for d, s, m in batch)
            found = decode_windows(results_frame(*rows))
            row, place = table.pair(found, np.arange(len(batch)))
            names = table.columns["name"][place].tolist()
            wanted = [
                (i, f"t/{s}/{d}/{m}/1m/{k}")
                for i, (d, s, m) in enumerate(batch)
                for k in range("abc".index(d))
            ]
            assert list(zip(row.tolist(), names, strict=True)) == wanted
    finally:
        series_rows._REMEMBERED = before
