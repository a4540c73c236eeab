"""The uplink's properties and acknowledgements: what is written is read, the rest is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.adapters import zstd
from streams.errors import DecodeError
from streams.intake.uplink_wire import (
    BATCH,
    ENCODING,
    KIND,
    MAX_ACK_BATCHES,
    Ack,
    BatchHeader,
    Encoding,
    Kind,
    Refusal,
    batch_id,
    decode_ack,
    decode_header,
    encode_ack,
    encode_header,
    split_acks,
)

ids = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=96)
headers = st.builds(BatchHeader, ids, st.sampled_from(Kind), st.sampled_from(Encoding))
refusals = st.builds(Refusal, ids, st.text(max_size=200), st.none() | st.integers(0, 2**31 - 1))
acks = st.builds(
    Ack,
    st.lists(ids, max_size=20).map(tuple),
    st.lists(refusals, max_size=20).map(tuple),
)


@given(headers, st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=4))
def test_a_header_survives_the_way_among_other_properties(
    header: BatchHeader, others: list[tuple[str, str]]
) -> None:
    assert decode_header([*others, *encode_header(header)]) == header


@given(acks)
def test_an_acknowledgement_survives_the_way(ack: Ack) -> None:
    assert decode_ack(encode_ack(ack)) == ack


@given(st.binary(max_size=200) | acks.map(encode_ack).map(lambda b: b[: len(b) // 2]))
def test_any_other_bytes_are_refused_or_are_an_acknowledgement(payload: bytes) -> None:
    try:
        ack = decode_ack(payload)
    except DecodeError as error:
        assert error.reason == "bad-ack"
    else:
        assert decode_ack(encode_ack(ack)) == ack


@given(st.lists(ids, max_size=30), st.lists(refusals, max_size=30))
def test_acknowledgements_that_are_split_say_all_once(
    batches: list[str], refused: list[Refusal]
) -> None:
    many = batches * 300
    made = split_acks(many, refused)
    assert [one for ack in made for one in ack.batches] == many
    assert [one for ack in made for one in ack.refused] == refused
    assert all(0 < len(a.batches) + len(a.refused) <= MAX_ACK_BATCHES for a in made)


def test_a_message_without_a_batch_is_no_batch() -> None:
    assert decode_header([("a", "b"), (KIND, "readings")]) is None


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ([(BATCH, "")], "batch id"),
        ([(BATCH, "a b")], "batch id"),
        ([(BATCH, "é")], "batch id"),
        ([(BATCH, "x" * 97)], "batch id"),
        ([(BATCH, "1")], "hw.kind"),
        ([(BATCH, "1"), (KIND, "gossip")], "readings or losses"),
        ([(BATCH, "1"), (KIND, "status"), (ENCODING, "gzip")], "zstd or identity"),
        ([(BATCH, "1"), (BATCH, "2"), (KIND, "status")], "twice"),
    ],
)
def test_a_bad_header_says_what_is_wrong(pairs: list[tuple[str, str]], told: str) -> None:
    with pytest.raises(DecodeError, match=told) as raised:
        decode_header(pairs)
    assert raised.value.reason == "bad-uplink"


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b'{"batches": 1}',
        b'{"batches": [1]}',
        b'{"refused": [1]}',
        b'{"refused": [{"batch": "a", "reason": 1}]}',
        b'{"refused": [{"batch": "a", "reason": "r", "retry_after_ms": -1}]}',
        encode_ack(Ack(("a",) * (MAX_ACK_BATCHES + 1))),
    ],
)
def test_a_bad_acknowledgement_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError, match="bad-ack"):
        decode_ack(payload)


def test_an_id_that_would_not_be_taken_is_not_made() -> None:
    assert batch_id("0f", "fresh", 7) == "0f/fresh/7"
    with pytest.raises(ValueError, match="no batch id"):
        batch_id("f" * 96, "fresh", 7)


@given(st.binary(max_size=2_000))
def test_what_is_compressed_inflates_to_itself_within_its_bound(data: bytes) -> None:
    packed = zstd.compress(data)
    assert zstd.inflate(packed, len(data)) == data
    if data:
        with pytest.raises(DecodeError, match="payload-too-large"):
            zstd.inflate(packed, len(data) - 1)


@given(st.binary(min_size=1, max_size=500), st.data())
def test_cut_or_other_bytes_do_not_inflate(data: bytes, draw: st.DataObject) -> None:
    packed = zstd.compress(data)
    cut = packed[: draw.draw(st.integers(0, len(packed) - 1))]
    for wrong in (cut, packed + b"\x01"):
        with pytest.raises(DecodeError, match="malformed-zstd"):
            zstd.inflate(wrong, 10_000)
