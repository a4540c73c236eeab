"""Which accepted readings are told as anomalies: the detector of the settings, and its words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from streams.adapters import label_records
from streams.agents.detectors import FIRST_NAME, WHY_MAX, Found, detector_of
from streams.core.classes import Class
from streams.core.crossings import Crossings
from streams.core.engine import Folded
from streams.core.feedback import Feedback, FeedbackRules, SeriesName
from streams.core.placement import shard_of
from streams.core.readings import ELSEWHERE, Bool, Float64, Int32, Int64, Labels
from streams.core.registry import Registry
from streams.core.results import Scores
from streams.core.segments import running_max_before
from streams.log import get_logger
from streams.ports import LogRecord
from streams.settings import Detection, MetricSpec

_log = get_logger(__name__)
_State = Mapping[str, Any]
_BEYOND = Counter(
    "headwater_worker_labels_beyond_limit",
    "Labels that move no bound, because detection.max_labels is met.",
)


class Watch:
    """Scores the series of one partition; a series has the same index as in the engine.

    There is room for a series only once one is scored: where no metric is watched, nothing is kept.

    Where operators have said something of a series, its score is divided by what they moved its
    bound by, so that one bound still holds for all.

    :param shards: pieces in which state is kept.
    """

    def __init__(self, settings: Detection, shards: int) -> None:
        self._settings, self._shards = settings, shards
        self.feedback = Feedback(
            FeedbackRules(settings.feedback_step, settings.feedback_max, settings.max_labels)
        )
        self._watched: dict[str, bool] = {}
        self._blank = _knows_nothing(settings)
        self.clear()

    def clear(self) -> None:
        """Forget every series."""
        self.detector = detector_of(self._settings)
        self.crossings = Crossings(self._settings.emit_score)
        self._factor: Float64 = np.empty(0)
        self._looked: Bool = np.empty(0, np.bool_)
        self._room = 0

    def _grow(self, series: int) -> None:
        """Make room for series indices below *series*, for all that is kept of any."""
        self._room = max(self._room, series)
        self.detector.grow(series)
        self.crossings.grow(series)
        if series > len(self._looked):
            more = max(64, 2 * series) - len(self._looked)
            self._factor = np.concatenate([self._factor, np.ones(more)])
            self._looked = np.concatenate([self._looked, np.zeros(more, np.bool_)])

    def hear(self, marker: LogRecord, stamps: Int64) -> int | None:
        """Heed the label that a marker carries, unless its shard has done so before.

        :param stamps: int64[shards], the last offset that each has folded.
        :returns: the shard that has changed, if one has.
        """
        value = label_records.marked(marker)
        if value is None:
            return None
        try:
            label = label_records.decode(value)
        except ValueError as error:
            _log.warning("not heeded: no label", offset=marker.offset, error=str(error))
            return None
        shard = shard_of(label.tenant, label.device, self._shards)
        if marker.offset <= stamps[shard]:
            return None
        self._looked[:] = False
        if not self.feedback.take(shard, label):
            _BEYOND.inc()
        return shard

    def take(self, series: Int64) -> dict[str, Any]:
        """Return what a snapshot keeps of some series."""
        here = series < self._room
        return {
            "detector": {
                name: _rows(values, series, here, self._blank[name])
                for name, values in self.detector.state().items()
            },
            "detector_name": self.detector.name,
            "over": _rows(self.crossings.over, series, here, np.False_),
        }

    def put(self, series: Int32 | Int64, loaded: _State) -> None:
        """Restore what :meth:`take` gave."""
        # Another detector learns anew; what is over its bound stays so until it says otherwise.
        is_same = loaded.get("detector_name", FIRST_NAME) == self.detector.name
        learned = loaded["detector"] if is_same else {}
        blank = self._blank
        if not loaded["over"].any() and all((v == blank[n]).all() for n, v in learned.items()):
            self.forget(np.asarray(series, np.int64))
            return
        self._grow(int(series.max()) + 1)
        for name, values in learned.items():
            self.detector.state()[name][series] = values
        self.crossings.over[series] = loaded["over"]
        self._looked[series] = False

    def forget(self, series: Int64) -> None:
        """Let some series know nothing again."""
        series = series[series < self._room]
        for name, values in self.detector.state().items():
            values[series] = self._blank[name]
        self.crossings.over[series] = False
        self._looked[series] = False

    def scores(
        self, folded: Folded, registry: Registry, metrics: Mapping[str, MetricSpec]
    ) -> Scores | None:
        """Score accepted readings of what is watched, unless they are behind in event time.

        :param registry: names of the series, and the greatest event time of each so far, which is
            raised.
        :param metrics: the catalogue, for the units in words.
        :returns: the readings worth telling, if there are any.
        """
        rows, series = folded.rows, folded.series
        r, newest_ms = rows.readings, registry.series["max_t_ms"]
        eligible = (folded.verdict == Class.ACCEPTED) & np.isfinite(r.value)
        eligible &= r.quality & ELSEWHERE == 0
        eligible &= self._is_watched(r.metric)
        if not eligible.any():
            return None
        before = running_max_before(series, r.t_ms, newest_ms, eligible)
        np.maximum.at(newest_ms, series[eligible], r.t_ms[eligible])
        at = np.flatnonzero(eligible & (r.t_ms >= before))
        if not len(at):
            return None
        self._grow(registry.series.n)
        found = self.detector.examine(series[at], r.t_ms[at], r.value[at])
        score = found.score
        if self.feedback:
            score = score / self._factors(series[at], registry)
        told = np.flatnonzero(self.crossings.tell(series[at], score))
        if not len(told):
            return None
        at = at[told]
        return Scores(
            tenant=r.tenant.take(at).compact(),
            site=r.site.take(at).compact(),
            device=r.device.take(at).compact(),
            metric=r.metric.take(at).compact(),
            detector=Labels.constant(self.detector.name, len(at)),
            t_ms=r.t_ms[at],
            received_ms=r.received_ms[at],
            kafka_ms=rows.kafka_ms[at],
            value=r.value[at],
            score=score[told],
            expected=found.expected[told],
            spread=found.spread[told],
            offset=rows.offset[at],
            row=rows.row[at],
            why=self._words(found, score, told, r.metric.take(at), metrics),
        )

    def _factors(self, series: Int32, registry: Registry) -> Float64:
        """Return what operators have moved the bound of each row's series by."""
        for one in np.unique(series[~self._looked[series]]).tolist():
            device = int(registry.series["device"][one])
            ((tenant, name),) = registry.keys_of(np.asarray([device]))
            named: SeriesName = (tenant, name, registry.metrics[registry.series["metric"][one]])
            shard = int(registry.devices["shard"][device])
            self._factor[one] = self.feedback.factor(shard, named)
            self._looked[one] = True
        return self._factor[series]

    def _words(
        self,
        found: Found,
        score: Float64,
        told: Int64,
        metric: Labels,
        metrics: Mapping[str, MetricSpec],
    ) -> Labels:
        """Say of told readings what is strange about them; nothing of those below the bound."""
        bound = self._settings.emit_score
        units = [spec.unit if (spec := metrics.get(m)) is not None else None for m in metric.values]
        return Labels.of(
            found.why(row, units[code] or "")[:WHY_MAX] if score[row] >= bound else ""
            for row, code in zip(told.tolist(), metric.codes.tolist(), strict=True)
        )

    def _is_watched(self, metric: Labels) -> NDArray[np.bool_]:
        for name in metric.values:
            if name not in self._watched:
                self._watched[name] = self._settings.watches(name)
        flags = np.asarray([self._watched[name] for name in metric.values], np.bool_)
        return flags[metric.codes]


def _rows(held: NDArray[Any], series: Int64, here: Bool, blank: Any) -> NDArray[Any]:
    """Return the rows of some series; those that are not *here* are *blank*."""
    rows = np.empty((len(series), *held.shape[1:]), held.dtype)
    rows[here] = held[series[here]]
    rows[~here] = blank
    return rows


def _knows_nothing(settings: Detection) -> dict[str, NDArray[Any]]:
    """Return what a detector keeps of a series of which it knows nothing."""
    detector = detector_of(settings)
    detector.grow(1)
    return {name: values[0].copy() for name, values in detector.state().items()}
