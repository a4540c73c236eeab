"""Frames for thin links say the same as plain ones, to the bit, and nothing escapes a bad one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.adapters import frames, packed_frames, zstd
from streams.core.readings import Labels, Readings
from streams.errors import DecodeError

INT64 = st.integers(-(2**63) + 1, 2**63 - 1)
values = st.one_of(
    st.floats(allow_nan=False),
    st.integers(-(10**6), 10**6).map(lambda n: n / 1000),
    st.sampled_from([-0.0, 0.0, 2.0**53, 2.0**53 + 2, 1e-7, 0.1, float("nan")]),
)


@st.composite
def batches(draw: st.DrawFn) -> Readings:
    n = draw(st.integers(1, 30))

    def column(item: st.SearchStrategy, dtype: type) -> np.ndarray:
        return np.array(draw(st.lists(item, min_size=n, max_size=n)), dtype)

    numbered = draw(st.booleans())
    numbers = column(st.integers(0, 2**62), np.int64)
    return Readings(
        Labels.constant("t", n),
        Labels.constant("s", n),
        Labels.of(draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n))),
        Labels.of(draw(st.lists(st.sampled_from("xy"), min_size=n, max_size=n))),
        column(INT64, np.int64),
        column(INT64, np.int64),
        column(draw(st.sampled_from([values, st.just(20.125)])), np.float64),
        column(st.integers(0, 7), np.uint8),
        numbers if numbered else np.full(n, -1),
        numbers if numbered else column(st.integers(-1, 2), np.int64),
        {0: 2**60 + 1} if draw(st.booleans()) else {},
        {n - 1: "text"} if draw(st.booleans()) else {},
    )


def same(one: Readings, other: Readings) -> bool:
    return frames.encode(one) == frames.encode(other)


@given(batches())
def test_a_packed_frame_holds_the_same_readings_to_the_bit(readings: Readings) -> None:
    packed = zstd.compress(frames.encode_packed(readings))
    found = frames.decode(zstd.inflate(packed, 1 << 20))
    assert found.value.tobytes() == readings.value.tobytes()
    assert same(found, readings)


@given(
    st.sampled_from(["t_ms", "value", "quality", "device", "seq"]),
    st.dictionaries(
        st.sampled_from([packed_frames.BASE, packed_frames.DELTA, packed_frames.SCALE]),
        st.sampled_from([b"", b"x", b"1", b"-7", b"9" * 19, b"9" * 30, b"\xff"]),
    ),
)
def test_a_frame_that_says_nonsense_about_its_packing_is_refused_or_read(
    name: str, metadata: dict[bytes, bytes]
) -> None:
    one = np.ones(1, np.int64)
    readings = Readings(
        *(Labels.constant("a", 1) for _ in range(4)), one, one, one * 0.5, np.ones(1, np.uint8),
        one, one, {}, {},
    )  # fmt: skip
    reader = pa.ipc.open_stream(frames.encode_packed(readings))
    batch = reader.read_next_batch()
    at = batch.schema.get_field_index(name)
    schema = batch.schema.set(at, batch.schema.field(at).with_metadata(metadata))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
    try:
        assert len(frames.decode(sink.getvalue().to_pybytes())) == 1
    except DecodeError as error:
        assert error.reason == "frame-schema"


def test_a_steady_series_takes_less_than_six_bytes_a_reading() -> None:
    n = 500
    noise = np.random.default_rng(1).normal(0, 0.05, n)
    readings = Readings(
        *(Labels.constant(name, n) for name in ("tenant", "site", "device", "metric")),
        1_750_000_000_000 + 1_000 * np.arange(n),
        1_750_000_000_020 + 1_000 * np.arange(n) + np.arange(n) * 7 % 13,
        np.round(20 + np.cumsum(noise), 3),
        np.zeros(n, np.uint8),
        np.zeros(n, np.int64),
        np.arange(n),
        {},
        {},
    )
    assert len(zstd.compress(frames.encode_packed(readings))) < 6 * n


def test_a_later_version_is_refused() -> None:
    with pytest.raises(DecodeError, match="this reader knows 1 and 2"):
        frames.decode(frames.write_stream({"t_ms": pa.array([1])}, {b"hw.version": b"3"}))
