"""Which raw readings are near anomalies: those of a while stay in memory until that is known. Pure.

The readings *before* an anomaly are taken from memory, those after it as they come. What a reading
is near to is a matter of event time; how long it is kept, of the time of the ring, without its
pauses: while the edge is down nothing comes, and what came before is near to what comes then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from prometheus_client import Counter

from streams.core.readings import Bool, Int64, Labels, Readings
from streams.core.thinning import around

_PAUSE_MS = 1_000
"""Of a time in which nothing came so much counts."""
Series = tuple[str, str]
"""Device and metric."""
_DROPPED = Counter(
    "headwater_edge_around_dropped_readings",
    "Readings that no later anomaly sends: edge.windows.max_around_rows was met.",
)


@dataclass(slots=True)
class _Batch:
    readings: Readings
    came_ms: int
    is_gone: Bool


class Near:
    """The newest readings of series whose anomalies are told with what is around them."""

    def __init__(self, max_rows: int, keep_ms: int, disorder_ms: int) -> None:
        """Begin with nothing.

        :param max_rows: readings in memory; beyond, the oldest are forgotten.
        :param keep_ms: how long they are kept.
        :param disorder_ms: how far readings may come behind one another.
        """
        self._max_rows, self._keep_ms, self._disorder_ms = max_rows, keep_ms, disorder_ms
        self._batches: deque[_Batch] = deque()
        self._rows = 0
        self._log_ms: int | None = None
        self._now_ms = 0
        """The time of the ring without its pauses."""
        self._spans: dict[Series, Int64] = {}
        """Series -> stretches of event time whose readings go, int64[k, 2]."""

    def add(self, readings: Readings, log_ms: int) -> list[Readings]:
        """Take the next readings; return those of them that are near what was flagged before."""
        if self._log_ms is not None:
            self._now_ms += min(max(0, log_ms - self._log_ms), _PAUSE_MS)
        self._log_ms = log_ms
        while self._batches and self._batches[0].came_ms < self._now_ms - self._keep_ms:
            self._rows -= len(self._batches.popleft().readings)
        if not len(readings):
            return []
        batch = _Batch(readings, self._now_ms, np.zeros(len(readings), np.bool_))
        self._batches.append(batch)
        self._rows += len(readings)
        while self._rows > self._max_rows and len(self._batches) > 1:
            dropped = len(self._batches.popleft().readings)
            self._rows -= dropped
            _DROPPED.inc(dropped)
        found = [_taken(batch, series, spans) for series, spans in self._spans.items()]
        for series in list(self._spans):
            self._end_spans(readings, series)
        return [part for part in found if len(part)]

    def flag(self, series: Series, flagged_ms: Int64, around_ms: int) -> list[Readings]:
        """Return the readings in memory around anomalies; later ones go as they come.

        :param flagged_ms: int64[n], event times.
        """
        spans = around(flagged_ms, around_ms, around_ms)
        known = self._spans.get(series)
        self._spans[series] = spans if known is None else np.concatenate([known, spans])
        found = [_taken(batch, series, spans) for batch in self._batches]
        return [part for part in found if len(part)]

    def state(self) -> list[Any]:
        """Return what a start goes on with: readings themselves are in the ring."""
        return [[*series, spans.tolist()] for series, spans in self._spans.items()]

    def restore(self, state: Sequence[Any]) -> None:
        """Take what :meth:`state` has returned."""
        self._spans = {
            (device, metric): np.asarray(spans, np.int64).reshape(-1, 2)
            for device, metric, spans in state
        }

    def forget(self, gone: Mapping[Series, set[int]]) -> None:
        """Note which readings in memory went up before, by event time."""
        for batch in self._batches:
            batch.is_gone |= were_sent(batch.readings, gone)

    def _end_spans(self, readings: Readings, series: Series) -> None:
        """Forget stretches of a series that it has passed."""
        mine = _of(readings, series)
        if mine.any():
            passed_ms = int(readings.t_ms[mine].max()) - self._disorder_ms
            left = self._spans[series]
            left = left[left[:, 1] > passed_ms]
            if len(left):
                self._spans[series] = left
            else:
                del self._spans[series]


def _taken(batch: _Batch, series: Series, spans: Int64) -> Readings:
    """Take what lies in some stretches out of a batch."""
    readings, t_ms = batch.readings, batch.readings.t_ms
    inside = np.zeros(len(readings), np.bool_)
    for begin_ms, end_ms in spans.tolist():
        inside |= (t_ms >= begin_ms) & (t_ms < end_ms)
    chosen = inside & _of(readings, series) & ~batch.is_gone
    batch.is_gone |= chosen
    return readings.take(chosen)


def were_sent(readings: Readings, gone: Mapping[Series, set[int]]) -> Bool:
    """Return which readings are among those that went up, by event time."""
    if not gone:
        return np.zeros(len(readings), np.bool_)
    columns = (readings.device.to_list(), readings.metric.to_list(), readings.t_ms.tolist())
    none: set[int] = set()
    return np.asarray(
        [t_ms in gone.get((d, m), none) for d, m, t_ms in zip(*columns, strict=True)], np.bool_
    )


def _of(readings: Readings, series: Series) -> Bool:
    device, metric = series
    return _is(readings.device, device) & _is(readings.metric, metric)


def _is(labels: Labels, name: str) -> Bool:
    if name not in labels.values:
        return np.zeros(len(labels), np.bool_)
    found: Bool = labels.codes == labels.values.index(name)
    return found
