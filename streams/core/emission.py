"""From panes to results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.core.panes import Panes, deviation
from streams.core.readings import Int32, Int64, Labels
from streams.core.registry import Registry
from streams.core.results import PROVISIONAL, WindowResults
from streams.core.windows import Tumbling

SOURCE = "cloud"


class Emitter:
    """Turns slots into :class:`WindowResults` and marks them as shown."""

    def __init__(self, registry: Registry, panes: Panes, definitions: Sequence[Tumbling]) -> None:
        self._registry = registry
        self._panes = panes
        self._names = tuple(d.name for d in definitions)
        self._size_ms = np.asarray([d.size_ms for d in definitions], np.int64)
        self._grace_ms = np.asarray([d.grace_ms for d in definitions], np.int64)
        self._horizon_ms = np.asarray([d.horizon_ms for d in definitions], np.int64)

    def closes_at(self, slots: Int64) -> Int64:
        """Return the watermark at which each pane closes."""
        c = self._panes.columns
        kind = c["definition"][slots]
        at: Int64 = c["start_ms"][slots] + self._size_ms[kind] + self._grace_ms[kind]
        return at

    def horizon_ms(self, slots: Int64) -> Int64:
        """Return the correction horizon of each pane."""
        horizon: Int64 = self._horizon_ms[self._panes.columns["definition"][slots]]
        return horizon

    def closed(self, slots: Int64, *, idle: bool = False) -> list[WindowResults]:
        """Close panes and emit them: revision = the late readings already inside."""
        if not len(slots):
            return []
        self._panes.close(slots, idle=idle)
        ranks = self._panes.columns["late"][slots]
        return [self._results(slots, ranks, "idle" if idle else "closed")]

    def corrections(self, slots: Int64) -> list[WindowResults]:
        """Emit panes that late readings have changed."""
        if not len(slots):
            return []
        return [self._results(slots, self._panes.columns["late"][slots], "late")]

    def provisional(self, slots: Int64) -> list[WindowResults]:
        """Emit open panes of a quiet device, unless they have been shown with the same content."""
        c = self._panes.columns
        news = slots[c["shown"][slots] != c["count"][slots]]
        if not len(news):
            return []
        c["shown"][news] = c["count"][news]
        return [self._results(news, np.full(len(news), PROVISIONAL, np.int32), "provisional")]

    def _results(self, slots: Int64, rank: Int32, reason: str) -> WindowResults:
        c, reg, n = self._panes.columns, self._registry, len(slots)
        series = c["series"][slots]
        device = reg.series["device"][series].tolist()
        names = [reg.device_names[d] for d in device]
        kind = c["definition"][slots]
        start = c["start_ms"][slots]
        count = c["count"][slots]
        return WindowResults(
            tenant=Labels.of(tenant for tenant, _ in names),
            site=Labels.of(reg.sites[s] for s in c["site"][slots].tolist()),
            device=Labels.of(name for _, name in names),
            metric=Labels.of(reg.metrics[s] for s in series.tolist()),
            window=Labels(kind.astype(np.int32), self._names),
            source=Labels.constant(SOURCE, n),
            reason=Labels.constant(reason, n),
            start_ms=start,
            end_ms=start + self._size_ms[kind],
            rank=rank.astype(np.int32),
            count=count,
            sum=c["sum"][slots],
            min=c["min"][slots],
            max=c["max"][slots],
            mean=c["sum"][slots] / count,
            sd=deviation(count, c["s1"][slots], c["s2"][slots]),
            last_received_ms=c["received_ms"][slots],
            kafka_ms=c["kafka_ms"][slots],
        )
