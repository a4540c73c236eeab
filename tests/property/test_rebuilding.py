"""A window whose definition changes at a record, and what is rebuilt of its new generation."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.adapters.config_log import MARKER, Documents
from streams.adapters.lake import log_rows, readings_of
from streams.adapters.reading_records import RecordDecoder
from streams.adapters.results import decode_windows
from streams.agents.changing import ALWAYS
from streams.agents.readings import make_readings
from streams.ports import is_time_marker
from streams.recovery.rebuilding import Rebuild, Unfinished
from streams.settings import Settings, Window
from streams.settings.applied import document_of, following
from streams.testing import Driver, frame

OLD = [
    Window(name="w", size_ms=100, horizon_ms=300),
    Window(name="hop", kind="hopping", size_ms=200, step_ms=100, horizon_ms=100),
    Window(name="visit", kind="session", gap_ms=50, horizon_ms=200),
    Window(name="slide", kind="sliding", size_ms=70, horizon_ms=200),
    Window(name="last", kind="sliding", last=2, horizon_ms=0),
]
NEW = [
    Window(name="w", size_ms=250, grace_ms=40, horizon_ms=500, aggregates=["distinct", "p50"]),
    Window(name="hop", kind="hopping", size_ms=200, step_ms=50, horizon_ms=400),
    Window(name="visit", kind="session", gap_ms=120, horizon_ms=300),
    Window(name="slide", kind="sliding", size_ms=150, horizon_ms=300),
    Window(name="last", kind="sliding", last=4, horizon_ms=0),
]
DEVICES = [f"d{i}" for i in range(4)]
NUMBERS = ("count", "sum", "min", "max", "mean", "sd", "end_ms", "kafka_ms", "last_received_ms")


def of(windows, **more):
    return Settings(windows=windows, rollups=[], devices={"idle_ms": 800, "idle_final_ms": 2_500})


class Log:
    """A driver's log around a marker, and who tells what of it."""

    def __init__(self, before, then, after=OLD, next_=NEW):
        self.known = Documents()
        self.first = document_of(of(after))
        self.second = following(of(next_), self.first)
        self.known.add(self.first.encode())
        self.live = Driver(make_readings(of(after), self.known))
        self.fill(before)
        self.marker = len(self.live.log)
        headers = {"hw-time": b"1", MARKER: self.second.id.encode()}
        self.live.append(b"", at_ms=self.now_ms(), headers=headers)
        self.fill(then)

    def now_ms(self):
        return self.live.log[-1].timestamp if self.live.log else 10_000

    def fill(self, rows):
        for device, t_ms, value, wait_ms in rows:
            at, seq = self.now_ms() + wait_ms, len(self.live.log)
            row = {"device": DEVICES[device], "metric": "m", "t_ms": t_ms, "value": value}
            self.live.append(frame(row | {"boot": 1, "seq": seq}, received_ms=t_ms), at_ms=at)

    def play(self, batches=(), crashes=()):
        self.known.add(self.second.encode())
        for size, crash in zip(batches, crashes, strict=False):
            self.live.step(size)
            if crash:
                self.live.checkpoint(crash)
                self.live.crash()
        self.live.run()
        return words(map(decode_windows, self.live.values("aggregates")))

    def rebuild(self, batches=(), until=None, first=0, **how):
        how = {"marker": self.marker} | how
        windows = self.second.windows()
        rebuild = Rebuild(of(windows), windows, **how)
        decoder, found, at = RecordDecoder({}, 1_000), [], first
        log = self.live.log[:until]
        for size in [*batches, len(log)]:
            data = [r for r in log[at : at + size] if not is_time_marker(r)]
            at += size
            if data:
                rebuild.fold(log_rows(readings_of(0, data, decoder)[0]))
                found += rebuild.take(least=3)
        if log[first:]:
            rebuild.advance(log[-1].timestamp, len(log) - 1)
        self.last = rebuild
        return words([*found, *rebuild.take()])

    def whole(self):
        """What the new generation would have told, had it been there all along."""
        windows = self.second.windows()
        driver = Driver(make_readings(of(windows)))
        driver.log = [record for record in self.live.log if record.offset != self.marker]
        driver.run()
        if self.live.log[-1].offset == self.marker:
            driver.tick(at_ms=self.now_ms())
        return words(map(decode_windows, driver.values("aggregates")))


def words(parts):
    """The last word on each window, with all its bits; and each revision has one content."""
    last, seen = {}, {}
    for part in parts:
        for i in range(len(part)):
            key = part.window[i], part.device[i], int(part.start_ms[i])
            numbers = [float(getattr(part, name)[i]) for name in NUMBERS]
            numbers += [float(part.extra[name][i]) for name in sorted(part.extra)]
            rank = int(part.rank[i])
            bits = np.asarray(numbers).tobytes()
            if rank >= 0:
                assert seen.setdefault((*key, rank), bits) == bits
            order = rank, int(part.count[i])
            if key not in last or order >= last[key][0]:
                last[key] = order, bits, seen.get(key)
    return {key: found[:2] for key, found in last.items()}


def joined(*sets):
    found = {}
    for one in sets:
        for key, word in one.items():
            found[key] = max(found.get(key, word), word)
    return found


rows = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 2_000),
        st.integers(-9, 9).map(float),
        st.sampled_from([0, 1, 1, 5, 900, 3_000]),
    ),
    max_size=20,
).map(lambda found: sorted(found, key=lambda row: row[1] // 400))
later = rows.map(lambda found: [(d, t + 1_200, v, w) for d, t, v, w in found])
sizes = st.lists(st.integers(1, 9), max_size=6)


@settings(max_examples=20)
@given(rows, later, sizes)
def test_what_workers_and_the_rebuild_tell_is_what_the_definition_makes_of_the_log(
    before, then, batches
):
    log = Log(before, then)
    live = log.play()
    told = joined({key: word for key, word in live.items() if "@2" in key[0]}, log.rebuild(batches))
    assert told == log.whole()


@settings(max_examples=10)
@given(rows, later, sizes, st.lists(st.sampled_from([0, 1, 2, 99]), max_size=6), st.data())
def test_any_batching_any_crash_and_any_number_of_rebuilds_tell_the_same(
    before, then, batches, crashes, data
):
    log = Log(before, then)
    live = log.play(batches, crashes)
    calm = Log(before, then).play()
    # A shard that had stored nothing begins with the new definitions, and tells all of them.
    assert live.items() >= calm.items()
    assert joined({k: w for k, w in live.items() if "@2" in k[0]}, log.rebuild()) == log.whole()
    whole = log.rebuild()
    parts = [
        log.rebuild(data.draw(sizes), until=data.draw(st.integers(0, len(log.live.log))))
        for _ in range(2)
    ]
    assert log.rebuild(batches) == whole
    final = {key: word for key, word in joined(*parts, whole).items() if word[0][0] >= 0}
    assert final == {key: word for key, word in whole.items() if word[0][0] >= 0}


@settings(max_examples=10)
@given(rows, later)
def test_without_the_marker_the_rebuild_tells_more_and_nothing_else(before, then):
    log = Log(before, then)
    log.play()
    assert log.rebuild(marker=None) == log.whole()


@settings(max_examples=10)
@given(rows, later, st.integers(1, 20))
def test_windows_whose_readings_are_gone_are_left_out(before, then, first):
    log = Log(before, then)
    log.play()
    first = min(first, len(log.live.log))
    gone = [row[1] for row in [*before, (0, -1, 0.0, 0), *then][:first]]
    told = log.rebuild(first=first, whole_from_ms=max(gone, default=ALWAYS))
    whole = log.whole()
    assert all(whole[key][0] == word[0] for key, word in told.items())


def test_a_text_moves_the_watermark_for_both():
    log = Log([(0, 10, 1.0, 0), (0, 900, "open", 0), (0, 50, 2.0, 0)], [(0, 1_500, 3.0, 0)])
    live = log.play()
    told = joined({key: word for key, word in live.items() if "@2" in key[0]}, log.rebuild())
    assert told == log.whole()
    assert told["w@2", "d0", 0][0] == (0, 1)  # The second reading is beyond the horizon.


def test_what_is_open_and_what_can_be_corrected_is_said():
    log = Log([(0, 10, 1.0, 0), (1, 30, 1.0, 0)], [(0, 310, 1.0, 0)], OLD[:1], NEW[:1])
    log.play()
    log.rebuild()
    assert log.last.unfinished() == Unfinished(open=1, correctable=1)
    log.fill([(0, 900, 1.0, 0), (1, 900, 1.0, 0)])
    log.rebuild()
    assert log.last.unfinished() == Unfinished()
