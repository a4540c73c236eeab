"""``headwater alerts``: the alerts process, and a look at its alerts."""

from __future__ import annotations

from typing import Annotated

import typer

alerts = typer.Typer(help="Run the alerts process, or look at its alerts.")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(alerts, name="alerts")


@alerts.callback(invoke_without_command=True)
def run(context: typer.Context) -> None:
    """Run the alerts process: rules on anomalies, signed webhooks.

    Example: headwater alerts
    """
    if context.invoked_subcommand is None:
        from streams.alerts.process import main
        from streams.settings import load

        main(load())


@alerts.command("list")
def list_alerts(
    json: Annotated[bool, typer.Option("--json", help="A JSON list")] = False,
    firing: Annotated[bool, typer.Option(help="Only those that fire now")] = False,
) -> None:
    """Show the alerts of the last days, each in its last state.

    Example: headwater alerts list --firing
    """
    import asyncio

    import orjson
    from rich.console import Console

    from streams.alerts.book import read_alerts, table_of
    from streams.settings import load

    found = asyncio.run(read_alerts(load()))
    if firing:
        found = [alert for alert in found if alert["state"] == "firing"]
    if json:
        print(orjson.dumps(found).decode())
    else:
        Console().print(table_of(found))


@alerts.command()
def redeliver(
    message: Annotated[str, typer.Argument(help="The id of a dead message: msg_...")],
) -> None:
    """Put a dead message back into the outbox, under its own id.

    Example: headwater alerts redeliver msg_0123
    """
    import asyncio

    from rich.console import Console

    from streams.alerts.book import redeliver as again
    from streams.settings import load

    asyncio.run(again(load(), message))
    Console().print(f"{message} waits for delivery again")
