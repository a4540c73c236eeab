"""Whatever a reader drops or repeats, each record of the log is folded once, in order."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from streams.agents.continuity import Continuity, Step


class Reader:
    """A consumer with batches under way, some of which never arrive."""

    def __init__(self, offsets, batch, under_way, fate):
        self.offsets, self.batch, self.fate = offsets, batch, fate
        self.position, self.under_way, self.queue = 0, under_way, deque()

    def seek(self, offset):
        self.position = offset

    def next(self):
        while len(self.queue) < self.under_way:
            found = [o for o in self.offsets if o >= self.position][: self.batch]
            if not found:
                break
            self.position = found[-1] + 1
            if self.fate():
                self.queue.append(found)
        return self.queue.popleft() if self.queue else None


@given(
    st.lists(st.booleans(), min_size=1, max_size=60),
    st.integers(1, 7),
    st.integers(1, 5),
    st.lists(st.integers(0, 120), max_size=12, unique=True),
)
def test_every_record_is_folded_once_and_real_gaps_are_passed(there, batch, under_way, lost):
    offsets = [i for i, here in enumerate(there) if here] + [len(there)]
    fetches = iter(range(10**9))
    # Losses are never so dense that two re-reads in a row lose the same batch.
    lost = {x for x in lost if x - 1 not in lost and x % (under_way + 2) == 0}
    reader = Reader(offsets, batch, under_way, lambda: next(fetches) not in lost)
    state, folded, now = Continuity(0), [], 0.0
    for _ in range(10_000):
        found = reader.next()
        now += 0.01
        if found is None:
            if state.expected > offsets[-1]:
                break
            now += 10
            reader.seek(state.expected)  # the log goes on: a later batch would show the gap
            continue
        step = state.judge(found[0], now)
        if step is Step.SEEK:
            reader.seek(state.expected)
        if step is Step.FOLD:
            fresh = [o for o in found if o >= state.expected]
            folded += fresh
            if fresh:
                state.advance(fresh[-1] + 1)
    assert folded == offsets


def test_a_dropped_batch_is_read_again_and_a_real_gap_is_passed_only_when_seen_thrice():
    state = Continuity(10)
    assert state.judge(20, 0.0) is Step.SEEK
    assert state.judge(30, 0.0) is Step.DROP
    assert state.judge(30, 9.0) is Step.SEEK
    assert state.judge(10, 9.1) is Step.FOLD
    state.advance(20)
    assert [state.judge(25, t) for t in (9.2, 9.3, 9.4)] == [Step.SEEK, Step.SEEK, Step.FOLD]
