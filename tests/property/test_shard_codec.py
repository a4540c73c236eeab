"""Keys of devices are stored as a list of pairs, however long a name is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.adapters import shard_codec
from streams.core.device_names import DeviceKeys

# CBOR says a length in one to five bytes: below 24, 256 and 65,536, and beyond.
names = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.sampled_from([23, 24, 255, 256, 65_535, 65_536]).map("x".__mul__),
)


@given(st.lists(st.tuples(st.sampled_from(["default", "", "ä" * 150]), names), max_size=30))
def test_keys_have_the_bytes_of_a_list_of_pairs(pairs):
    keys = DeviceKeys([tenant for tenant, _ in pairs], [name for _, name in pairs])
    stored = shard_codec.encode({"names": keys, "n": 1})
    assert stored == shard_codec.encode({"names": [list(pair) for pair in pairs], "n": 1})
    assert shard_codec.decode(stored)["names"] == [list(pair) for pair in pairs]
    assert list(keys) == pairs == [keys[i] for i in range(len(keys))]
