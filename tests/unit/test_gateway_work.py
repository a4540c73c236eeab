"""What becomes of deliveries: records and answers."""

from __future__ import annotations

import orjson
import pytest

from streams.adapters import frames, zstd
from streams.adapters.results import decode_windows
from streams.core.placement import partition_of
from streams.core.readings import Readings
from streams.gateway.link import Delivery
from streams.gateway.work import Work, work_of
from streams.intake.decode import BatchDecoder, Message
from streams.intake.mapping import TopicMap
from streams.intake.uplink_wire import BatchHeader, Encoding, Kind, encode_header
from streams.settings import Gateway, Mapping
from streams.topics import (
    AGGREGATES,
    BACKFILL,
    EDGE_ALERTS,
    EDGE_STATUS,
    LOSSES,
    READINGS,
    REJECTED,
)
from tests.unit.packet_bytes import user_property
from tests.windows import result, results_frame

UP = "hw/v1/acme/north/up"
LIMITS = Gateway(max_payload_bytes=20_000, max_inflated_bytes=40_000)
SENSOR = Mapping(topic="s/{device}", tenant="acme", site="north")


def decoder() -> BatchDecoder:
    return BatchDecoder(TopicMap([SENSOR]), {}, 10_000, LIMITS.max_payload_bytes)


def readings(rows: int = 3) -> Readings:
    objects = orjson.dumps([{"a": n, "t_ms": n} for n in range(rows)])
    return decoder().decode([Message("s/pump", objects, 9)]).readings


def batch(
    payload: bytes,
    *,
    id: str = "5p/fresh/1",
    kind: Kind = Kind.READINGS,
    encoding: Encoding = Encoding.IDENTITY,
    topic: str = UP,
    origin: int = 0,
) -> Delivery:
    header = encode_header(BatchHeader(id, kind, encoding))
    properties = b"".join(user_property(*pair) for pair in header)
    return Delivery(topic, payload, 1, 1, 7, properties, origin)


def work(*deliveries: Delivery) -> Work:
    return work_of(deliveries, decoder(), LIMITS, 4)


def topics(done: Work) -> list[str]:
    return sorted({record.topic for record in done.records})


@pytest.mark.parametrize("encoding", Encoding)
def test_readings_of_an_edge_become_frames_and_are_confirmed(encoding: Encoding) -> None:
    frame = frames.encode(readings())
    payload = zstd.compress(frame) if encoding is Encoding.ZSTD else frame
    done = work(batch(payload, encoding=encoding))
    assert topics(done) == [READINGS]
    assert len(done.readings) == 3
    told = done.answers[0, "acme", "north"]
    assert told.batches == ["5p/fresh/1"]
    assert told.refused == []


def test_a_backfill_goes_to_its_own_topic_and_is_not_counted_as_readings() -> None:
    frame = frames.encode(readings())
    bad = batch(b"no frame", id="5p/backfill/2", kind=Kind.BACKFILL)
    done = work(batch(frame, kind=Kind.BACKFILL), bad)
    assert topics(done) == [BACKFILL, REJECTED]
    (raw,) = [frames.decode(one.value) for one in done.records if one.topic == BACKFILL]
    assert len(raw) == 3
    assert not len(done.readings)
    told = done.answers[0, "acme", "north"]
    assert told.batches == ["5p/fresh/1"]
    assert [one.batch for one in told.refused] == ["5p/backfill/2"]


def test_windows_of_an_edge_go_to_aggregates_and_those_of_another_site_are_refused() -> None:
    told = {"site": "north", "source": "edge"}
    frame = results_frame(result(0, 1.0, **told), result(1, 2.0, **told), tenant="acme")
    foreign = results_frame(result(0, 1.0, site="south", source="edge"), tenant="acme")
    done = work(
        batch(zstd.compress(frame + frame), kind=Kind.WINDOWS, encoding=Encoding.ZSTD),
        batch(foreign, id="5p/windows/2", kind=Kind.WINDOWS),
        batch(frame[:-20], id="5p/windows/3", kind=Kind.WINDOWS),
    )
    assert topics(done) == [AGGREGATES, REJECTED]
    (record,) = [one for one in done.records if one.topic == AGGREGATES]
    assert record.partition == partition_of("acme", "d", 4)
    assert decode_windows(record.value or b"").mean.tolist() == [1.0, 2.0, 1.0, 2.0]
    told_of = done.answers[0, "acme", "north"]
    assert told_of.batches == ["5p/fresh/1"]
    assert [one.reason.split(":")[0] for one in told_of.refused] == [
        "wrong-site",
        "malformed-frame",
    ]


@pytest.mark.parametrize(
    ("kind", "topic"),
    [(Kind.LOSSES, LOSSES), (Kind.STATUS, EDGE_STATUS), (Kind.ALERTS, EDGE_ALERTS)],
)
def test_other_kinds_go_to_their_topics_with_site_and_batch(kind: Kind, topic: str) -> None:
    payload = b'[{"tenant": "acme", "count": 3}, {}]'
    done = work(batch(zstd.compress(payload), kind=kind, encoding=Encoding.ZSTD))
    (record,) = done.records
    assert (record.topic, record.key, record.value) == (topic, b"acme/north", payload)
    assert record.headers["hw-batch"] == b"5p/fresh/1"
    assert done.answers[0, "acme", "north"].batches == ["5p/fresh/1"]


@pytest.mark.parametrize(
    ("delivery", "reason"),
    [
        (batch(b"no frame"), "truncated-frame"),
        (batch(b"no zstd", encoding=Encoding.ZSTD), "malformed-zstd"),
        (batch(zstd.compress(bytes(50_000)), encoding=Encoding.ZSTD), "payload-too-large"),
        (batch(bytes(20_001)), "payload-too-large"),
        (batch(frames.encode(readings()), topic="hw/v1/acme/south/up"), "wrong-site"),
        (batch(b"{", kind=Kind.STATUS), "malformed-json"),
        (batch(b"[3]", kind=Kind.LOSSES), "not-an-object"),
        (batch(b'{"site": "south"}', kind=Kind.STATUS), "wrong-site"),
        (batch(b'[{"tenant": "other"}]', kind=Kind.LOSSES), "wrong-tenant"),
        (
            batch(zstd.compress(b" " * 20_001), kind=Kind.STATUS, encoding=Encoding.ZSTD),
            "payload-too-large",
        ),
    ],
)
def test_poison_is_refused_for_good_and_kept_in_rejected(delivery: Delivery, reason: str) -> None:
    done = work(batch(frames.encode(readings()), id="good"), delivery)
    assert topics(done) == [READINGS, REJECTED]
    assert [one.reason for one in done.refused] == [reason]
    refused = [one for told in done.answers.values() for one in told.refused]
    assert [(one.batch, one.retry_after_ms) for one in refused] == [("5p/fresh/1", None)]
    assert refused[0].reason.startswith(f"{reason}: ")
    assert [one for told in done.answers.values() for one in told.batches] == ["good"]


def test_a_batch_without_a_readable_id_is_rejected_and_nobody_is_told() -> None:
    bad = Delivery(UP, b"x", 1, 1, 7, user_property("hw.batch", "a b"))
    done = work(bad)
    assert topics(done) == [REJECTED]
    assert [one.reason for one in done.refused] == ["bad-uplink"]
    assert done.answers == {}


@pytest.mark.parametrize("topic", ["hw/v1/acme/north/twin/up", "hw/v1/acme/up", "hw/v1/a/b/c/d/up"])
def test_a_batch_on_a_topic_of_no_site_is_not_answered(topic: str) -> None:
    done = work(batch(b"{}", kind=Kind.STATUS, topic=topic))
    assert done.answers == {}
    assert EDGE_STATUS not in topics(done)


def test_a_site_without_a_name_is_refused() -> None:
    done = work(batch(b"{}", kind=Kind.STATUS, topic="hw/v1//north/up"))
    assert [one.reason for one in done.refused] == ["bad-name"]


def test_a_frame_without_a_batch_needs_no_answer() -> None:
    plain = Delivery(UP, frames.encode(readings()), 1, 1, 7, user_property("trace", "1"))
    done = work(plain)
    assert topics(done) == [READINGS]
    assert done.answers == {}


def test_devices_beside_edges_keep_their_order_and_refusals_their_places() -> None:
    good = Delivery("s/pump", b'{"a": 1}', 1, 1, 7)
    bad = Delivery("s/pump", b"{", 2, 1, 7)
    done = work(good, batch(b"{}", kind=Kind.STATUS), bad, batch(frames.encode(readings()), id="f"))
    assert done.readings.value.tolist() == [1, 0, 1, 2]
    assert [(one.index, one.reason) for one in done.refused] == [(2, "malformed-json")]


def test_answers_are_by_broker_and_site() -> None:
    frame = frames.encode(readings())
    done = work(batch(frame, id="a"), batch(frame, id="b", origin=1), batch(frame, id="c"))
    assert {place: told.batches for place, told in done.answers.items()} == {
        (0, "acme", "north"): ["a", "c"],
        (1, "acme", "north"): ["b"],
    }


def test_what_inflates_beyond_all_proportion_is_left_for_the_next_turn() -> None:
    bomb = batch(zstd.compress(bytes(40_000)), encoding=Encoding.ZSTD)
    done = work(*[bomb] * 100)
    assert done.taken == 5
    assert sum(len(told.refused) for told in done.answers.values()) == 5
