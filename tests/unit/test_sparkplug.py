"""Sparkplug B: bytes of another make, births, aliases, sequence, rebirth, death."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.adapters.rows import RowBuilder
from streams.adapters.sparkplug_payload import (
    BD_SEQ,
    REBIRTH,
    DataType,
    Metric,
    Payload,
    decode,
    encode,
    rebirth,
    signed,
)
from streams.core.readings import TIME_OF_RECEIPT, Readings
from streams.errors import DecodeError
from streams.intake.sparkplug import ONLINE, SparkplugHost, command_topic
from streams.settings import MetricSpec

NOW = 1_764_000_000_000
NODE = ("plant", "line-1")
CATALOGUE = {"state": MetricSpec(type="text")}


class Listening:
    """A host and the rows it made."""

    def __init__(self, max_metrics: int = 100) -> None:
        self.host = SparkplugHost(max_metrics)
        self.rows = RowBuilder(CATALOGUE, 100)

    def hear(
        self, kind: str, *metrics: Metric, seq: int | None = None, now: int = NOW, t: int | None = 7
    ) -> tuple[str, str] | None:
        device = "/press" if kind.startswith("D") else ""
        topic = f"spBv1.0/plant/{kind}/line-1{device}"
        self.rows.mark()
        return self.host.receive(topic, encode(Payload(t, seq, metrics)), now, self.rows)

    def told(self) -> list[tuple[str, str, float]]:
        found = self.rows.finish()
        return list(
            zip(found.device.to_list(), found.metric.to_list(), found.value.tolist(), strict=True)
        )

    def born(self) -> None:
        assert self.hear("NBIRTH", bd(4), metric("load", 1, DataType.DOUBLE, 0.5), seq=0) is None
        assert self.hear("DBIRTH", metric("temp", 2, DataType.INT16, 20), seq=1) is None
        self.told()


def metric(name: str | None, alias: int | None, kind: int | None, value: object) -> Metric:
    return Metric(name, alias, kind, None, value)  # type: ignore[arg-type]  # one of its types


def bd(number: int) -> Metric:
    return metric(BD_SEQ, None, DataType.UINT64, number)


def alias(number: int, value: object) -> Metric:
    return metric(None, number, None, value)


def test_messages_of_another_make_are_read() -> None:
    command = bytes.fromhex(
        "089fafb8f88d3112230a144e6f646520436f6e74726f6c2f52656269727468"
        "189fafb8f88d31200b3800700118ffffffffffffffffff01"
    )
    found = decode(command)
    assert found.t_ms == 1_687_369_422_751
    assert found.metrics[0].name == REBIRTH
    assert (found.metrics[0].datatype, found.metrics[0].value) == (DataType.BOOLEAN, True)
    data = bytes.fromhex("08c0b8d89e8e31120f109aef0218c0b8d89e8e312003500f18ffffffffffffffffff01")
    assert decode(data).metrics == (Metric(None, 47_002, DataType.INT32, 1_687_449_640_000, 15),)


@given(st.binary(max_size=60))
def test_other_bytes_are_refused_or_read(payload: bytes) -> None:
    try:
        decode(payload)
    except DecodeError as error:
        assert error.reason == "malformed-sparkplug"


@given(st.data(), st.sampled_from(["NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH"]))
def test_a_damaged_message_is_refused_or_read_and_stops_nothing(
    draw: st.DataObject, kind: str
) -> None:
    heard = Listening()
    heard.born()
    whole = bytearray(
        encode(
            Payload(
                7,
                2,
                (
                    bd(4),
                    metric("temp", 2, DataType.INT16, 20),
                    metric("state", 3, DataType.STRING, "run"),
                    metric("load", 1, DataType.DOUBLE, 0.5),
                ),
            )
        )
    )
    for _ in range(draw.draw(st.integers(1, 4))):
        whole[draw.draw(st.integers(0, len(whole) - 1))] = draw.draw(st.integers(0, 255))
    device = "/press" if kind.startswith("D") else ""
    mark = heard.rows.mark()
    try:
        heard.host.receive(f"spBv1.0/plant/{kind}/line-1{device}", bytes(whole), NOW, heard.rows)
    except DecodeError:
        heard.rows.rollback(mark)
    heard.told()


@pytest.mark.parametrize("payload", [b"\x12\x03\x0a\x01\xff", b"\x12\x03\x7a\x01\xff"])
def test_text_that_is_no_utf8_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError, match="not UTF-8"):
        decode(payload)


@pytest.mark.parametrize("kind", [DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64])
@pytest.mark.parametrize("value", [0, 1, -1, 127, -128])
def test_integers_keep_their_sign(kind: DataType, value: int) -> None:
    (found,) = decode(encode(Payload(None, None, (metric("m", None, kind, value),)))).metrics
    assert signed(found.value, kind) == value  # type: ignore[arg-type]  # an integer


def test_after_the_births_aliases_stand_for_names_and_types() -> None:
    heard = Listening()
    assert heard.hear("NBIRTH", bd(4), metric("load", 1, DataType.DOUBLE, 0.5), seq=0) is None
    assert heard.hear("DBIRTH", metric("temp", 2, DataType.INT16, -20), seq=1) is None
    assert heard.hear("DDATA", alias(2, -21), seq=2) is None
    assert heard.hear("NDATA", alias(1, 0.75), seq=3) is None
    assert heard.told() == [
        ("line-1", ONLINE, 1.0),
        ("line-1", "load", 0.5),
        ("press", ONLINE, 1.0),
        ("press", "temp", -20.0),
        ("press", "temp", -21.0),
        ("line-1", "load", 0.75),
    ]


def test_times_are_those_of_the_metric_the_message_or_the_receipt() -> None:
    heard = Listening()
    own = Metric("a", None, DataType.DOUBLE, 11, 1.0)
    heard.hear("NBIRTH", own, metric("b", None, DataType.DOUBLE, 2.0), seq=0, t=12)
    heard.hear("NDATA", metric("a", None, DataType.DOUBLE, 3.0), seq=1, t=None)
    found: Readings = heard.rows.finish()
    assert found.t_ms.tolist() == [12, 11, 12, NOW]
    assert found.quality.tolist() == [0, 0, 0, TIME_OF_RECEIPT]
    assert (found.tenant[0], found.site[0], found.device[0]) == ("plant", "line-1", "line-1")


def test_what_cannot_be_a_reading_is_passed_over() -> None:
    heard = Listening()
    heard.hear(
        "NBIRTH",
        metric(REBIRTH, None, DataType.BOOLEAN, False),
        metric("serial", None, DataType.STRING, "x"),
        metric("table", None, 16, None),
        metric("nothing", None, DataType.DOUBLE, None),
        metric("on", None, DataType.BOOLEAN, True),
        metric("state", None, DataType.STRING, "run"),
        seq=0,
    )
    found = heard.rows.finish()
    assert found.metric.to_list() == [ONLINE, "on", "state"]
    assert found.text == {2: "run"}


def test_data_before_the_birth_is_refused_and_rebirth_asked_for_once_in_a_while() -> None:
    heard = Listening()
    topic = "spBv1.0/plant/DDATA/line-1/press"
    with pytest.raises(DecodeError, match="unknown-alias"):
        heard.hear("DDATA", alias(2, 1), seq=9)
    assert heard.host.wants_rebirth(topic, NOW) == NODE
    assert heard.host.wants_rebirth(topic, NOW + 9_999) is None
    assert heard.host.wants_rebirth(topic, NOW + 10_000) == NODE
    heard.born()
    assert heard.host.wants_rebirth(topic, NOW + 99_999) is None


def test_a_gap_in_the_sequence_asks_for_rebirth_and_takes_the_values() -> None:
    heard = Listening()
    heard.born()
    assert heard.hear("DDATA", alias(2, 21), seq=2) is None
    assert heard.hear("DDATA", alias(2, 22), seq=4) == NODE
    assert [value for *_, value in heard.told()] == [21.0, 22.0]


def test_the_sequence_wraps_at_256() -> None:
    heard = Listening()
    heard.born()
    for number in range(2, 600):
        assert heard.hear("DDATA", alias(2, 1), seq=number % 256) is None


def test_a_node_death_ends_the_node_and_its_devices_unless_it_is_of_an_older_connection() -> None:
    heard = Listening()
    heard.born()
    heard.hear("NDEATH", bd(3))
    assert heard.told() == []
    heard.hear("NDEATH", bd(4))
    assert heard.told() == [("line-1", ONLINE, 0.0), ("press", ONLINE, 0.0)]
    with pytest.raises(DecodeError, match="unknown-alias"):
        heard.hear("DDATA", alias(2, 1), seq=2)


def test_a_device_death_ends_the_device_alone() -> None:
    heard = Listening()
    heard.born()
    assert heard.hear("DDEATH", seq=2) is None
    assert heard.told() == [("press", ONLINE, 0.0)]
    assert heard.hear("NDATA", alias(1, 2.0), seq=3) is None


def test_a_birth_beyond_the_bound_is_refused() -> None:
    heard = Listening(max_metrics=3)
    many = [metric(f"m{n}", n, DataType.DOUBLE, 1.0) for n in range(2)]
    with pytest.raises(DecodeError, match="too-many-metrics"):
        heard.hear("NBIRTH", *many, seq=0)


@pytest.mark.parametrize(
    "topic", ["spBv1.0/STATE/scada", "spBv1.0/plant/NCMD/line-1", "spBv1.0/plant/DDATA/line-1", "x"]
)
def test_other_topics_are_not_for_us(topic: str) -> None:
    heard = Listening()
    assert heard.host.receive(topic, b"{", NOW, heard.rows) is None
    assert heard.told() == []


def test_the_command_asks_the_node_for_rebirth() -> None:
    assert command_topic(*NODE) == "spBv1.0/plant/NCMD/line-1"
    (asked,) = decode(rebirth(NOW)).metrics
    assert (asked.name, asked.value, asked.t_ms) == (REBIRTH, True, NOW)
