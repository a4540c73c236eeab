"""Which accepted readings are told as anomalies: the detector of the settings, and its words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.agents.detectors import FIRST_NAME, WHY_MAX, Found, detector_of
from streams.core.classes import Class
from streams.core.crossings import Crossings
from streams.core.engine import Folded
from streams.core.readings import Int32, Int64, Labels
from streams.core.results import Scores
from streams.core.segments import running_max_before
from streams.settings import Detection, MetricSpec

_State = Mapping[str, Any]


class Watch:
    """Scores the series of one partition; a series has the same index as in the engine."""

    def __init__(self, settings: Detection) -> None:
        self._settings = settings
        self._watched: dict[str, bool] = {}
        self._blank = _knows_nothing(settings)
        self.clear()

    def clear(self) -> None:
        """Forget every series."""
        self.detector = detector_of(self._settings)
        self.crossings = Crossings(self._settings.emit_score)

    def grow(self, series: int) -> None:
        """Make room for series indices below *series*."""
        self.detector.grow(series)
        self.crossings.grow(series)

    def take(self, series: Int64) -> dict[str, Any]:
        """Return what a snapshot keeps of some series."""
        return {
            "detector": {n: v[series] for n, v in self.detector.state().items()},
            "detector_name": self.detector.name,
            "over": self.crossings.over[series],
        }

    def put(self, series: Int32 | Int64, loaded: _State) -> None:
        """Restore what :meth:`take` gave."""
        # Another detector learns anew; what is over its bound stays so until it says otherwise.
        if loaded.get("detector_name", FIRST_NAME) == self.detector.name:
            for name, values in self.detector.state().items():
                values[series] = loaded["detector"][name]
        self.crossings.over[series] = loaded["over"]

    def forget(self, series: Int64) -> None:
        """Let some series know nothing again."""
        for name, values in self.detector.state().items():
            values[series] = self._blank[name]
        self.crossings.over[series] = False

    def scores(
        self, folded: Folded, newest_ms: Int64, metrics: Mapping[str, MetricSpec]
    ) -> Scores | None:
        """Score accepted readings, in order of arrival, unless they are behind in event time.

        :param newest_ms: int64[series], the greatest event time scored so far; it is raised.
        :param metrics: the catalogue, for the units in words.
        :returns: the readings worth telling, if there are any.
        """
        rows, series = folded.rows, folded.series
        r = rows.readings
        eligible = (folded.verdict == Class.ACCEPTED) & np.isfinite(r.value)
        before = running_max_before(series, r.t_ms, newest_ms, eligible)
        np.maximum.at(newest_ms, series[eligible], r.t_ms[eligible])
        at = np.flatnonzero(eligible & (r.t_ms >= before) & self._is_watched(r.metric))
        if not len(at):
            return None
        found = self.detector.examine(series[at], r.t_ms[at], r.value[at])
        told = np.flatnonzero(self.crossings.tell(series[at], found.score))
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
            score=found.score[told],
            expected=found.expected[told],
            spread=found.spread[told],
            offset=rows.offset[at],
            row=rows.row[at],
            why=self._words(found, told, r.metric.take(at), metrics),
        )

    def _words(
        self, found: Found, told: Int64, metric: Labels, metrics: Mapping[str, MetricSpec]
    ) -> Labels:
        """Say of told readings what is strange about them; nothing of those below the bound."""
        bound = self._settings.emit_score
        units = [spec.unit if (spec := metrics.get(m)) is not None else None for m in metric.values]
        return Labels.of(
            found.why(row, units[code] or "")[:WHY_MAX] if found.score[row] >= bound else ""
            for row, code in zip(told.tolist(), metric.codes.tolist(), strict=True)
        )

    def _is_watched(self, metric: Labels) -> NDArray[np.bool_]:
        for name in metric.values:
            if name not in self._watched:
                self._watched[name] = self._settings.watches(name)
        flags = np.asarray([self._watched[name] for name in metric.values], np.bool_)
        return flags[metric.codes]


def _knows_nothing(settings: Detection) -> dict[str, NDArray[Any]]:
    """Return what a detector keeps of a series of which it knows nothing."""
    detector = detector_of(settings)
    detector.grow(1)
    return {name: values[0].copy() for name, values in detector.state().items()}
