"""The packet reader, fed whole and piecewise, and with any bytes."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from streams.gateway.packets import PacketReader, ProtocolError, Publish, subscription_ids
from tests.unit.packet_bytes import length_bytes, publish

publishes = st.builds(
    publish,
    st.text(max_size=20),
    st.binary(max_size=400),
    mid=st.integers(0, 65_535),
    properties=st.sampled_from([b"", b"\x0b\x05", b"\x01\x01"]),
)
others = st.binary(max_size=300).map(lambda body: b"\x90" + length_bytes(len(body)) + body)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


@given(st.lists(publishes | others, max_size=8), st.lists(st.integers(0, 5_000), max_size=12))
def test_pieces_give_what_the_whole_gives(packets: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(packets)
    whole = PacketReader(10_000).feed(stream)
    reader = PacketReader(10_000)
    found: tuple[list[Publish], list[bytes]] = ([], [])
    for piece in pieces(stream, cuts):
        published, rest = reader.feed(piece)
        found[0].extend(published)
        found[1].extend(rest)
    assert found == whole
    assert len(whole[0]) + len(whole[1]) == len(packets)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes_raise_nothing_but_protocol_errors(chunks: list[bytes]) -> None:
    reader = PacketReader(1_000)
    try:
        for chunk in chunks:
            for published in reader.feed(chunk)[0]:
                subscription_ids(published.properties)
    except ProtocolError:
        return
