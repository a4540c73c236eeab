"""Records of readings decoded together are what they are one by one, whatever their codec.

One record alone always goes by the row codec, so this also shows that reading many as columns
gives the very same.
"""

from __future__ import annotations

from unittest.mock import patch

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams.adapters import frames, record_names
from streams.adapters.reading_records import RecordDecoder
from streams.settings import MetricSpec
from streams.testing import Record
from tests.property.test_codecs import a_frame, as_json, cut, rows, senml_records, trees

METRICS = {"label": MetricSpec(type="text"), "count": MetricSpec(type="integer")}
NOW_MS = 1_764_000_000_000

numbers = st.one_of(
    st.floats(-50, 50),
    st.integers(-5, 5),
    st.sampled_from([2**53 - 1, 2**53, 2**53 + 1, -(2**53), 2**63 - 1, 2**63, 1e300, -0.0, True]),
)
counters = st.one_of(
    st.integers(0, 3),
    st.sampled_from([NOW_MS, -1, 2**63 - 1, 2**63, 1.5, None, True, "2025-06-01T12:00:00Z"]),
)
flat = st.builds(
    lambda metrics, numbering: {**numbering, **metrics},
    st.dictionaries(st.sampled_from(["x", "y", "count", "label", ""]), numbers, max_size=3),
    st.dictionaries(st.sampled_from(["t_ms", "boot", "seq"]), counters, max_size=3),
)
plain = st.builds(
    lambda seq, value: b'{"t_ms":%d,"boot":1,"seq":%d,"x":%r}' % (NOW_MS + seq, seq, value),
    st.integers(0, 1000),
    st.integers(-100, 100),
)
tricky = st.sampled_from(
    [b"", b" ", b'{"a":[1', b"2]}", b'{"x":1},0,{"x":2}', b'{"x":1', b'"y":2}', b'{"x":"', b'"}',
     b'{"x":1,"x":2}', b'{"x":99999999999999999999,"x":1}', b'{"x":0.12345678901234567890}',
     b'{"x":1e999}', b'{"\\u0078":1}', b'{"x\\"":1}', b"[1,0", b"2]", b"]", b"[", b"{}", b"null",
     b'{"x":{}}', b'{"x":NaN}', b"\xff\xff\xff\xff", b'{"x":1}\xff', b"0,0"]
)  # fmt: skip
payloads = st.one_of(
    plain,
    flat.map(as_json),
    tricky,
    trees.map(as_json),
    st.lists(senml_records, max_size=3).map(as_json),
    st.lists(st.dictionaries(st.just("x"), numbers, min_size=1), max_size=3).map(as_json),
    st.sampled_from([a_frame, cut(a_frame, 0.8)]),
    st.binary(max_size=20),
    st.none(),
)
keys = st.one_of(
    st.sampled_from([b"acme/d1", b"acme/d2", b"acme/d3"]),
    st.sampled_from([b"other/d1", b"acme", b"/d", b"acme/", b"a/b/c", b"\xff/d", b"", None]),
)
types = st.sampled_from(
    [b"application/json", b"application/senml+json", b"application/json; charset=utf-8",
     frames.CONTENT_TYPE, b"text/plain", None]
)  # fmt: skip
headers = st.one_of(
    st.just(()),
    types.map(lambda kind: (("content-type", kind),)),
    st.sampled_from([b"north", b"south", b"", b"\xff", b"a/b"]).map(lambda s: (("hw-site", s),)),
)


def record(at, payload, key=b"acme/d1", given=()):
    return Record(at, NOW_MS + at, key, payload, given)


def told(decoded):
    return (
        list(zip(decoded.at.tolist(), decoded.row().tolist(), rows(decoded.readings), strict=True)),
        [(r.at, r.error.reason, r.error.detail, r.source) for r in decoded.refused],
    )


def one_by_one(records):
    accepted, refused = [], []
    for at, one in enumerate(records):
        found, bad = told(RecordDecoder(METRICS, 4).decode([one]))
        accepted += [(at, row, content) for _, row, content in found]
        refused += [(at, *why) for _, *why in bad]
    return accepted, refused


@given(st.lists(st.tuples(payloads, keys, headers), min_size=1, max_size=40))
@settings(max_examples=500)
def test_a_batch_is_what_its_records_are_one_by_one(drawn):
    records = [record(at, *each) for at, each in enumerate(drawn)]
    assert told(RecordDecoder(METRICS, 4).decode(records)) == one_by_one(records)


@given(
    st.lists(plain, min_size=10, max_size=30),
    st.lists(st.tuples(st.integers(0, 30), st.one_of(flat.map(as_json), tricky)), max_size=5),
)
@settings(max_examples=500)
@example([b'{"x":1}'] * 9, [(0, b'{"a":[1'), (1, b"2]}"), (2, b'{"x":1},0,{"x":2}')])
def test_no_message_reaches_into_its_neighbours(many, few):
    for at, payload in few:
        many.insert(at, payload)
    records = [record(at, payload) for at, payload in enumerate(many)]
    assert told(RecordDecoder(METRICS, 4).decode(records)) == one_by_one(records)


@given(st.one_of(tricky, flat.map(as_json)))
@settings(max_examples=300)
@example(b'{"x":99999999999999999999,"x":1}')
@example(b'{"x":9007199254740993}')
@example(b'{"x":1,"x":2}')
@example(b'{"x":true}')
@example(b'{"t_ms":253402300800000,"x":1}')
@example(b'{"seq":9223372036854775808,"x":1}')
@example(b'{"boot":-1,"x":1}')
def test_many_of_one_odd_message_are_what_each_is_alone(payload):
    records = [record(at, payload) for at in range(9)]
    assert told(RecordDecoder(METRICS, 4).decode(records)) == one_by_one(records)


@given(st.lists(flat, min_size=8, max_size=40))
@settings(max_examples=300)
def test_columns_of_any_shape_are_the_rows_in_their_order(items):
    records = [record(at, orjson.dumps(item)) for at, item in enumerate(items)]
    assert told(RecordDecoder(METRICS, 4).decode(records)) == one_by_one(records)


@given(
    st.lists(st.tuples(payloads, keys, headers), min_size=2, max_size=30),
    st.integers(1, 29),
    st.sampled_from([(0, 3), (2, 9), (99, 99)]),
)
@settings(max_examples=200)
def test_what_a_decoder_has_seen_before_changes_nothing(drawn, split, limits):
    records = [record(at, *each) for at, each in enumerate(drawn)]
    many, most = limits
    with patch.multiple(record_names, MANY=many, _MAX_KNOWN=most):
        decoder = RecordDecoder(METRICS, 4)
        decoder.decode(records[:split])
        assert told(decoder.decode(records)) == one_by_one(records)
