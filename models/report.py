"""What a training found, as one HTML file without scripts: figures, and plots in SVG."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models.store import Card
from models.training import Trained

Float64 = NDArray[np.float64]
_WIDTH, _HEIGHT, _LEFT = 860, 220, 60
_POINTS_MAX = 860
_BARS = 60
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:900px;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;"
    "border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}"
    "svg{background:#fafafa}text{font:12px system-ui,sans-serif}"
)


def html(
    card: Card, version: int, trained: Trained, labels: Mapping[str, int] = MappingProxyType({})
) -> str:
    """Return the report of one version.

    :param labels: how often operators said what of the data, by kind.
    """
    title = f"{card.name}, version {version}"
    facts = {
        "kind": card.kind,
        "features": ", ".join(card.features),
        "rows": f"{card.rows:,}, {_day(card.since_ms)} to {_day(card.until_ms - 1)}",
        "threshold": f"{card.threshold:.6g} ({card.alarm_share:.2%} of healthy rows over it)",
        "labels": ", ".join(f"{n} {kind}" for kind, n in sorted(labels.items())) or "none",
        "seed": str(card.seed),
        "packages": ", ".join(f"{name} {number}" for name, number in card.packages.items()),
    }
    parts = [
        [_day(p.since_ms), f"{p.rows:,}", f"{p.median:.4g}", f"{p.highest:.4g}", f"{p.over:.3%}"]
        for p in card.parts
    ]
    ranges = [
        [name, f"{low:.6g}", f"{high:.6g}"]
        for name, (low, high) in zip(card.features, card.ranges, strict=True)
    ]
    return "\n".join(
        [
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>",
            f"<style>{_STYLE}</style><h1>{escape(title)}</h1>",
            _table(["", ""], [[key, value] for key, value in facts.items()]),
            "<h2>Scores of rows that the model had not seen</h2>",
            _course(trained.score, card.threshold),
            _histogram(trained.score, card.threshold),
            "<h2>Judged part by part, each by what was learnt before it</h2>",
            _table(["since", "rows", "median", "highest", "over the threshold"], parts),
            "<h2>Features in training</h2>",
            _table(["feature", "least", "greatest"], ranges),
            "</html>",
        ]
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{''.join(f'<th>{escape(h)}</th>' for h in head)}</tr>{cells}</table>"


def _course(score: Float64, threshold: float) -> str:
    """Draw scores in order of time, the highest of each few."""
    parts = np.array_split(score, min(_POINTS_MAX, len(score)))
    highest = np.asarray([part.max() for part in parts])
    top = max(float(highest.max()), threshold) * 1.05 or 1.0
    x = np.linspace(_LEFT, _WIDTH, len(highest))
    y = _HEIGHT - 20 - highest / top * (_HEIGHT - 30)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    line = f'<polyline points="{points}" fill="none" stroke="#2266aa"/>'
    return _svg(line + _threshold_line(threshold, top), "score over time")


def _threshold_line(threshold: float, top: float) -> str:
    y = _HEIGHT - 20 - threshold / top * (_HEIGHT - 30)
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#cc3311" '
        f'stroke-dasharray="6 3"/><text x="2" y="{y + 4:.1f}">{threshold:.4g}</text>'
    )


def _histogram(score: Float64, threshold: float) -> str:
    count, edges = np.histogram(score, bins=_BARS)
    height = np.log1p(count) / max(float(np.log1p(count).max()), 1e-9) * (_HEIGHT - 30)
    width = (_WIDTH - _LEFT) / _BARS
    bars = "".join(
        f'<rect x="{_LEFT + k * width:.1f}" y="{_HEIGHT - 20 - h:.1f}" width="{width - 1:.1f}" '
        f'height="{h:.1f}" fill="{"#cc3311" if edges[k] >= threshold else "#2266aa"}"/>'
        for k, h in enumerate(height.tolist())
    )
    ends = (
        f'<text x="{_LEFT}" y="{_HEIGHT - 4}">{edges[0]:.4g}</text>'
        f'<text x="{_WIDTH - 40}" y="{_HEIGHT - 4}">{edges[-1]:.4g}</text>'
    )
    return _svg(bars + ends, "how often each score came, logarithmic")


def _svg(content: str, label: str) -> str:
    return (
        f'<p>{escape(label)}</p><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(label)}">{content}</svg>'
    )


def _day(t_ms: int) -> str:
    return datetime.fromtimestamp(t_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
