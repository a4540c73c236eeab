"""Numbering of messages: columns and bits against a plain set, in any batching."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core import sequences
from streams.core.numbering import NEW, SEEN
from streams.core.sequences import Sequences

# Near the bits' edge of 64, far beyond it, and back; a start above zero.
STEPS = st.one_of(
    st.integers(-3, 6), st.sampled_from([-70, -64, -63, -62, 1, 1, 1, 1, 62, 63, 64, 65, 130])
)
messages = st.tuples(st.integers(0, 2), st.sampled_from([7, 5]), STEPS)


def numbered(drawn):
    """From steps to numbers: each device's message is so far from its last one."""
    at = {}
    for device, boot, step in drawn:
        at[device] = max(0, at.get(device, 40) + step)
        yield device, boot, at[device]


def distinct(batch):
    """Redeliveries inside a batch are taken out before."""
    return list(dict.fromkeys(batch))


def columns(batch):
    device, boot, seq = zip(*batch, strict=True)
    return np.asarray(device, np.int32), np.asarray(boot), np.asarray(seq)


def batches(drawn, cuts):
    every = list(numbered(drawn))
    edges = [0, *sorted(c % (len(every) + 1) for c in cuts), len(every)]
    return [distinct(every[a:b]) for a, b in pairwise(edges) if a < b]


@settings(max_examples=400)
@given(st.lists(messages, min_size=1, max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_a_message_is_new_once_in_any_batching(drawn, cuts):
    subject, seen = Sequences(max_holes=1000), set()
    for batch in batches(drawn, cuts):
        expected = [SEEN if message in seen else NEW for message in batch]
        assert subject.see(*columns(batch)).tolist() == expected
        seen |= set(batch)


@settings(max_examples=200)
@given(
    st.lists(messages, min_size=1, max_size=60),
    st.lists(st.integers(0, 60), max_size=8),
    st.integers(1, 5),
)
def test_it_does_not_matter_in_how_many_turns_a_batch_is_judged(drawn, cuts, in_turn):
    one, turns = Sequences(max_holes=2), Sequences(max_holes=2)
    for batch in batches(drawn, cuts):
        expected = one.see(*columns(batch)).tolist()
        with patch.multiple(sequences, _IN_TURN=in_turn, _WORTH_A_TURN=1):
            assert turns.see(*columns(batch)).tolist() == expected
    devices = np.arange(3)
    assert str(one.snapshot(devices)) == str(turns.snapshot(devices))


@settings(max_examples=200)
@given(st.lists(messages, min_size=1, max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_what_is_given_up_and_missing_does_not_depend_on_the_batches(drawn, cuts):
    at_once, in_parts = Sequences(max_holes=2), Sequences(max_holes=2)
    verdicts = []
    for batch in batches(drawn, cuts):
        verdicts += in_parts.see(*columns(batch)).tolist()
        for i in range(len(batch)):
            at_once.see(*columns(batch[i : i + 1]))
    for device in range(3):
        assert at_once.missing(device) == in_parts.missing(device)


@settings(max_examples=200)
@given(st.lists(messages, min_size=2, max_size=60), st.integers(1, 59))
def test_a_snapshot_goes_on_as_the_original(drawn, cut):
    every = distinct(numbered(drawn))
    first, rest = every[: cut % len(every)], every[cut % len(every) :]
    original, copy = Sequences(max_holes=3), Sequences(max_holes=3)
    if first:
        original.see(*columns(first))
    known = np.arange(3)
    copy.restore(known[::-1].copy(), original.snapshot(known[::-1].copy()))
    if rest:
        assert original.see(*columns(rest)).tolist() == copy.see(*columns(rest)).tolist()
    assert [original.missing(d) for d in range(3)] == [copy.missing(d) for d in range(3)]


def test_a_gap_is_missing_until_it_is_filled():
    subject = Sequences(max_holes=10)
    one = np.zeros(1, np.int32)
    for seq, missing in [(0, 0), (1, 0), (5, 3), (3, 2), (200, 196), (100, 195), (4, 194)]:
        subject.see(one, np.asarray([1]), np.asarray([seq]))
        assert subject.missing(0) == missing


def test_what_lies_before_the_first_message_is_not_missing_but_new_when_it_comes():
    subject = Sequences(max_holes=10)
    one, boot = np.zeros(1, np.int32), np.asarray([1])
    assert subject.see(one, boot, np.asarray([1000]))[0] == NEW
    assert subject.missing(0) == 0
    assert subject.see(one, boot, np.asarray([3]))[0] == NEW
    assert subject.see(one, boot, np.asarray([3]))[0] == SEEN
    assert subject.missing(0) == 0
