from __future__ import annotations

import numpy as np
import pytest

from streams.adapters import frames
from streams.core.readings import Labels, Readings
from streams.gateway import records
from streams.gateway.records import frame_records


def a_batch(seqs: list[int], text: dict[int, str] | None = None) -> Readings:
    n = len(seqs)
    return Readings(
        Labels.constant("acme", n),
        Labels.constant("north", n),
        Labels.constant("d", n),
        Labels.constant("m", n),
        np.arange(n, dtype=np.int64),
        np.arange(n, dtype=np.int64),
        np.arange(n, dtype=np.float64),
        np.zeros(n, np.uint8),
        np.full(n, -1, np.int64),
        np.asarray(seqs, np.int64),
        {},
        text or {},
    )


def parts(readings: Readings, max_rows: int) -> list[list[int]]:
    produced = frame_records(readings, 1, max_rows)
    return [frames.decode(record.value or b"").seq.tolist() for record in produced]


def test_frames_end_where_messages_end() -> None:
    assert parts(a_batch([1, 1, 2, 2, 2, 3]), 3) == [[1, 1], [2, 2, 2], [3]]


def test_a_message_longer_than_a_frame_should_be_stays_whole() -> None:
    assert parts(a_batch([1, 2, 2, 2, 2, 3]), 2) == [[1], [2, 2, 2, 2], [3]]


def test_rows_without_a_number_may_be_split_anywhere() -> None:
    assert [len(part) for part in parts(a_batch([-1] * 8), 2)] == [2, 2, 2, 2]


def test_a_frame_with_too_many_bytes_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 4_000)
    noise = np.random.default_rng(1)
    text = {row: noise.bytes(400).hex() for row in range(8)}
    found = frame_records(a_batch(list(range(8)), text), 1, 100)
    assert len(found) > 1
    assert all(len(record.value or b"") <= 4_000 for record in found)
    seqs = [seq for r in found for seq in frames.decode(r.value or b"").seq.tolist()]
    assert seqs == list(range(8))


def test_a_frame_names_only_what_its_rows_use() -> None:
    n = 200
    batch = a_batch(list(range(n)))
    many = Labels.of([f"device-{number}" for number in range(n)])
    batch = Readings(*(batch.tenant, batch.site, many, batch.metric), *_rest(batch))
    for record in frame_records(batch, 4, 1_000):
        readings = frames.decode(record.value or b"")
        assert sorted(readings.device.values) == sorted(set(readings.device.to_list()))


def _rest(batch: Readings) -> tuple[object, ...]:
    return (
        batch.t_ms,
        batch.received_ms,
        batch.value,
        batch.quality,
        batch.boot,
        batch.seq,
        batch.exact_int,
        batch.text,
    )


def test_nothing_gives_nothing() -> None:
    assert frame_records(a_batch([]), 4, 10) == []
