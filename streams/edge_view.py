"""An edge on a terminal: lanes, rates, lag, link, local work, what was given up."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from streams.terminal import utc

_MAX_RULES = 20
Status = dict[str, Any]


def page(status: Status, before: Status | None, seconds: float) -> Group:
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
    lost = ", ".join(f"{count:,} {reason}" for reason, count in sorted(status["given_up"].items()))
    below = [f"[yellow]given up since the start: {lost}[/]" if lost else "nothing given up"]
    if filters := status.get("filters"):
        below.append(_filters(filters))
    return Group(
        *map(Text.from_markup, lines),
        _lanes(status),
        *map(Text.from_markup, below),
        *(_local(status["local"]) if "local" in status else ()),
    )


def _lanes(status: Status) -> Table:
    table = Table("lane", "waiting", "of the room", "oldest", box=SIMPLE_HEAD, pad_edge=False)
    for lane in status["lanes"]:
        table.add_row(lane["lane"], *_held(lane, lane["lag_ms"]))
    if ring := status.get("ring"):
        *held, oldest = _held(ring, ring["reaches_back_ms"])
        kept = f"{oldest}, kept for {ring['retention_ms'] / 3_600_000:,.4g} h".strip(", ")
        table.add_row("ring (stays)", *held, kept)
    return table


def _held(place: Status, oldest_ms: int) -> tuple[str, str, str]:
    room = f"{place['bytes'] / 1e6:,.1f} of {place['max_bytes'] / 1e6:,.1f} MB"
    share = place["bytes"] / place["max_bytes"]
    return (
        f"{place['readings']:,}",
        f"{room}, {share:.0%}",
        f"{oldest_ms / 1000:,.1f} s" if place["readings"] else "",
    )


def _filters(filters: Status) -> str:
    measured = filters["sent"] + filters["filtered"]
    share = f", {filters['filtered'] / measured:.0%}" if measured else ""
    return (
        f"filters: {filters['series']:,} of at most {filters['max_series']:,} series, "
        f"{filters['sent']:,} readings sent, {filters['filtered']:,} filtered{share}"
    )


def _local(local: Status | None) -> list[RenderableType]:
    if local is None:
        return [Text("no local work: edge.local.enabled = false")]
    windows = local["windows"]
    found: list[RenderableType] = [
        Text(
            f"local: {windows['results']:,} windows of {windows['series']:,} series kept, "
            f"{local['commands']:,} commands given, {local['waiting_commands']:,} wait; "
            f"{local['waiting_readings']:,} readings wait"
        )
    ]
    if local["passed_over"]:
        passed_over = f"{local['passed_over']:,} readings were passed over by local work"
        found.append(Text(passed_over, style="yellow"))
    found += [_webhook(one) for one in local.get("webhooks", ())]
    if not local["rules"]:
        return found
    table = Table("local rule", "told by", "firing", "commands", box=SIMPLE_HEAD, pad_edge=False)
    ranked = sorted(local["rules"], key=lambda rule: (-rule["firing"], rule["rule"]))
    for rule in ranked[:_MAX_RULES]:
        firing = f"[red]{rule['firing']:,}[/]" if rule["firing"] else "0"
        told_by = "edge" if rule["where"] == "edge" else "cloud"
        table.add_row(escape(rule["rule"]), told_by, firing, f"{rule['commands']:,}")
    if len(ranked) > _MAX_RULES:
        table.caption = f"{len(ranked) - _MAX_RULES:,} more rules; --json shows them"
    found.append(table)
    found += [
        Text(f"{utc(one['began_ms'])}  {one['rule']}  {one['why']}", style="red")
        for one in local["newest_firing"]
    ]
    more = local["firing"] - len(local["newest_firing"])
    if more > 0:
        found.append(Text(f"{more:,} more alerts fire: GET /v1/alerts?state=firing"))
    return found


def _webhook(one: Status) -> Text:
    trouble = f": {one['trouble']}" if one["trouble"] else ""
    return Text(
        f"webhook {one['name']}: {one['waiting']:,} messages wait, "
        f"{one['delivered']:,} delivered{trouble}",
        style="yellow" if trouble else "",
    )


def _rate(name: str, status: Status, before: Status | None, seconds: float) -> str:
    same_life = before is not None and before["life"] == status["life"]
    if before is None or not same_life or seconds <= 0:
        return f"{status[name]:,}"
    return f"{(status[name] - before[name]) / seconds:,.0f}/s"
