"""A registry remembers a dictionary that grows, and is never wrong about who has which index."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.core.index import ABSENT
from streams.core.readings import Labels, Readings
from streams.core.registry import Registry
from streams.core.segments import distinct

_STEP = st.tuples(
    st.lists(st.integers(0, 9), min_size=1, max_size=12),  # who is heard
    st.sets(st.integers(0, 9)),  # who is forgotten then
    st.sampled_from(["grown", "anew", "tuple"]),  # how the dictionary comes
)


@given(st.lists(_STEP, max_size=12), st.sampled_from([3, 99]))
def test_whatever_dictionary_names_them_devices_keep_their_index_until_they_are_forgotten(
    steps, many
):
    registry = Registry(2, (), max_devices=4, max_metrics=4, many=many)
    values: list[str] = []
    for heard, gone, kind in steps:
        names = [f"d{number}" for number in heard]
        if kind == "anew":
            values = []
        values += [name for name in dict.fromkeys(names) if name not in values]
        dictionary = tuple(values) if kind == "tuple" else values
        codes = np.asarray([values.index(name) for name in names], np.int32)
        before = {name: registry.find("t", name) for name in names}
        found = registry.intern_devices(_readings(Labels(codes, dictionary)))
        assert found.tolist() == [registry.find("t", name) for name in names]
        assert all(registry.find("t", name) == at for name, at in before.items() if at >= 0)
        assert all(
            registry.names[at] == name for name, at in zip(names, found, strict=True) if at >= 0
        )
        leaving = {f"d{number}" for number in gone}
        here = [at for name in leaving if (at := registry.find("t", name)) >= 0]
        if here:
            registry.forget(np.asarray(sorted(here), np.int64))
        assert all(registry.find("t", name) < 0 for name in leaving)


def test_whom_a_full_shard_refuses_follows_from_the_order_of_the_rows():
    registry = Registry(1, (), max_devices=3, max_metrics=1)
    labels = Labels(np.asarray([4, 1, 4, 0, 3, 2], np.int32), tuple("abcde"))
    assert registry.intern_devices(_readings(labels)).tolist() == [0, 1, 0, 2, ABSENT, ABSENT]


def test_counters_that_32_bits_would_not_hold_are_widened():
    registry = Registry(1, (), max_devices=3, max_metrics=1)
    device = registry.intern_devices(_readings(Labels.of("ab")))
    registry.expect(2**31 - 3)
    registry.devices["accepted"][:] = [2**31 - 3, 0]
    for _ in range(4):
        registry.count("accepted", device)
    assert registry.devices["accepted"].tolist() == [2**31 + 1, 4]
    registry.expect(2**40)
    registry.count("late", device[:1])
    assert registry.devices["late"].tolist() == [1, 0]


@given(st.lists(st.integers(0, 400), max_size=50), st.integers(401, 20_000))
def test_distinct_is_each_code_once_ascending(codes, n):
    assert distinct(np.asarray(codes, np.int32), n).tolist() == sorted(set(codes))


def _readings(device: Labels) -> Readings:
    n = len(device)
    none = np.zeros(n, np.int64)
    constant = Labels.constant
    return Readings(
        constant("t", n),
        constant("s", n),
        device,
        constant("m", n),
        none,
        none,
        np.zeros(n),
        np.zeros(n, np.uint8),
        none,
        none,
        {},
        {},
    )
