"""A small chart of a series around an alert, as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 480, 160
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 8, 20, 20
_PAPER, _INK, _LINE, _ALARM, _GRID = "white", "#444444", "#1f6feb", "#d1242f", "#dddddd"
Point = tuple[int, float]
"""Event time in ms, and value."""


@dataclass(frozen=True, slots=True)
class Plot:
    """What is drawn. ``bound`` is a level, ``began_ms`` when the alert began."""

    title: str
    points: Sequence[Point]
    bound: float | None
    began_ms: int


def draw(plot: Plot) -> bytes:
    """Return a PNG of 480 x 160 pixels.

    :raises ValueError: if there are fewer than two points, they are all of one time, or their
        values are further apart than a float can say.
    """
    points = [(t, v) for t, v in plot.points if math.isfinite(v)]
    times = [t for t, _ in points]
    if len(set(times)) < 2:
        raise ValueError("fewer than two points")
    levels = [v for _, v in points] + ([] if plot.bound is None else [plot.bound])
    low, high = min(levels), max(levels)
    if not math.isfinite(1.1 * (high - low)):
        raise ValueError("the values are too far apart")
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    low, high = low - margin, high + margin
    first, last = min(times), max(times)

    def x(t_ms: int) -> float:
        return _LEFT + (t_ms - first) / (last - first) * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    image = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    pen.text((_LEFT, 3), plot.title[:70], _INK, font)
    for level in (low + margin, high - margin):
        pen.line((_LEFT, y(level), WIDTH - _RIGHT, y(level)), _GRID)
        pen.text((4, y(level) - 6), f"{level:.5g}", _INK, font)
    for t_ms, anchor in ((first, "ls"), (last, "rs")):
        at = datetime.fromtimestamp(t_ms / 1000, tz=UTC)
        pen.text((x(t_ms), HEIGHT - 5), f"{at:%m-%d %H:%M:%S}", _INK, font, anchor)
    if plot.bound is not None:
        pen.line((_LEFT, y(plot.bound), WIDTH - _RIGHT, y(plot.bound)), _ALARM)
    if first <= plot.began_ms <= last:
        pen.line((x(plot.began_ms), _TOP, x(plot.began_ms), HEIGHT - _BOTTOM), _ALARM)
    pen.line([(x(t), y(v)) for t, v in points], _LINE, 2)
    written = io.BytesIO()
    image.quantize(16).save(written, "PNG", optimize=True)
    return written.getvalue()
