"""``headwater edge``: the twins of a site, online or not."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(edge)


def edge() -> None:
    """Keep the twins of one site: a durable log, loopback HTTP, sync over MQTT when it is there.

    Example: HEADWATER_EDGE__SITE=north headwater edge
    """
    from crdt.core.errors import TwinError
    from crdt.log import LogError
    from edge.process import main
    from streams.errors import HeadwaterError
    from streams.log import configure
    from streams.settings import load

    settings = load()
    configure(settings.log, "edge")
    try:
        main(settings)
    except (LogError, TwinError) as error:
        raise HeadwaterError(str(error)) from error
