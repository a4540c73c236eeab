"""``headwater labels``: what operators say of alarms."""

from __future__ import annotations

from typing import Annotated, Any

import typer

labels = typer.Typer(
    help='Say "not an anomaly" or "missed one" of a series; its threshold follows.',
    no_args_is_help=True,
)
Json = Annotated[bool, typer.Option("--json", help="JSON")]
Tenant = Annotated[str, typer.Option(help="Whose device it is")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(labels, name="labels")


@labels.command()
def add(
    kind: Annotated[str, typer.Argument(help="not-an-anomaly or missed")],
    device: Annotated[str | None, typer.Argument(help="The device")] = None,
    metric: Annotated[str | None, typer.Argument(help="The metric")] = None,
    since: Annotated[
        str | None, typer.Argument(help="When: 2026-01-31T12:00, milliseconds, or 10min ago: 10min")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Its end; default a minute later")] = None,
    alert: Annotated[
        str | None, typer.Option(help="An alert instead of device, metric and time: alt_...")
    ] = None,
    tenant: Tenant = "default",
    note: Annotated[str, typer.Option(help="Why")] = "",
    author: Annotated[str | None, typer.Option(help="Default: who is logged in")] = None,
) -> None:
    """Label a stretch of a series. Saying it again changes nothing.

    Example: headwater labels add not-an-anomaly --alert alt_5f0c2b7d9e3a41c6a0d8e7f2

    Example: headwater labels add missed pump-1 pressure 2026-01-31T12:00 --note "leak in valve 3"
    """
    import asyncio

    from streams.adapters.label_log import publish
    from streams.adapters.label_records import label_id
    from streams.alerts.book import read_alert
    from streams.core.feedback import KINDS, Label
    from streams.errors import HeadwaterError
    from streams.recovery.held import parse_time
    from streams.recovery.run import now_ms
    from streams.settings import load
    from streams.terminal import who

    chosen = next((one for one in KINDS if one == kind), None)
    if chosen is None:
        raise HeadwaterError(f"{kind!r} is no kind of label; expected {' or '.join(KINDS)}")
    if (alert is None) == (device is None or metric is None or since is None):
        raise HeadwaterError("give either device, metric and time, or --alert")
    settings, at_ms = load(), now_ms()
    if alert is not None:
        found = asyncio.run(read_alert(settings, alert))
        where = found["tenant"], found["device"], found["metric"]
        since_ms, until_ms = found["began_ms"], (found["resolved_ms"] or found["sample"]["t_ms"])
    else:
        where = tenant, str(device), str(metric)
        since_ms = parse_time(str(since), at_ms)
        until_ms = since_ms + 60_000 if until is None else parse_time(until, at_ms)
    label = Label(
        label_id(*where, chosen, since_ms),
        *where,
        kind=chosen,
        since_ms=since_ms,
        until_ms=max(until_ms, since_ms + 1),
        author=who(author),
        note=note,
        at_ms=at_ms,
    )
    asyncio.run(publish(settings, label))
    print(f"{label.id}: {kind}, {label.device}/{label.metric}")


@labels.command("list")
def list_labels(
    device: Annotated[str | None, typer.Option(help="Only of this device")] = None,
    json: Json = False,
) -> None:
    """Show all labels, and what they have moved the thresholds of their series by.

    Example: headwater labels list --device pump-1
    """
    import asyncio

    import orjson
    from rich.console import Console

    from streams.adapters.label_log import read_labels
    from streams.settings import load

    settings = load()
    held = asyncio.run(read_labels(settings))
    chosen = [one for one in held if device in (None, one.device)]
    if json:
        print(orjson.dumps([one.as_json() for one in chosen]).decode())
        return
    for table in _tables(settings, chosen):
        Console().print(table)


@labels.command()
def remove(identity: Annotated[str, typer.Argument(help="The id of a label: lab_...")]) -> None:
    """Take a label back; the threshold goes back as well.

    Example: headwater labels remove lab_5f0c2b7d9e3a41c6a0d8e7f2
    """
    import asyncio
    from dataclasses import replace

    from streams.adapters.label_log import publish, read_labels
    from streams.errors import HeadwaterError
    from streams.settings import load

    settings = load()
    held = {one.id: one for one in asyncio.run(read_labels(settings))}
    if identity not in held:
        raise HeadwaterError(f"there is no label {identity}: headwater labels list")
    asyncio.run(publish(settings, replace(held[identity], removed=True)))
    print(f"{identity}: removed")


def _tables(settings: Any, held: Any) -> list[Any]:
    from rich.markup import escape
    from rich.table import Column, Table

    from streams.core.feedback import FALSE_ALARM, FeedbackRules, factor
    from streams.terminal import utc

    d = settings.detection
    rules = FeedbackRules(d.feedback_step, d.feedback_max, d.max_labels)
    said = Table(
        Column("id", no_wrap=True), "kind", "device", "metric", "since (UTC)", "author", "note"
    )
    by_series: dict[Any, list[str]] = {}
    for one in held:
        words = (one.device, one.metric, utc(one.since_ms), one.author, one.note)
        said.add_row(one.id, one.kind, *(escape(word) for word in words))
        by_series.setdefault(one.series, []).append(one.kind)
    moved = Table("tenant", "device", "metric", "not an anomaly", "missed", "threshold")
    for series, kinds in sorted(by_series.items()):
        false = kinds.count(FALSE_ALARM)
        by = factor(false, len(kinds) - false, rules)
        moved.add_row(
            *(escape(name) for name in series), str(false), str(len(kinds) - false), f"× {by:.2f}"
        )
    return [said, moved]
