"""Readings as rows of the lake, whatever their codec."""

from __future__ import annotations

import numpy as np

from streams.adapters import frames
from streams.adapters.lake import readings_of
from streams.adapters.reading_records import RecordDecoder
from streams.core.readings import Labels, Readings
from streams.testing import Record

DAY_MS = 86_400_000


def frame():
    return frames.encode(
        Readings(
            *(Labels.constant(name, 2) for name in ("t", "s", "d", "m")),
            np.asarray([1, 2]),
            np.asarray([3, 3]),
            np.asarray([1.5, 2.5]),
            np.zeros(2, np.uint8),
            np.full(2, -1),
            np.asarray([7, 7]),
            {},
            {},
        )
    )


def test_every_codec_becomes_rows_with_their_place_and_the_refused_are_named():
    records = [
        Record(10, DAY_MS - 1, None, frame()),
        Record(11, DAY_MS, b"t/e", b'{"x":1,"t_ms":5,"seq":9}'),
        Record(12, DAY_MS, b"t/e", b'{"x":'),
        Record(13, DAY_MS, b"t/e", b'[{"n":"x","v":2}]'),
    ]
    table, refused = readings_of(3, records, RecordDecoder({}, 10))
    rows = table.to_pylist()
    places = [(r["kafka_partition"], r["kafka_offset"], r["row"], r["day"]) for r in rows]
    assert places == [
        (3, 10, 0, "1970-01-01"),
        (3, 10, 1, "1970-01-01"),
        (3, 11, 0, "1970-01-02"),
        (3, 13, 0, "1970-01-02"),
    ]
    assert [(r["device"], r["metric"], r["value"]) for r in rows] == [
        ("d", "m", 1.5), ("d", "m", 2.5), ("e", "x", 1.0), ("e", "x", 2.0)
    ]  # fmt: skip
    assert [(r["boot"], r["seq"], r["quality"]) for r in rows[1:]] == [
        (None, 7, 0), (None, 9, 0), (None, None, 4)
    ]  # fmt: skip
    assert [r.error.reason for r in refused] == ["malformed-json"]
