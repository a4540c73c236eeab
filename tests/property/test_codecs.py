"""Codecs on any input: whole messages or none, one reason each, and nothing else escapes."""

from __future__ import annotations

import math
from typing import Any

import cbor2
import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.adapters import frames
from streams.adapters.rows import RowBuilder, Source
from streams.core.placement import partition_of
from streams.core.readings import Labels, Readings, concat_readings
from streams.errors import DecodeError
from streams.gateway.records import frame_records
from streams.intake.decode import BatchDecoder, Message, decode_frame
from streams.intake.mapping import TopicMap
from streams.settings import Mapping, MetricSpec

RECEIVED_MS = 1_750_000_000_000
FORMATS = ("auto", "json", "senml", "number", "frame")
TOPICS = TopicMap(
    [
        Mapping.model_validate({"topic": f"{kind}/{{device}}", "metric": "m", "format": kind})
        for kind in FORMATS
    ]
    + [Mapping(topic="free/{device}"), Mapping(topic="field", device_field="id")]
)
METRICS = {"label": MetricSpec(type="text"), "count": MetricSpec(type="integer")}

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64]),
)
names = st.one_of(
    st.sampled_from(["a", "b", "t_ms", "seq", "boot", "id", "label", "count", "n", "bn", "v", "t"]),
    st.text(max_size=6),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)
senml_records = st.dictionaries(
    st.sampled_from(["bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "v", "vs", "vb", "s", "t"]),
    st.one_of(scalars, st.sampled_from(["x:", "dev", 10, 1.5, -3])),
    max_size=5,
)


def as_json(tree: Any) -> bytes:
    try:
        return orjson.dumps(tree)
    except TypeError:  # integers beyond 64 bits
        return repr(tree).replace("'", '"').replace("None", "null").encode(errors="replace")


def cut(payload: bytes, at: float) -> bytes:
    return payload[: int(len(payload) * at)]


a_frame = frames.encode(
    Readings(
        Labels.constant("acme", 3),
        Labels.constant("north", 3),
        Labels.of(["d1", "d2", "d1"]),
        Labels.constant("m", 3),
        np.array([1, 2, 3]),
        np.array([1, 2, 3]),
        np.array([1.0, 2.0, 3.0]),
        np.zeros(3, np.uint8),
        np.full(3, -1),
        np.full(3, -1),
        {},
        {},
    )
)

payloads = st.one_of(
    st.binary(max_size=200),
    trees.map(as_json),
    st.lists(senml_records, max_size=4).map(as_json),
    st.lists(senml_records, max_size=4).map(cbor2.dumps),
    st.builds(cut, trees.map(as_json), st.floats(0, 1)),
    st.builds(cut, st.just(a_frame), st.floats(0, 1)),
    st.builds(
        lambda at, byte: a_frame[:at] + bytes([byte]) + a_frame[at + 1 :],
        st.integers(0, len(a_frame) - 1),
        st.integers(0, 255),
    ),
    st.floats().map(lambda value: str(value).encode()),
)
topics = st.sampled_from(
    [*(f"{kind}/dev" for kind in FORMATS), "free/d", "field", "hw/v1/acme/north/up", "unmapped",
     "free/", "free/a\0b"]
)  # fmt: skip
messages = st.builds(Message, topics, payloads, st.just(RECEIVED_MS))


def new_decoder() -> BatchDecoder:
    return BatchDecoder(TOPICS, METRICS, 50, 10_000)


def rows(readings: Readings) -> list[tuple[Any, ...]]:
    columns = [
        readings.tenant.to_list(),
        readings.site.to_list(),
        readings.device.to_list(),
        readings.metric.to_list(),
        readings.t_ms.tolist(),
        readings.received_ms.tolist(),
        [None if math.isnan(value) else value for value in readings.value.tolist()],
        readings.quality.tolist(),
        readings.boot.tolist(),
        readings.seq.tolist(),
        [readings.exact_int.get(row) for row in range(len(readings))],
        [readings.text.get(row) for row in range(len(readings))],
    ]
    return list(zip(*columns, strict=True))


@given(st.lists(messages, max_size=8))
@settings(max_examples=400)
def test_a_batch_is_the_same_as_its_messages_one_by_one(batch: list[Message]) -> None:
    together = new_decoder().decode(batch)
    single = [new_decoder().decode([message]) for message in batch]
    expected = concat_readings([one.readings for one in single if len(one.readings)])
    assert rows(together.readings) == rows(expected)
    refused = [
        (at, one.refused[0].reason, one.refused[0].detail)
        for at, one in enumerate(single)
        if one.refused
    ]
    assert [(one.index, one.reason, one.detail) for one in together.refused] == refused


@given(messages)
@settings(max_examples=600)
def test_a_message_gives_readings_or_one_reason(message: Message) -> None:
    decoded = new_decoder().decode([message])
    assert (len(decoded.readings) > 0) != (len(decoded.refused) > 0)
    for row, value in enumerate(decoded.readings.value.tolist()):
        assert math.isfinite(value) or row in decoded.readings.text
    for refused in decoded.refused:
        assert refused.reason.replace("-", "").isalnum()
        assert refused.detail


@given(st.lists(messages, max_size=12), st.integers(1, 16), st.integers(1, 20))
@settings(max_examples=200)
def test_frames_carry_every_row_once_in_order_in_its_partition(
    batch: list[Message], partitions: int, max_rows: int
) -> None:
    readings = new_decoder().decode(batch).readings
    found: dict[int, list[tuple[Any, ...]]] = {}
    for record in frame_records(readings, partitions, max_rows):
        assert record.partition is not None
        assert record.value is not None
        assert record.headers["hw-partitions"] == b"%d" % partitions
        found.setdefault(record.partition, []).extend(rows(frames.decode(record.value)))
    expected: dict[int, list[tuple[Any, ...]]] = {}
    for row in rows(readings):
        expected.setdefault(partition_of(row[0], row[2], partitions), []).append(row)
    assert found == expected


@given(st.binary(max_size=400) | payloads)
@settings(max_examples=400)
def test_frames_of_any_bytes_raise_nothing_but_decode_errors(payload: bytes) -> None:
    try:
        readings = decode_frame(payload, Source("acme", "north", None, None), 100)
    except DecodeError:
        return
    assert len(readings) > 0
    frames.encode(readings)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), scalars), max_size=10))
def test_rolling_back_leaves_no_trace(items: list[tuple[str, object]]) -> None:
    source = Source("t", "s", "d", None)
    builder, clean = RowBuilder(METRICS, 100), RowBuilder(METRICS, 100)
    for either in (builder, clean):
        either.mark()
        either.begin(source, "d", 1, RECEIVED_MS)
        either.add("first", 2**60 + 1)
    mark = builder.mark()
    builder.begin(source, "d", 2, RECEIVED_MS)
    for name, value in items:
        try:
            builder.add(name, value)
        except DecodeError:
            break
    builder.rollback(mark)
    assert rows(builder.finish()) == rows(clean.finish())
