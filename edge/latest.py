"""The latest reading of every series of the site, in memory: to be read while the cloud is away."""

from __future__ import annotations

import math
from typing import Any

from prometheus_client import Counter, Gauge

from streams.core.readings import Readings

_SERIES = Gauge("headwater_edge_latest_series", "Series whose latest reading is kept.")
_LEFT_OUT = Counter("headwater_edge_latest_left_out", "Readings of series beyond the bound.")


class Latest:
    """Latest by event time, whatever the order of arrival."""

    def __init__(self, max_series: int) -> None:
        """Begin empty: what came before a start is not known until its series are heard again.

        :param max_series: further series are left out, and counted.
        """
        self._max_series = max_series
        self._count = 0
        self._devices: dict[str, dict[str, tuple[int, int, Any, int]]] = {}

    def update(self, readings: Readings) -> None:
        """Take readings that are stored."""
        rows = zip(
            readings.device.to_list(),
            readings.metric.to_list(),
            readings.t_ms.tolist(),
            readings.received_ms.tolist(),
            readings.value.tolist(),
            readings.quality.tolist(),
            strict=True,
        )
        for row, (device, metric, t_ms, received_ms, value, quality) in enumerate(rows):
            metrics = self._devices.get(device, {})
            before = metrics.get(metric)
            if before is None:
                if self._count >= self._max_series:
                    _LEFT_OUT.inc()
                    continue
                self._count += 1
                self._devices[device] = metrics
            elif before[0] > t_ms:
                continue
            kept = value
            if math.isnan(value):
                kept = readings.exact_int.get(row, readings.text.get(row))
            metrics[metric] = (t_ms, received_ms, kept, quality)
        _SERIES.set(self._count)

    def device(self, device: str) -> dict[str, dict[str, Any]] | None:
        """Return metric -> ``t_ms``, ``received_ms``, ``value``, ``quality``; None if unknown."""
        found = self._devices.get(device)
        return None if found is None else {name: _shown(*one) for name, one in found.items()}

    def one(self, device: str, metric: str) -> dict[str, Any] | None:
        """Return one of them."""
        found = self._devices.get(device, {}).get(metric)
        return None if found is None else _shown(*found)


def _shown(t_ms: int, received_ms: int, value: Any, quality: int) -> dict[str, Any]:
    return {"t_ms": t_ms, "received_ms": received_ms, "value": value, "quality": quality}
