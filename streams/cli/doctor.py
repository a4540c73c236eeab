"""``headwater doctor``: what this machine lacks, and how to get it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(doctor)


def doctor(json: Annotated[bool, typer.Option("--json", help="A JSON list")] = False) -> None:
    """Check this machine, one line per item; exit 1 if something is missing.

    Example: headwater doctor
    """
    from dataclasses import asdict

    import orjson

    from streams.services.checks import examine

    items = examine()
    if json:
        print(orjson.dumps([asdict(item) for item in items]).decode())
    else:
        console = Console(soft_wrap=True)
        for item in items:
            mark = "[green]✓[/]" if item.ok else "[red]✗[/]"
            fix = "" if item.ok else f"  [yellow]→ {item.fix}[/]"
            console.print(f"{mark} {item.what:<24} {item.found}{fix}", highlight=False)
    if not all(item.ok for item in items):
        raise typer.Exit(1)
