"""The examples of RFC 8428, section 5, and what a pack must not be."""

from __future__ import annotations

import cbor2
import pytest

from streams.settings import Mapping, MetricSpec
from tests.unit.decoding import RECEIVED_MS, refusal, taken, values

MAPPING = Mapping(topic="t", device_field="bn", format="senml")


def test_rfc_5_1_1_single_datapoint() -> None:
    readings = taken(b'[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]')
    assert values(readings) == {"urn:dev:ow:10e2073a01080063": 23.1}
    assert readings.t_ms.tolist() == [RECEIVED_MS]


def test_rfc_5_1_2_multiple_datapoints_with_relative_times() -> None:
    readings = taken(
        b'[{"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,'
        b'"n":"voltage","u":"V","v":120.1},{"n":"current","t":-5,"v":1.2},'
        b'{"n":"current","t":-4,"v":1.3},{"n":"current","v":1.7}]',
        mapping=MAPPING,
    )
    assert set(readings.device.to_list()) == {"urn:dev:ow:10e2073a0108006"}
    assert readings.metric.to_list() == ["voltage", "current", "current", "current"]
    now_ms = 1_276_020_076_001
    assert readings.t_ms.tolist() == [now_ms, now_ms - 5000, now_ms - 4000, now_ms]
    assert readings.value.tolist() == [120.1, 1.2, 1.3, 1.7]


def test_rfc_5_1_3_base_name_and_time_of_receipt_less_seconds() -> None:
    readings = taken(
        b'[{"bn":"urn:dev:ow:10e2073a01080063:","bt":-30,"n":"a","v":20},{"n":"b","t":-10,"v":21},'
        b'{"n":"c","t":30,"v":22}]',
        mapping=MAPPING,
    )
    assert readings.t_ms.tolist() == [RECEIVED_MS - 30_000, RECEIVED_MS - 40_000, RECEIVED_MS]


def test_rfc_5_1_4_values_of_every_type() -> None:
    payload = (
        b'[{"bn":"urn:dev:ow:10e2073a01080063:","n":"temp","u":"Cel","v":23.1},'
        b'{"n":"label","vs":"Machine Room"},{"n":"open","vb":false},'
        b'{"n":"nfc-reader","vd":"aGkgCg"}]'
    )
    text = MetricSpec(type="text")
    readings = taken(payload, mapping=MAPPING, label=text, **{"nfc-reader": text})
    assert readings.value.tolist()[::2] == [23.1, 0.0]
    assert readings.text == {1: "Machine Room", 3: "aGkgCg"}
    assert refusal(payload, mapping=MAPPING)[0] == "not-a-number"


def test_rfc_5_1_5_sums() -> None:
    readings = taken(
        b'[{"bn":"urn:dev:ow:1:","n":"power","u":"W","v":1500,"s":10},{"n":"energy","s":7}]',
        mapping=MAPPING,
    )
    assert values(readings) == {"power": 1500.0, "power.sum": 10.0, "energy.sum": 7.0}


def test_base_values_and_base_sums_are_added() -> None:
    readings = taken(b'[{"bn":"x:","bv":20,"bs":100},{"n":"a","v":1.5,"s":2}]', mapping=MAPPING)
    assert values(readings) == {"a": 21.5, "a.sum": 102.0}


def test_cbor_packs_are_read_as_json_ones() -> None:
    pack = [{-2: "urn:dev:ow:10e2073a0108006:", -3: 1_276_020_076, 0: "voltage", 2: 120.5}]
    readings = taken(cbor2.dumps(pack), mapping=MAPPING)
    assert values(readings) == {"voltage": 120.5}
    assert readings.t_ms.tolist() == [1_276_020_076_000]


def test_a_base_name_that_repeats_the_device_of_the_topic_is_left_out() -> None:
    mapping = Mapping(topic="m/{device}")
    own = b'[{"bn":"urn:dev:mac:0024befffe804ff1:","n":"t","v":1}]'
    other = b'[{"bn":"sensor7/","n":"t","v":1}]'
    readings = taken(own, mapping=mapping, topic="m/0024befffe804ff1")
    assert readings.metric.to_list() == ["t"]
    readings = taken(other, mapping=mapping, topic="m/0024befffe804ff1")
    assert readings.metric.to_list() == ["sensor7/t"]


def test_units_are_converted_to_the_catalogues() -> None:
    celsius = MetricSpec(unit="Cel")
    pack = b'[{"n":"t","u":"K","v":300.15},{"n":"t","u":"Cel","v":1},{"n":"t","v":2}]'
    assert taken(pack, t=celsius).value.tolist() == pytest.approx([27.0, 1.0, 2.0])
    assert refusal(b'[{"n":"t","u":"lm","v":1}]', t=celsius)[0] == "unknown-unit"


def test_base_fields_alone_apply_to_what_follows() -> None:
    assert values(taken(b'[{"bn":"a:"},{"n":"x","v":1}]', mapping=MAPPING)) == {"x": 1.0}


def test_a_list_of_json_objects_is_not_taken_for_senml() -> None:
    assert values(taken(b'[{"v": 1, "u": 2}]')) == {"v": 1.0, "u": 2.0}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty-payload"),
        (b"[", "malformed-json"),
        (b'{"n":"a","v":1}', "malformed-senml"),
        (b"[1]", "malformed-senml"),
        (b"[]", "no-readings"),
        (b'[{"bn":"a:"}]', "no-readings"),
        (b'[{"bn":"a:","n":"x"}]', "malformed-senml"),
        (b'[{"bn":"a:","n":"x","v":1,"vb":true}]', "malformed-senml"),
        (b'[{"bn":"a:","n":"x","v":1,"must_":1}]', "malformed-senml"),
        (b'[{"bn":"a:","bver":11,"n":"x","v":1}]', "senml-version"),
        (b'[{"bn":"a:","n":"x","v":"1"}]', "not-a-number"),
        (b'[{"bn":"a:","n":"x","v":NaN}]', "not-a-number"),
        (b'[{"bn":"a:","n":"x","vb":1}]', "not-a-number"),
        (b'[{"bn":"a:","n":"x","v":99999999999999999999}]', "integer-too-large"),
        (b'[{"bn":"a:","n":"x y","v":1}]', "bad-name"),
        (b'[{"bn":"-a:","n":"x","v":1}]', "bad-name"),
        (b'[{"bn":5,"n":"x","v":1}]', "bad-name"),
        (b'[{"n":"x","v":1}]', "bad-name"),
        (b'[{"bn":"a:","n":"x","t":"now","v":1}]', "bad-time"),
        (b'[{"bn":"a:","n":"x","t":1e300,"v":1}]', "bad-time"),
        (b'[{"bn":"a:","n":"x","t":-1e12,"v":1}]', "bad-time"),
        (b"\x9f\x00", "malformed-cbor"),
        (b"\x81\x01", "malformed-senml"),
        (b"\x81\xa1\x18\x63\x01", "malformed-senml"),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_what_is_not_a_pack_is_refused(payload: bytes, reason: str) -> None:
    assert refusal(payload, mapping=MAPPING)[0] == reason
