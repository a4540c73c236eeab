"""Decoding one payload as a batch of one, for the tests of codecs."""

from __future__ import annotations

from typing import Any

from streams.core.readings import Readings
from streams.intake.decode import BatchDecoder, Decoded, Message
from streams.intake.mapping import TopicMap
from streams.settings import Mapping, MetricSpec

RECEIVED_MS = 1_750_000_000_123


def decoder(
    mapping: Mapping | None = None, *, max_rows: int = 1_000, **metrics: MetricSpec
) -> BatchDecoder:
    mapping = mapping or Mapping(topic="t", device="dev")
    return BatchDecoder(TopicMap([mapping]), metrics, max_rows, 262_144)


def decode(payload: bytes, *, topic: str = "t", **options: Any) -> Decoded:
    return decoder(**options).decode([Message(topic, payload, RECEIVED_MS)])


def taken(payload: bytes, **options: Any) -> Readings:
    decoded = decode(payload, **options)
    assert decoded.refused == []
    return decoded.readings


def refusal(payload: bytes, **options: Any) -> tuple[str, str]:
    decoded = decode(payload, **options)
    assert len(decoded.readings) == 0
    (one,) = decoded.refused
    return one.reason, one.detail


def values(readings: Readings) -> dict[str, float]:
    return dict(zip(readings.metric.to_list(), readings.value.tolist(), strict=True))
