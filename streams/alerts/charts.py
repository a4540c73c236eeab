"""Charts for messages: the series of an alert from the lake, drawn for those who want it.

A chart is an extra. What takes too long, what is too much at once, and what the lake does not know
goes out without one.
"""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client import Counter

from streams import lake
from streams.alerts.chart import HEIGHT, WIDTH, Plot, Point, draw
from streams.errors import HeadwaterError
from streams.settings import Settings

_CHARTS = Counter(
    "headwater_alerts_charts", "Charts wanted in messages, by what became of it.", ["outcome"]
)
_TIMEOUT_S = 2.0
_POINTS = 120
_MOST_BYTES = 32_768
_REMEMBERED = 256
_AROUND_MS = 600_000
"""Shown at least, before the alert began; or ten windows."""


class Charts:
    """Draws charts, at most so many a minute; one that was drawn is remembered for retries."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.lake
        self._most = settings.alerts.charts_per_minute
        self._wanted = {hook.name for hook in settings.webhooks if hook.chart}
        self._drawn: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()
        self._minute, self._used = -1, 0
        self._busy: asyncio.Task[bytes] | None = None

    async def of(
        self, entry: Mapping[str, Any], endpoint: str, now_s: float
    ) -> dict[str, Any] | None:
        """Return the chart for a message about one alert, None if there is to be none."""
        if endpoint not in self._wanted or entry.get("group") is not None:
            return None
        alert = entry["alert"]
        key = (alert["id"], alert["state"])
        if key in self._drawn:
            return self._drawn[key]
        outcome, png = await self._draw(alert, now_s)
        _CHARTS.labels(outcome).inc()
        if png is None:
            return None
        drawn = self._drawn[key] = {
            "media_type": "image/png",
            "width": WIDTH,
            "height": HEIGHT,
            "base64": base64.b64encode(png).decode(),
        }
        while len(self._drawn) > _REMEMBERED:
            self._drawn.popitem(last=False)
        return drawn

    async def _draw(self, alert: Mapping[str, Any], now_s: float) -> tuple[str, bytes | None]:
        """Return what became of it, and the picture."""
        if not self._may(now_s):
            return "over the limit", None
        self._busy = asyncio.ensure_future(asyncio.to_thread(chart_of, alert, self._root))
        try:
            png = await asyncio.wait_for(asyncio.shield(self._busy), _TIMEOUT_S)
        except TimeoutError:
            return "too slow", None
        except (HeadwaterError, ValueError, OSError):
            return "no data", None
        return ("drawn", png) if len(png) <= _MOST_BYTES else ("too large", None)

    def _may(self, now_s: float) -> bool:
        """Whether there is room; one that took too long is waited for before there is."""
        if self._busy is not None and not self._busy.done():
            return False
        minute = int(now_s // 60)
        if minute != self._minute:
            self._minute, self._used = minute, 0
        self._used += 1
        return self._used <= self._most


def chart_of(alert: Mapping[str, Any], root: Path) -> bytes:
    """Return a chart of an alert's series from the lake, up to what the alert itself says.

    :raises HeadwaterError: if the lake is empty.
    :raises ValueError: if it has too little of the series.
    """
    sample = alert["sample"]
    window = alert.get("window")
    size_ms = alert["end_ms"] - alert["start_ms"] if window is not None else 0
    span_ms = max(_AROUND_MS, 10 * size_ms)
    where = {name: alert[name] for name in ("tenant", "device", "metric")}
    span = {"since_ms": alert["began_ms"] - span_ms, "until_ms": sample["t_ms"] + 1}
    points: list[Point]
    if window is None:
        rows = lake.readings(**where, **span, root=root).to_pylist()
        points = [(row["t_ms"], row["value"]) for row in rows if row["value"] is not None]
    else:
        rows = lake.windows(**where, **span, definition=window, root=root).to_pylist()
        points = [(row["end_ms"], row["mean"]) for row in rows if row["mean"] is not None]
    if window is None and sample["value"] is not None:
        points.append((sample["t_ms"], sample["value"]))
    points = sorted(dict(points).items())[-_POINTS:]
    title = f"{alert['metric']} of {alert['device']}" + (f", mean in {window}" if window else "")
    bound = sample["expected"] if window is None else None
    return draw(Plot(title, points, bound, alert["began_ms"]))
