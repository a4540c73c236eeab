"""The newest results of the windows of every series, in memory: to be read at the site."""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Gauge

from streams.core.results import WindowResults

_SERIES = Gauge("headwater_edge_recent_windows", "Pairs of a series and a window that are kept.")
_LEFT_OUT = Counter(
    "headwater_edge_recent_left_out", "Window results beyond edge.local.max_recent."
)
_COLUMNS = ("start_ms", "end_ms", "rank", "count", "sum", "min", "max", "mean", "sd")
Result = dict[str, Any]


class RecentWindows:
    """Of each series and window the results with the greatest rank, of the newest windows."""

    def __init__(self, per_series: int, max_series: int) -> None:
        """Begin empty: a start of the edge forgets them.

        :param per_series: results of one series and window.
        :param max_series: pairs of a series and a window; results of further ones are left out.
        """
        self._per_series, self._max_series = per_series, max_series
        self._count = 0
        self._devices: dict[str, dict[tuple[str, str], dict[int, Result]]] = {}

    def update(self, results: WindowResults) -> None:
        """Take results; one that a correction retracted goes."""
        columns = {name: getattr(results, name).tolist() for name in _COLUMNS}
        columns |= {name: values.tolist() for name, values in results.extra.items()}
        columns["reason"] = results.reason.to_list()
        names = zip(
            results.device.to_list(),
            results.metric.to_list(),
            results.window.to_list(),
            strict=True,
        )
        for (device, metric, window), *row in zip(names, *columns.values(), strict=True):
            result = {"metric": metric, "window": window, **dict(zip(columns, row, strict=True))}
            self._put(device, (metric, window), result)
        _SERIES.set(self._count)

    def device(
        self, device: str, metric: str | None = None, window: str | None = None
    ) -> list[Result] | None:
        """Return results of a device, newest last; None if there is none of that device."""
        found = self._devices.get(device)
        if found is None:
            return None
        return [
            results[start_ms]
            for (name, of), results in sorted(found.items())
            if metric in (None, name) and window in (None, of)
            for start_ms in sorted(results)
        ]

    @property
    def status(self) -> dict[str, int]:
        """How many results are kept, of how many pairs of a series and a window."""
        kept = sum(len(found) for device in self._devices.values() for found in device.values())
        return {"results": kept, "series": self._count, "max_series": self._max_series}

    def _put(self, device: str, series: tuple[str, str], result: Result) -> None:
        of_device = self._devices.get(device, {})
        kept = of_device.get(series)
        if kept is None:
            if self._count >= self._max_series:
                _LEFT_OUT.inc()
                return
            self._count += 1
            self._devices[device] = of_device
            kept = of_device[series] = {}
        start_ms = result["start_ms"]
        before = kept.get(start_ms)
        if before is not None and before["rank"] > result["rank"]:
            return
        if result["count"] == 0:
            kept.pop(start_ms, None)
        elif before is None and len(kept) == self._per_series:
            oldest_ms = next(iter(kept))
            if start_ms > oldest_ms:
                del kept[oldest_ms]
                kept[start_ms] = result
        else:
            kept[start_ms] = result
