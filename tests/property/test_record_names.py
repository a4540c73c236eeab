"""Keys looked at all at once are taken and refused as one by one."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st

from streams.adapters import record_names
from streams.adapters.record_names import RecordNames
from streams.errors import DecodeError

_DEVICES = st.one_of(
    st.text(st.sampled_from("abä/\n\0\u2028 "), max_size=4),
    st.sampled_from(["x" * 128, "x" * 129, "ä" * 128]),
).map(str.encode)
_KEYS = st.one_of(
    st.tuples(st.sampled_from([b"t/", b"t/", b"t/", b"u/", b"t", b""]), _DEVICES).map(b"".join),
    st.binary(max_size=4),
    st.none(),
)
_ONE_TENANT = st.tuples(st.just(b"t/"), st.one_of(_DEVICES, st.binary(max_size=2))).map(b"".join)


def owners(keys):
    try:
        return [record_names._owner(key) for key in keys]
    except DecodeError as error:
        return error.reason


@given(st.one_of(st.lists(_KEYS, max_size=5), st.lists(_ONE_TENANT, max_size=5)))
@example([b"t/a\nt/b"])
@example([b"t/\xc3", b"t/a"])
@example([b"t/a", None])
def test_many_keys_are_what_each_of_them_is(keys):
    with patch.multiple(record_names, MANY=0):
        names = RecordNames()
        names.labels([b"t/first"])
        expected = owners(keys)
        for _ in range(2):
            try:
                tenant, device = names.labels(keys)
            except DecodeError as error:
                assert error.reason == expected
            else:
                assert list(zip(tenant.to_list(), device.to_list(), strict=True)) == expected
