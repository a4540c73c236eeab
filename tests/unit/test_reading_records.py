"""Records of readings: how their codec is told, and who sent them."""

from __future__ import annotations

import numpy as np
import pytest

from streams.adapters import frames
from streams.adapters.json_columns import ColumnReader
from streams.adapters.reading_records import RecordDecoder
from streams.core.readings import ABSENT, TIME_OF_RECEIPT, Labels, Readings
from streams.settings import MetricSpec
from streams.testing import Record

NOW_MS = 1_764_000_000_000
OBJECT = b'{"t_ms":1764000000000,"boot":1,"seq":17,"temperature":21.53}'
PACK = b'[{"bn":"d1/","n":"temperature","u":"Cel","v":21.5,"t":-2}]'


def record(value, key=b"acme/d1", **headers):
    given = tuple((name.replace("_", "-"), text) for name, text in headers.items())
    return Record(0, NOW_MS, key, value, given)


def decode(*records):
    return RecordDecoder({}, 10).decode(records)


def rows(decoded):
    r = decoded.readings
    return [
        (r.tenant[i], r.site[i], r.device[i], r.metric[i], int(r.t_ms[i]), float(r.value[i]))
        for i in range(len(r))
    ]


def refusal(one):
    (refused,) = decode(one).refused
    return refused.error.reason, refused.error.detail


def frame():
    labels = (Labels.constant(name, 1) for name in ("t", "s", "d", "m"))
    numbers = np.asarray([5]), np.asarray([6]), np.asarray([1.5]), np.zeros(1, np.uint8)
    return frames.encode(Readings(*labels, *numbers, np.full(1, -1), np.full(1, -1), {}, {}))


def test_without_a_header_the_first_bytes_tell_the_codec():
    decoded = decode(record(OBJECT), record(PACK), record(frame(), key=None))
    assert rows(decoded) == [
        ("acme", "default", "d1", "temperature", NOW_MS, 21.53),
        ("acme", "default", "d1", "temperature", NOW_MS - 2_000, 21.5),
        ("t", "s", "d", "m", 5, 1.5),
    ]
    assert decoded.at.tolist() == [0, 1, 2]


def test_a_header_decides_before_the_first_bytes():
    pack = b'[{"n":"temperature","v":21.5}]'
    assert decode(record(pack, content_type=b"application/senml+json")).refused == []
    assert refusal(record(pack, content_type=b"application/json"))[0] == "not-a-number"
    assert refusal(record(OBJECT, content_type=frames.CONTENT_TYPE))[0] == "truncated-frame"
    kind = b"Application/JSON; charset=utf-8"
    assert len(decode(record(b'[{"a":1},{"a":2}]', content_type=kind)).at) == 2


def test_a_header_that_names_no_codec_leaves_it_to_the_first_bytes():
    assert rows(decode(record(frame(), content_type=b"application/octet-stream")))


def test_site_and_receipt_come_with_the_record():
    decoded = decode(*[record(b'{"a":1,"b":2}', hw_site=b"north")] * 9)
    r = decoded.readings
    assert set(r.site.to_list()) == {"north"}
    assert set(r.t_ms.tolist()) == set(r.received_ms.tolist()) == {NOW_MS}
    assert set(r.quality.tolist()) == {TIME_OF_RECEIPT}
    assert set(r.boot.tolist()) == set(r.seq.tolist()) == {ABSENT}
    assert decoded.row().tolist() == [0, 1] * 9


@pytest.mark.parametrize("key", [None, b"", b"d1", b"/d1", b"acme/", b"a/b/c", b"\xff/d1"])
def test_a_key_that_names_no_device_is_refused_with_what_was_expected(key):
    reason, detail = refusal(record(OBJECT, key=key))
    assert reason == "bad-key"
    assert "expected tenant/device" in detail or "not UTF-8" in detail


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty-payload"),
        (None, "empty-payload"),
        (b"22.5", "unknown-format"),
        (b'{"a":', "malformed-json"),
        (b'{"a":NaN}', "not-a-number"),
        (b'{"a":18446744073709551616}', "integer-too-large"),
        (b"{}", "no-readings"),
        (b'{"a":1,"t_ms":"yesterday"}', "bad-time"),
        (frame()[:-50], "truncated-frame"),
    ],
)
def test_a_poison_record_costs_only_itself_and_says_why(value, reason):
    decoded = decode(*[record(OBJECT)] * 9, record(value), *[record(OBJECT)] * 9)
    assert len(decoded.at) == 18
    ((at, why),) = [(refused.at, refused.error.reason) for refused in decoded.refused]
    assert (at, why) == (9, reason)


def test_plain_objects_are_read_as_columns_and_others_are_left():
    reader = ColumnReader({"label": MetricSpec(type="text")}, 2)
    (block,) = reader.read([OBJECT] * 8 + [b'{"label":"x"}', None, b'{"temperature":[1]}'])
    assert block.at.tolist() == list(range(8))
    assert block.metrics == ("temperature",)
    assert block.value.tolist() == [[21.53]] * 8
    assert reader.read([b'{"a":1,"b":2,"c":3}'] * 8) == []
    assert reader.read([OBJECT] * 7) == []


def test_two_shapes_of_one_batch_are_two_blocks():
    both = [b'{"a":1,"seq":4}', b'{"b":1.5,"a":2}'] * 8
    first, second = ColumnReader({}, 10).read(both)
    assert (first.metrics, first.at.tolist()) == (("a",), list(range(0, 16, 2)))
    assert (second.metrics, second.at.tolist()) == (("b", "a"), list(range(1, 16, 2)))
    assert first.seq.tolist() == [4] * 8
    assert second.seq is None
