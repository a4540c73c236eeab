"""``headwater topics``: make and check the Kafka topics."""

from __future__ import annotations

import typer
from rich.console import Console

topics = typer.Typer(help="Make and check the Kafka topics.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(topics, name="topics")


@topics.command()
def apply() -> None:
    """Create the topics that are missing, set what differs of others, and check all.

    Example: headwater topics apply
    """
    import asyncio

    from streams.adapters import topic_admin
    from streams.settings import load

    settings = load()
    done = asyncio.run(topic_admin.apply(settings.kafka, settings.topics))
    Console().print("\n".join(done) or "all topics are there", highlight=False)


@topics.command()
def check() -> None:
    """Compare every topic with what it must be; exit 2 and say what differs.

    Example: headwater topics check
    """
    import asyncio

    from streams.adapters import topic_admin
    from streams.settings import load

    settings = load()
    asyncio.run(topic_admin.check(settings.kafka, settings.topics))
    Console().print("[green]✓[/] all topics are as they must be")
