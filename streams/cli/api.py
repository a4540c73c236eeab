"""``headwater api``: the cloud's HTTP API."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(api)


def api() -> None:
    """Serve twins over HTTP on loopback: read them, edit them, list devices.

    Example: headwater api & curl localhost:8105/v1/devices
    """
    from streams.api.process import main
    from streams.settings import load

    main(load())
