"""A table of names is a dict of them, whatever their hashes are and whoever has gone."""

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.core import name_table
from streams.core.device_names import DeviceKeys, DeviceNames
from streams.core.index import ABSENT
from streams.core.name_table import Behind, NameTable

_NAMES = st.text(min_size=1, max_size=5).map(lambda name: f"0/{name}".encode())
_STEP = st.tuples(st.lists(_NAMES, max_size=8, unique=True), st.sets(st.integers(0, 30)))


def _weak(names):
    return np.asarray([len(name) % 3 for name in names], np.int64)


@given(st.lists(_STEP, max_size=10), st.sampled_from([None, _weak]))
def test_a_table_is_a_dict_whatever_the_hashes(steps, hashes):
    with patch.multiple(name_table, _hashes=hashes or name_table._hashes, _LEAST_BYTES=8):
        table, known = NameTable(), {}
        for named, leaving in steps:
            new = [name for name in named if name not in known]
            free = [number for number in range(99) if number not in known.values()]
            table.put(new, np.asarray(free[: len(new)], np.int32))
            known |= dict(zip(new, free, strict=False))
            gone = {name: number for name, number in known.items() if number in leaving}
            if gone:
                table.free(np.asarray(list(gone.values()), np.int64))
            for name in gone:
                del known[name]
            asked = [*named, *known, b"0/", b"", b"never"]
            assert table.find(asked).tolist() == [known.get(name, ABSENT) for name in asked]
            numbers = np.arange(len(table))
            names = {number: name for name, number in known.items()}
            held = [names.get(number, b"") for number in numbers.tolist()]
            assert [table[number] for number in numbers.tolist()] == held
            told = [name.decode()[2:] for name in held]
            behind = Behind(table)
            assert behind.some(numbers) == list(behind) == behind[:] == told


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyzäß/")), unique=True),
            st.sets(st.integers(0, 9)),
        ),
        max_size=8,
    ),
    st.integers(0, 6),
)
def test_few_devices_and_many_have_the_same_names(steps, many):
    few, other = DeviceNames(many=99), DeviceNames(many)
    known: dict[tuple[str, str], int] = {}
    for named, leaving in steps:
        new = [key for key in named if key not in known]
        free = [index for index in range(99) if index not in known.values()][: len(new)]
        gone = {key: index for key, index in known.items() if index in leaving}
        for names in (few, other):
            names.put(DeviceKeys.of(new), np.asarray(free, np.int32))
            names.forget(DeviceKeys.of(list(gone)), np.asarray(list(gone.values()), np.int64))
        known |= dict(zip(new, free, strict=True))
        for key in gone:
            del known[key]
        asked = [*named, *known, ("c", "x"), ("a", "?")]
        wanted = [known.get(key, ABSENT) for key in asked]
        for names in (few, other):
            assert names.find_all(DeviceKeys.of(asked)).tolist() == wanted
            of_a = [name for tenant, name in asked if tenant == "a"]
            assert names.find("a", of_a).tolist() == [known.get(("a", n), ABSENT) for n in of_a]
        assert list(few.values) == list(other.values)
