from __future__ import annotations

import math

import pytest

from streams.core.readings import ABSENT, TIME_OF_RECEIPT
from streams.settings import Mapping, MetricSpec
from tests.unit.decoding import RECEIVED_MS, refusal, taken, values

TEXT = MetricSpec(type="text")
INTEGER = MetricSpec(type="integer")


def test_each_field_of_an_object_is_a_reading() -> None:
    readings = taken(b'{"temperature": 22.5, "humidity": 45}')
    assert values(readings) == {"temperature": 22.5, "humidity": 45.0}
    assert readings.device.to_list() == ["dev", "dev"]


def test_without_a_time_the_time_of_receipt_is_taken_and_flagged() -> None:
    readings = taken(b'{"a": 1}')
    assert readings.t_ms.tolist() == [RECEIVED_MS]
    assert readings.quality.tolist() == [TIME_OF_RECEIPT]
    assert readings.seq.tolist() == [ABSENT]


def test_time_seq_and_boot_belong_to_all_rows_of_the_message() -> None:
    readings = taken(b'{"t_ms": 1700000000000, "seq": 7, "boot": 2, "a": 1, "b": 2}')
    assert readings.t_ms.tolist() == [1_700_000_000_000] * 2
    assert readings.received_ms.tolist() == [RECEIVED_MS] * 2
    assert readings.quality.tolist() == [0, 0]
    assert readings.seq.tolist() == [7, 7]
    assert readings.boot.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("unit", "given", "t_ms"),
    [
        ("ms", "1700000000123", 1_700_000_000_123),
        ("ms", "1700000000123.9", 1_700_000_000_123),
        ("s", "1700000000", 1_700_000_000_000),
        ("s", "1700000000.123", 1_700_000_000_123),
        ("us", "1700000000123456", 1_700_000_000_123),
        ("ns", "1700000000123456789", 1_700_000_000_123),
        ("ms", '"2023-11-14T22:13:20Z"', 1_700_000_000_000),
        ("ms", '"2023-11-14T22:13:20.123"', 1_700_000_000_123),
        ("s", '"2023-11-14T23:13:20+01:00"', 1_700_000_000_000),
    ],
)
def test_times_in_every_unit_and_as_iso_8601(unit: str, given: str, t_ms: int) -> None:
    mapping = Mapping.model_validate(
        {"topic": "t", "device": "d", "time_unit": unit, "time_field": "when"}
    )
    readings = taken(f'{{"when": {given}, "a": 1}}'.encode(), mapping=mapping)
    assert readings.t_ms.tolist() == [t_ms]


@pytest.mark.parametrize(
    "given", ["-1", "1e300", "true", "[]", '"yesterday"', "253402300800000", '"0001-01-01"']
)
def test_a_time_that_is_none_refuses_the_message(given: str) -> None:
    assert refusal(f'{{"t_ms": {given}, "a": 1}}'.encode())[0] == "bad-time"


def test_time_of_receipt_by_setting_ignores_the_payloads_time() -> None:
    mapping = Mapping(topic="t", device="d", time="receipt")
    readings = taken(b'{"t_ms": "nonsense", "a": 1}', mapping=mapping)
    assert readings.t_ms.tolist() == [RECEIVED_MS]
    assert values(readings) == {"a": 1.0}


def test_nested_objects_are_flattened_with_dots() -> None:
    assert values(taken(b'{"air": {"t": 1, "h": {"rel": 2}}, "x": 3}')) == {
        "air.t": 1.0,
        "air.h.rel": 2.0,
        "x": 3.0,
    }


def test_booleans_count_as_0_and_1_and_null_means_no_reading() -> None:
    assert values(taken(b'{"on": true, "off": false, "gone": null}')) == {"on": 1.0, "off": 0.0}


def test_a_metric_of_the_topic_is_the_field_value_and_prefixes_the_others() -> None:
    mapping = Mapping(topic="{device}/{metric}")
    readings = taken(b'{"value": 1, "min": 0}', mapping=mapping, topic="d/temp")
    assert values(readings) == {"temp": 1.0, "temp.min": 0.0}


def test_a_list_of_objects_is_several_messages_rows() -> None:
    readings = taken(b'[{"seq": 1, "a": 1, "b": 2}, {"seq": 2, "a": 3}]')
    assert readings.seq.tolist() == [1, 1, 2]
    assert readings.value.tolist() == [1.0, 2.0, 3.0]


def test_a_list_is_taken_or_refused_as_a_whole() -> None:
    assert refusal(b'[{"a": 1}, {"a": "x"}]')[0] == "not-a-number"


def test_the_device_may_be_a_field_of_the_payload() -> None:
    mapping = Mapping(topic="t", device_field="id")
    readings = taken(b'[{"id": "p1", "a": 1}, {"id": 2, "a": 1}]', mapping=mapping)
    assert readings.device.to_list() == ["p1", "2"]
    assert refusal(b'{"a": 1}', mapping=mapping)[0] == "bad-name"
    assert refusal(b'{"id": "a/b", "a": 1}', mapping=mapping)[0] == "bad-name"


def test_integers_that_float64_cannot_hold_are_kept_exactly() -> None:
    readings = taken(b'{"a": 9007199254740993, "b": 9007199254740992, "c": -9223372036854775808}')
    assert readings.exact_int == {0: 9_007_199_254_740_993, 2: -(2**63)}
    assert readings.value[1] == 2.0**53


@pytest.mark.parametrize(
    "token",
    ["9223372036854775808", "18446744073709551616", "-9223372036854775809", "1" * 5000],
    ids=lambda token: token[:25],
)
def test_integers_beyond_64_bits_are_refused_not_rounded(token: str) -> None:
    assert refusal(f'{{"a": {token}}}'.encode())[0] == "integer-too-large"


def test_large_floats_and_long_fractions_are_not_mistaken_for_integers() -> None:
    readings = taken(b'{"a": 1e20, "b": 0.12345678901234567890123, "c": 12345678901234567890.5}')
    assert readings.value.tolist() == [1e20, 0.12345678901234568, 12345678901234567890.5]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty-payload"),
        (b" \r\n", "empty-payload"),
        (b'{"a": 1', "malformed-json"),
        (b'{"a": 1}}', "malformed-json"),
        (b"{a: 1}", "malformed-json"),
        (b'{"a": "\xff"}', "malformed-json"),
        (b'{"a": NaN}', "not-a-number"),
        (b'{"a": Infinity}', "not-a-number"),
        (b'{"a": -Infinity}', "not-a-number"),
        (b'{"a": 1e999}', "not-a-number"),
        (b'{"a": "22.5"}', "not-a-number"),
        (b'{"a": [1, 2]}', "not-a-number"),
        (b'{"a": {"b": "x"}}', "not-a-number"),
        (b'{"": 1}', "bad-name"),
        (b'{"a\\u0000b": 1}', "bad-name"),
        (b"{}", "no-readings"),
        (b"[]", "no-readings"),
        (b'{"a": null}', "no-readings"),
        (b"[1, 2]", "not-an-object"),
        (b'{"seq": "1", "a": 1}', "bad-seq"),
        (b'{"seq": -1, "a": 1}', "bad-seq"),
        (b'{"boot": 1.5, "a": 1}', "bad-seq"),
        (b'{"a":' * 9 + b"1" + b"}" * 9, "too-deep"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "too-deep"),
        (b"[" * 100_000, "too-deep"),
        (b"[" * 1_000 + b"1234567890123456789" + b"]" * 1_000, "too-deep"),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else value,
)
def test_bad_payloads_are_refused_with_a_plain_reason(payload: bytes, reason: str) -> None:
    found, detail = refusal(payload)
    assert found == reason
    assert detail


def test_too_many_fields_are_refused() -> None:
    payload = b"{" + b",".join(b'"m%d":1' % n for n in range(11)) + b"}"
    assert refusal(payload, max_rows=10)[0] == "too-many-fields"
    assert len(taken(payload, max_rows=11)) == 11


def test_the_catalogue_decides_types() -> None:
    readings = taken(b'{"state": "idle", "n": 3.0}', state=TEXT, n=INTEGER)
    assert readings.text == {0: "idle"}
    assert math.isnan(readings.value[0])
    assert readings.value[1] == 3.0
    assert refusal(b'{"n": 3.5}', n=INTEGER)[0] == "not-an-integer"
    assert refusal(b'{"state": 3}', state=TEXT)[0] == "not-text"
    assert refusal(b'{"state": "%s"}' % (b"x" * 5000), state=TEXT)[0] == "text-too-long"
