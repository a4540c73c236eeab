"""``headwater inspect``: look into a topic, in human form."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(inspect)


def inspect(
    topic: Annotated[str, typer.Argument(help="aggregates, anomalies, readings, rejected, ...")],
    device: Annotated[str | None, typer.Option(help="Only this device")] = None,
    follow: Annotated[bool, typer.Option(help="Go on with what comes")] = False,
    limit: Annotated[int, typer.Option(help="Rows at most, the last ones; 0: all")] = 20,
    json: Annotated[bool, typer.Option("--json", help="One JSON line per row")] = False,
) -> None:
    """Show what is in a topic: windows, scores, readings, or what was refused and why.

    Example: headwater inspect aggregates --device pump-1 --follow
    """
    import asyncio

    from streams.inspection import show
    from streams.settings import load

    asyncio.run(show(load(), topic, device=device, follow=follow, limit=limit, as_json=json))
