"""``headwater explain``: which readings made this number?"""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(explain)


def explain(
    device: Annotated[str, typer.Argument(help="The device")],
    metric: Annotated[str, typer.Argument(help="The metric")],
    window_start: Annotated[
        str, typer.Argument(help="A time in the window: 2026-01-31T12:00, milliseconds, or 10min")
    ],
    window: Annotated[
        str | None,
        typer.Option(help="Name of the definition, where several apply; minute@1: a generation"),
    ] = None,
    tenant: Annotated[str, typer.Option(help="Whose device it is")] = "default",
    rows: Annotated[
        int, typer.Option(min=1, help="Readings shown at the beginning and at the end")
    ] = 5,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object, with all readings")
    ] = False,
) -> None:
    """Take a window apart: its revisions, the readings inside, what was left out and why.

    Ends with 1 if the result is not what its readings make.

    Example: headwater explain pump-1 temperature 2026-01-31T12:00 --window 1m
    """
    import asyncio

    import orjson

    from streams.adapters.config_log import look_up, now_in_force
    from streams.explain import explain as take_apart
    from streams.explain_view import page
    from streams.recovery.held import parse_time
    from streams.recovery.run import now_ms
    from streams.settings import load
    from streams.terminal import console

    at_ms = parse_time(window_start, now_ms())
    if window is None:
        settings = asyncio.run(now_in_force(load()))
    else:
        settings, window = asyncio.run(look_up(load(), window))
    found = asyncio.run(take_apart(settings, (tenant, device, metric), at_ms, window))
    if json:
        print(orjson.dumps(found.as_json()).decode())
    else:
        console().print(page(found, rows))
    if not found.holds:
        raise typer.Exit(1)
