"""``headwater config``: check and show the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

config = typer.Typer(help="Check and show the settings.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(config, name="config")


@config.command()
def check(
    path: Annotated[Path | None, typer.Argument(help="Default: headwater.toml")] = None,
) -> None:
    """Load the settings and name every offence with its line.

    Example: headwater config check deploy/headwater.toml
    """
    from streams.agents.readings import make_readings
    from streams.alerts.channel import channels_of
    from streams.extensions import GROUPS, installed
    from streams.intake.mapping import TopicMap
    from streams.settings import config_path, load

    settings = load(path)
    TopicMap(settings.mappings)
    # Loads what the settings name of other packages, and lets it judge its options.
    make_readings(settings)(0, settings.topics.partitions)
    channels_of(settings.model_copy(update={"webhooks": []}))
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[green]✓[/] {path or config_path()} is valid")
    for group in GROUPS:
        found = ", ".join(
            one.name if one.package == "headwater" else f"{one.name} ({one.package} {one.version})"
            for one in installed(group)
        )
        console.print(f"  {group.removeprefix('headwater.'):<12} {found or '-'}")


@config.command()
def show(
    json: Annotated[bool, typer.Option("--json", help="One JSON object")] = False,
) -> None:
    """Print the settings in force: file, environment and defaults together.

    Example: headwater config show --json
    """
    from streams.settings import load

    text = load().model_dump_json(indent=None if json else 2)
    if json:
        print(text)
    else:
        Console().print_json(text)
