"""A backtest for the terminal, and as a page of HTML that needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streams.alerts.backtest import Backtest
from streams.terminal import utc

_BARS = " ▁▂▃▄▅▆▇█"
_COLUMNS = 80
_NOTHING = (
    "\nThe lake has no readings that the rule looks at, of that time: --from and --to are about "
    "when they came in, not about the times that they tell. See: headwater lake query"
)
_MOST_ROWS = 40
_MOST_LINES = 200
_COLOURS = {"firing": "#c0392b", "resolved": "#e67e22", "retracted": "#95a5a6"}


def page(found: Backtest, *, columns: int = _COLUMNS) -> RenderableType:
    """Return a backtest for the terminal: a summary, a plot over time, the alerts."""
    return Group(_summary(found), Text(), _plot(found, columns), Text(), _table(found))


def _summary(found: Backtest) -> Text:
    states = Counter(alert["state"] for alert in found.alerts)
    told = ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "none"
    devices = len({(alert["tenant"], alert["device"]) for alert in found.alerts})
    begin_ms, end_ms = found.span_ms()
    days = max((end_ms - begin_ms) / 86_400_000, 1e-9)
    return Text(
        f"{found.rule}: {len(found.alerts)} alerts on {devices} devices "
        f"({len(found.alerts) / days:.3g} a day); in their last state: {told}\n"
        f"{found.readings:,} readings of {found.series:,} series, "
        f"{utc(found.from_ms)} to {utc(found.to_ms)} UTC" + ("" if found.readings else _NOTHING)
    )


def _plot(found: Backtest, columns: int) -> Text:
    """How many alerts began in each part of the time."""
    began = [alert["began_ms"] for alert in found.alerts]
    begin_ms, end_ms = found.span_ms()
    counts, _ = np.histogram(began, bins=columns, range=(begin_ms, end_ms))
    most = int(counts.max(initial=0))
    levels = np.ceil(counts / max(most, 1) * (len(_BARS) - 1)).astype(int)
    bars = "".join(_BARS[level] for level in levels.tolist())
    part_s = (end_ms - begin_ms) / columns / 1000
    return Text(
        f"|{bars}|\n alerts that began, {utc(begin_ms)} to {utc(end_ms)}, "
        f"at most {most} in {part_s:,.0f} s"
    )


def _table(found: Backtest) -> Table:
    table = Table("began (UTC)", "fired (UTC)", "resolved (UTC)", "state", "site", "device", "why")
    for alert in found.alerts[:_MOST_ROWS]:
        table.add_row(
            utc(alert["began_ms"]),
            utc(alert["fired_ms"]),
            "" if alert["resolved_ms"] is None else utc(alert["resolved_ms"]),
            alert["state"],
            *(Text(alert[name]) for name in ("site", "device", "why")),
        )
    if len(found.alerts) > _MOST_ROWS:
        table.caption = f"and {len(found.alerts) - _MOST_ROWS} more: --json has all"
    return table


def html(found: Backtest) -> str:
    """Return a page: each series on which it fired is a line, each alert a bar on it."""
    lines: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for alert in found.alerts:
        name = (alert["tenant"], alert["device"], alert["metric"])
        lines.setdefault(name, []).append(alert)
    shown = sorted(lines.items(), key=lambda line: -len(line[1]))[:_MOST_LINES]
    height = 24 * len(shown) + 40
    begin_ms, end_ms = found.span_ms()
    rows = "".join(_line(found, i, name, alerts) for i, (name, alerts) in enumerate(shown))
    more = len(lines) - len(shown)
    note = f"<p>and {more} series more</p>" if more else ""
    return (
        "<!doctype html><meta charset='utf-8'>"
        f"<title>{escape(found.rule)}</title>"
        "<style>body{font:14px sans-serif;margin:2em}text{font:12px sans-serif}"
        "td,th{padding:2px 10px;text-align:left}</style>"
        f"<h1>{escape(found.rule)}</h1><p>{escape(_summary(found).plain)}</p>"
        f"<svg width='1000' height='{height}'>{rows}"
        f"<text x='200' y='{height - 8}'>{escape(utc(begin_ms))}</text>"
        f"<text x='1000' y='{height - 8}' text-anchor='end'>{escape(utc(end_ms))}</text>"
        f"</svg>{note}{_html_table(found.alerts)}"
    )


def _line(
    found: Backtest, row: int, name: tuple[str, str, str], alerts: Sequence[dict[str, Any]]
) -> str:
    begin_ms, end_ms = found.span_ms()
    y, span = 24 * row, max(end_ms - begin_ms, 1)
    title = " ".join(name[1:])
    out = f"<text x='0' y='{y + 15}'>{escape(title[:30])}</text>"
    out += f"<line x1='200' x2='1000' y1='{y + 18}' y2='{y + 18}' stroke='#ddd'/>"
    for alert in alerts:
        ends_ms = end_ms if alert["resolved_ms"] is None else alert["resolved_ms"]
        x = 200 + 800 * (alert["began_ms"] - begin_ms) / span
        width = max(800 * (ends_ms - alert["began_ms"]) / span, 2)
        out += (
            f"<rect x='{x:.1f}' y='{y + 4}' width='{width:.1f}' height='14' "
            f"fill='{_COLOURS.get(alert['state'], '#888')}'>"
            f"<title>{escape(utc(alert['began_ms']) + ': ' + alert['why'])}</title></rect>"
        )
    return out


def _html_table(alerts: Sequence[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(utc(a['began_ms']))}<td>{a['state']}<td>{escape(a['site'])}"
        f"<td>{escape(a['device'])}<td>{escape(a['why'])}"
        for a in alerts[:_MOST_LINES]
    )
    return f"<table><tr><th>began (UTC)<th>state<th>site<th>device<th>why{rows}</table>"
