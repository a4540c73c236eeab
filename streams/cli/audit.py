"""``headwater audit``: does every reading have its place?"""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(audit)


def audit(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object")] = False,
) -> None:
    """Count again, from Kafka's log and InfluxDB; exit 1 where an identity does not hold.

    Example: headwater audit --json
    """
    import asyncio

    import orjson
    from rich.console import Console
    from rich.table import Table

    from streams.audit import CLASSES
    from streams.audit import audit as count
    from streams.settings import load

    report = asyncio.run(count(load(), tenant))
    if json:
        print(orjson.dumps(report.as_json()).decode())
    else:
        console = Console()
        table = Table("site", "device", *CLASSES)
        for device in report.devices:
            table.add_row(device["site"], device["device"], *(f"{device[c]:,}" for c in CLASSES))
        table.add_section()
        table.add_row("", "all", *(f"{report.classes[c]:,}" for c in CLASSES), style="bold")
        console.print(table)
        console.print(
            f"{report.received:,} readings in the log; {report.windows:,} windows; "
            f"{report.in_open_windows:,} readings in windows still open; "
            f"{report.refused_records:,} messages refused whole"
        )
        for problem in report.problems[:20]:
            console.print(f"[red]✗[/] {problem}", highlight=False)
        console.print("[green]✓ every identity holds[/]" if report.holds else "")
    if not report.holds:
        raise typer.Exit(1)
