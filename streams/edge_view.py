"""An edge on a terminal: lanes, rates, lag, link, what was given up."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text


def page(status: dict[str, Any], before: dict[str, Any] | None, seconds: float) -> Group:
    """Return what a person is shown.

    :param status: what ``/v1/status`` of an edge answers.
    :param before: what it answered *seconds* ago, for rates.
    """
    uplink = status["uplink"]
    link = (
        "[green]connected[/]" if uplink["connected"] else f"[red]down[/]: {escape(uplink['why'])}"
    )
    lines = [
        f"[bold]{escape(status['tenant'])}/{escape(status['site'])}[/]  uplink {link}",
        f"in {_rate('stored', status, before, seconds)}  up "
        f"{_rate('confirmed', status, before, seconds)}  filtered "
        f"{_rate('filtered', status, before, seconds)}  answers in {uplink['round_trip_ms']} ms, "
        f"{uplink['unanswered_batches']} batches unanswered, {uplink['resent_batches']} sent "
        f"again, {uplink['batch_readings']:,} readings a batch",
    ]
    table = Table("lane", "waiting", "of the room", "oldest", box=SIMPLE_HEAD, pad_edge=False)
    for lane in status["lanes"]:
        share = lane["bytes"] / lane["max_bytes"]
        table.add_row(
            lane["lane"],
            f"{lane['readings']:,}",
            f"{lane['bytes'] / 1e6:,.1f} MB, {share:.0%}",
            f"{lane['lag_ms'] / 1000:,.1f} s" if lane["readings"] else "",
        )
    if ring := status.get("ring"):
        share = ring["bytes"] / ring["max_bytes"]
        table.add_row(
            "ring (stays)",
            f"{ring['readings']:,}",
            f"{ring['bytes'] / 1e6:,.1f} MB, {share:.0%}",
            f"{ring['reaches_back_ms'] / 1000:,.1f} s" if ring["readings"] else "",
        )
    lost = ", ".join(f"{count:,} {reason}" for reason, count in sorted(status["given_up"].items()))
    lines_below = f"[yellow]given up since the start: {lost}[/]" if lost else "nothing given up"
    return Group(*map(Text.from_markup, lines), table, Text.from_markup(lines_below))


def _rate(name: str, status: dict[str, Any], before: dict[str, Any] | None, seconds: float) -> str:
    same_life = before is not None and before["life"] == status["life"]
    if before is None or not same_life or seconds <= 0:
        return f"{status[name]:,}"
    return f"{(status[name] - before[name]) / seconds:,.0f}/s"
