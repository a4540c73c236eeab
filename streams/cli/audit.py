"""``headwater audit``: does every reading have its place?"""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(audit)


def audit(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant")] = None,
    live: Annotated[bool, typer.Option(help="Count again and again, until Ctrl-C")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two, with --live")] = 5,
    devices: Annotated[int, typer.Option(min=0, help="Devices shown at most")] = 40,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object (with --live one per line)")
    ] = False,
) -> None:
    """Count again, from Kafka's log, InfluxDB and the lake; exit 1 where an identity fails.

    Example: headwater audit --json
    Example: headwater audit --live --every 10
    """
    import asyncio
    from contextlib import suppress

    import orjson
    from rich.live import Live

    from streams.audit import AuditReport
    from streams.audit import audit as count
    from streams.audit_view import page
    from streams.settings import load
    from streams.terminal import console

    settings = load()
    reports: list[AuditReport] = []

    async def count_on(screen: Live) -> None:
        # Asked instead of awaited for: a client that closes may swallow what Ctrl-C cancels.
        task = asyncio.current_task()
        while task and not task.cancelling():
            reports[:] = [await count(settings, tenant)]
            if json:
                print(orjson.dumps(reports[0].as_json()).decode(), flush=True)
            else:
                screen.update(page(reports[0], devices), refresh=True)
            await asyncio.sleep(every)

    if live:
        with suppress(KeyboardInterrupt), Live(console=console(), auto_refresh=False) as screen:
            asyncio.run(count_on(screen))
    else:
        reports = [asyncio.run(count(settings, tenant))]
        if json:
            print(orjson.dumps(reports[0].as_json()).decode())
        else:
            console().print(page(reports[0], devices))
    if not all(report.holds for report in reports):
        raise typer.Exit(1)
