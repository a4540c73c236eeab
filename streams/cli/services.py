"""``headwater services``: real Kafka, InfluxDB and mosquitto on this machine."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

services = typer.Typer(
    help="Real Kafka, InfluxDB and mosquitto on this machine.", no_args_is_help=True
)
Json = Annotated[bool, typer.Option("--json", help="One JSON object")]
Only = Annotated[list[str] | None, typer.Option(help="kafka, mqtt or influx; may repeat")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(services, name="services")


@services.command()
def up(only: Only = None, json: Json = False) -> None:
    """Start what does not run yet, on free loopback ports; a first start installs it.

    Name a server of your own in HEADWATER_KAFKA, HEADWATER_MQTT or HEADWATER_INFLUX and it is
    used instead.

    Example: headwater services up --only kafka
    """
    import orjson

    from streams.errors import ServiceError
    from streams.services import supervisor
    from streams.settings import load

    unknown = set(only or ()) - set(supervisor.NAMES)
    if unknown:
        raise ServiceError(f"no such server: {', '.join(unknown)}; known: {supervisor.NAMES}")
    console = Console(stderr=json)
    addresses = supervisor.up(
        load().state,
        only or supervisor.NAMES,
        report=lambda name, what: console.print(f"[bold]{name:>7}[/]  {what}", highlight=False),
    )
    if json:
        print(orjson.dumps(addresses).decode())


@services.command()
def down() -> None:
    """Stop the servers that `up` started; their data stays in the state folder.

    Example: headwater services down
    """
    from streams.services import supervisor
    from streams.settings import load

    console = Console()
    supervisor.down(
        load().state,
        report=lambda name, what: console.print(f"[bold]{name:>7}[/]  {what}", highlight=False),
    )


@services.command()
def status(json: Json = False) -> None:
    """Show each server: where it is, who started it, whether it answers.

    Example: headwater services status --json
    """
    from dataclasses import asdict

    import orjson
    from rich.table import Table

    from streams.services import supervisor
    from streams.settings import load

    rows = supervisor.status(load())
    if json:
        print(orjson.dumps([asdict(row) for row in rows]).decode())
        return
    table = Table("server", "address", "started by", "answers", "pid")
    for row in rows:
        table.add_row(
            row.name,
            row.address,
            "headwater" if row.ours else "you",
            "[green]yes[/]" if row.up else "[red]no[/]",
            str(row.pid or ""),
        )
    Console().print(table)
