"""From windows to results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.core.aggregates import Arrays
from streams.core.readings import Float64, Int32, Int64, Labels
from streams.core.registry import Registry
from streams.core.results import CLOUD, RETRACTED, WindowResults

_EVERY = (
    *("count", "sum", "min", "max", "mean", "sd"),
    *("site", "last_received_ms", "kafka_ms"),
)


class Writer:
    """Names what the windows of one definition hold."""

    def __init__(self, registry: Registry, window: str) -> None:
        self._registry = registry
        self._window = window

    def results(
        self,
        series: Int32,
        start_ms: Int64,
        end_ms: Int64,
        rank: Int32,
        *,
        reason: str,
        found: Arrays,
    ) -> WindowResults:
        """Return results.

        :param found: what :class:`~streams.core.aggregates.Aggregates` says of them.
        """
        reg, n = self._registry, len(series)
        device = reg.series["device"][series]
        return WindowResults(
            tenant=_named(reg.devices["tenant"][device], reg.tenants),
            site=_named(found["site"], reg.sites),
            device=_named(device, reg.names),
            metric=_named(reg.series["metric"][series], reg.metrics),
            window=Labels.constant(self._window, n),
            source=Labels.constant(CLOUD, n),
            reason=Labels.constant(reason, n),
            start_ms=start_ms,
            end_ms=end_ms,
            rank=rank.astype(np.int32),
            **{name: found[name] for name in _EVERY if name != "site"},
            extra={name: values for name, values in found.items() if name not in _EVERY},
        )

    def retractions(
        self, series: Int32, start_ms: Int64, end_ms: Int64, rank: Int32, site: Int32
    ) -> WindowResults:
        """Return results that say: this window is no more."""
        n = len(series)
        none: Float64 = np.full(n, np.nan)
        found: Arrays = dict.fromkeys(("min", "max", "mean", "sd"), none)
        found |= {"count": np.zeros(n, np.int64), "sum": np.zeros(n), "site": site}
        found |= dict.fromkeys(("last_received_ms", "kafka_ms"), np.full(n, -1, np.int64))
        return self.results(series, start_ms, end_ms, rank, reason=RETRACTED, found=found)


def _named(codes: Int32, names: Sequence[str]) -> Labels:
    return Labels(codes, names).compact()
