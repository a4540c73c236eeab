"""A backtest as a page of HTML that needs nothing else: no script, no network, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from streams.alerts.backtest import Backtest
from streams.alerts.backtest_view import summary
from streams.terminal import utc

_MOST_LINES = 200
"""Series that are drawn."""
_MOST_BARS = 5_000
"""Alerts that are drawn."""
_MOST_ROWS = 1_000
"""Alerts in the table."""
_STATES = ("firing", "resolved", "retracted")
_WIDTH, _LEFT, _STEP = 1000, 240, 24
"""Of the drawing: all, where time begins, and a line, in its own units."""
_NAME_LENGTH = 34
_STYLE = """
:root{color-scheme:light dark;--ink:#1d2329;--paper:#fff;--faint:#d4dae0;
--firing:#c0392b;--resolved:#d9822b;--retracted:#8795a1}
@media(prefers-color-scheme:dark){:root{--ink:#e3e8ec;--paper:#14181c;--faint:#3a434b;
--firing:#ef6a5b;--resolved:#f0a85a;--retracted:#8795a1}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;padding:0 1rem;max-width:72rem;
color:var(--ink);background:var(--paper)}
svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:var(--ink)}
line{stroke:var(--faint)}
.firing{--of:var(--firing)}.resolved{--of:var(--resolved)}.retracted{--of:var(--retracted)}
rect{fill:var(--of)}
i{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em;background:var(--of)}
table{border-collapse:collapse}.wide{overflow-x:auto}
td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top;
border-bottom:1px solid var(--faint)}
"""
Name = tuple[str, str, str]
"""Tenant, device and metric."""


def html(found: Backtest) -> str:
    """Return a page: each series on which it fired is a line, each alert a bar on it."""
    rule = escape(found.rule)
    said = "</p><p>".join(escape(line) for line in summary(found).plain.splitlines() if line)
    drawing = _drawing(found) + _table(found.alerts) if found.alerts else ""
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'/>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'/>"
        f"<title>Backtest of {rule}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>Backtest of {rule}</h1><p>{said}</p>\n{drawing}</body></html>\n"
    )


def _drawing(found: Backtest) -> str:
    lines: dict[Name, list[dict[str, Any]]] = {}
    for alert in found.alerts:
        name = (alert["tenant"], alert["device"], alert["metric"])
        lines.setdefault(name, []).append(alert)
    shown = sorted(lines.items(), key=lambda line: -len(line[1]))[:_MOST_LINES]
    rows, bars = [], 0
    for row, (name, alerts) in enumerate(shown):
        drawn = alerts[: _MOST_BARS - bars]
        bars += len(drawn)
        rows.append(_line(found, row, name, drawn))
    begin_ms, end_ms = found.span_ms()
    height = _STEP * len(shown) + 24
    key = "".join(f"<i class='{state}'></i>{state}" for state in _STATES)
    return (
        f"<svg role='img' aria-label='Alerts over time' viewBox='0 0 {_WIDTH} {height}'>"
        f"{''.join(rows)}<text x='{_LEFT}' y='{height - 6}'>{escape(utc(begin_ms))}</text>"
        f"<text x='{_WIDTH}' y='{height - 6}' text-anchor='end'>{escape(utc(end_ms))}</text></svg>"
        f"<p>UTC. A bar is an alert, from its beginning to its end; in its last state:"
        f"{key}</p>{_left_out(len(lines) - len(shown), 'series', 'drawn')}"
        f"{_left_out(len(found.alerts) - bars, 'alerts', 'drawn')}\n"
    )


def _line(found: Backtest, row: int, name: Name, alerts: Sequence[dict[str, Any]]) -> str:
    begin_ms, end_ms = found.span_ms()
    y, span = _STEP * row, max(end_ms - begin_ms, 1)
    title = " ".join(name[1:])
    short = title if len(title) <= _NAME_LENGTH else title[: _NAME_LENGTH - 1] + "…"
    out = (
        f"<text x='0' y='{y + 15}'>{escape(short)}<title>{escape(' '.join(name))}</title></text>"
        f"<line x1='{_LEFT}' x2='{_WIDTH}' y1='{y + 18}' y2='{y + 18}'/>"
    )
    wide = _WIDTH - _LEFT
    for alert in alerts:
        ends_ms = end_ms if alert["resolved_ms"] is None else alert["resolved_ms"]
        x = _LEFT + wide * (alert["began_ms"] - begin_ms) / span
        width = max(wide * (min(ends_ms, end_ms) - alert["began_ms"]) / span, 2)
        out += (
            f"<rect class='{escape(alert['state'])}' x='{min(x, _WIDTH - 2):.1f}' y='{y + 4}' "
            f"width='{width:.1f}' height='14'>"
            f"<title>{escape(utc(alert['began_ms']) + ': ' + alert['why'])}</title></rect>"
        )
    return out


def _table(alerts: Sequence[dict[str, Any]]) -> str:
    heads = ("began (UTC)", "fired (UTC)", "resolved (UTC)", "state", "site", "device", "metric")
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(alert)) + "</tr>"
        for alert in alerts[:_MOST_ROWS]
    )
    head = "".join(f"<th>{name}</th>" for name in (*heads, "why"))
    return (
        f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table>"
        f"</div>{_left_out(len(alerts) - _MOST_ROWS, 'alerts', 'in the table')}\n"
    )


def _cells(alert: dict[str, Any]) -> list[str]:
    times = (alert[name] for name in ("began_ms", "fired_ms", "resolved_ms"))
    names = (alert[name] for name in ("state", "site", "device", "metric", "why"))
    return [*("" if at_ms is None else utc(at_ms) for at_ms in times), *names]


def _left_out(count: int, what: str, where: str) -> str:
    return f"<p>{count:,} more {what} are not {where}: --json has all.</p>" if count > 0 else ""
