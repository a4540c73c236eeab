from __future__ import annotations

import pytest

from streams.core.readings import TIME_OF_RECEIPT
from streams.settings import Mapping, MetricSpec
from tests.unit.decoding import RECEIVED_MS, refusal, taken, values

NUMBER = Mapping(topic="t", device="d", metric="temperature", format="number")
AUTO = Mapping(topic="t", device="d", metric="temperature")


@pytest.mark.parametrize("mapping", [NUMBER, AUTO], ids=["number", "auto"])
@pytest.mark.parametrize(
    ("payload", "value"),
    [(b"22.5", 22.5), (b" -3\n", -3.0), (b"+1e3", 1000.0), (b".5", 0.5), (b"7.", 7.0)],
)
def test_a_number_is_one_reading_at_the_time_of_receipt(
    mapping: Mapping, payload: bytes, value: float
) -> None:
    readings = taken(payload, mapping=mapping)
    assert values(readings) == {"temperature": value}
    assert readings.t_ms.tolist() == [RECEIVED_MS]
    assert readings.quality.tolist() == [TIME_OF_RECEIPT]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty-payload"),
        (b"  ", "empty-payload"),
        (b"nan", "not-a-number"),
        (b"inf", "not-a-number"),
        (b"-Infinity", "not-a-number"),
        (b"1e999", "not-a-number"),
        (b"22,5", "not-a-number"),
        (b"1_000", "not-a-number"),
        (b"warm", "not-a-number"),
        (b'"22.5"', "not-a-number"),
        (b"\xff\xfe", "not-a-number"),
        ("٣".encode(), "not-a-number"),
        (b"9223372036854775808", "integer-too-large"),
        (b"9" * 5000, "integer-too-large"),
        (b"0." + b"1" * 100, "not-a-number"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_is_not_a_number_is_refused(payload: bytes, reason: str) -> None:
    assert refusal(payload, mapping=NUMBER)[0] == reason


def test_a_number_needs_to_know_its_metric() -> None:
    reason, detail = refusal(b"1", mapping=Mapping(topic="t", device="d"))
    assert reason == "no-metric"
    assert 'metric = "..."' in detail


def test_a_metric_declared_as_text_takes_the_payload() -> None:
    readings = taken("läuft".encode(), mapping=NUMBER, temperature=MetricSpec(type="text"))
    assert readings.text == {0: "läuft"}
    reason, _ = refusal(b"\xff", mapping=NUMBER, temperature=MetricSpec(type="text"))
    assert reason == "not-text"
