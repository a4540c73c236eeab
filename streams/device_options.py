"""What the commands about one device share: its arguments, and whom they ask."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Device = Annotated[str, typer.Argument(help="The device")]
Edge = Annotated[str | None, typer.Option(help="Ask this edge, such as http://127.0.0.1:8106")]
Api = Annotated[str | None, typer.Option(help="Ask this API; default: the one of the settings")]
Tenant = Annotated[str, typer.Option(help="The device's tenant, in the cloud")]


def print_json(data: Any) -> None:
    """Print a line of JSON, at once: others read it while a command goes on."""
    import orjson

    typer.echo(orjson.dumps(data))
