"""A backtest for the terminal."""

from __future__ import annotations

from collections import Counter

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


def page(found: Backtest, *, columns: int = _COLUMNS) -> RenderableType:
    """Return a backtest for the terminal: a summary, a plot over time, the alerts."""
    return Group(summary(found), Text(), _plot(found, columns), Text(), _table(found))


def summary(found: Backtest) -> Text:
    """Return what came out, in words."""
    states = Counter(alert["state"] for alert in found.alerts)
    told = ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "none"
    devices = len({(alert["tenant"], alert["device"]) for alert in found.alerts})
    begin_ms, end_ms = found.span_ms()
    days = max((end_ms - begin_ms) / 86_400_000, 1e-9)
    return Text(
        f"{found.rule}: {len(found.alerts):,} alerts on {devices:,} devices "
        f"({_plain(len(found.alerts) / days)} a day); in their last state: {told}\n"
        f"{found.readings:,} readings of {found.series:,} series, "
        f"{utc(found.from_ms)} to {utc(found.to_ms)} UTC" + ("" if found.readings else _NOTHING)
    )


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


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
