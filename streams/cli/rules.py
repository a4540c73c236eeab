"""``headwater rules``: try rules before they alert anybody, and ask why one did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

rules = typer.Typer(help="Test rules, try them on the past, explain alerts.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(rules, name="rules")


@rules.command()
def test(
    file: Annotated[Path, typer.Argument(help="Cases: readings, and what they make fire when")],
    json: Annotated[bool, typer.Option("--json", help="A JSON list")] = False,
) -> None:
    """Run cases for rules, from readings to alerts, in memory. Ends with 1 if one fails.

    Example: headwater rules test rules.test.toml
    """
    from dataclasses import asdict

    import orjson
    from rich.table import Table
    from rich.text import Text

    from streams.alerts.rule_cases import run_cases
    from streams.terminal import console

    verdicts = run_cases(file)
    if json:
        print(orjson.dumps([{**asdict(v), "holds": v.holds} for v in verdicts]).decode())
    else:
        table = Table("", "case", "after", "rule", "expected", "fires")
        for one in verdicts:
            mark = "[green]✓[/]" if one.holds else "[bold red]✗[/]"
            expected, found = (", ".join(sorted(names)) for names in (one.expected, one.found))
            words = (one.case, one.after, one.rule, expected, found)
            table.add_row(mark, *(Text(word) for word in words))
        console().print(table)
    if not all(one.holds for one in verdicts):
        raise typer.Exit(1)


@rules.command()
def backtest(
    rule: Annotated[str, typer.Argument(help="Name of a rule in the settings")],
    from_: Annotated[
        str, typer.Option("--from", help="Log time: 2026-01-31T12:00, milliseconds, or 7d")
    ] = "7d",
    to: Annotated[str, typer.Option(help="As --from; default: now")] = "0s",
    warmup: Annotated[
        str, typer.Option(help="Readings before that detectors learn from, such as 1d")
    ] = "0s",
    max_readings: Annotated[int, typer.Option(min=1, help="Refuse more than that")] = 5_000_000,
    html: Annotated[Path | None, typer.Option(help="Write a page of it to this file")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object, with all alerts")] = False,
) -> None:
    """Judge the readings of the lake anew: how often would the rule have fired, and when?

    Example: headwater rules backtest hot --from 30d --html hot.html
    """
    import orjson

    from streams.alerts.backtest import backtest as judge
    from streams.alerts.backtest_html import html as written
    from streams.alerts.backtest_view import page
    from streams.errors import HeadwaterError
    from streams.recovery.held import parse_time
    from streams.recovery.run import now_ms
    from streams.settings import load
    from streams.terminal import console

    now = now_ms()
    from_ms, to_ms = parse_time(from_, now), parse_time(to, now)
    if from_ms >= to_ms:
        raise HeadwaterError(f"--from {from_} is not before --to {to}")
    warmup_ms = now - parse_time(warmup, now)
    settings = load()
    found = judge(settings, rule, from_ms, to_ms, warmup_ms=warmup_ms, max_readings=max_readings)
    if html is not None:
        try:
            html.write_text(written(found), encoding="utf-8")
        except OSError as error:
            raise HeadwaterError(f"--html {html} cannot be written: {error.strerror}") from error
    if json:
        print(orjson.dumps(found.as_json()).decode())
    else:
        console().print(page(found))


@rules.command()
def explain(
    alert: Annotated[str, typer.Argument(help="The id of an alert: alt_...")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object")] = False,
) -> None:
    """Say why an alert is what it is: its rule, what it was judged on, and who was told.

    Example: headwater rules explain alt_5f0c2b7d9e3a41c6a0d8e7f2
    """
    import asyncio

    import orjson

    from streams.adapters.config_log import now_in_force
    from streams.alerts.explaining import Explanation, page
    from streams.alerts.explaining import explain as find
    from streams.recovery.run import now_ms
    from streams.settings import load
    from streams.terminal import console

    async def look() -> Explanation:
        return await find(await now_in_force(load()), alert, now_ms())

    found = asyncio.run(look())
    if json:
        print(orjson.dumps(found.as_json()).decode())
    else:
        console().print(page(found))
