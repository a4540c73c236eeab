"""``headwater gateway``: MQTT to Kafka."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(gateway)


def gateway(
    config: Annotated[Path | None, typer.Option(help="Default: headwater.toml")] = None,
) -> None:
    """Carry readings from the MQTT broker into Kafka, until SIGTERM or Ctrl-C.

    Examples: headwater gateway; HEADWATER_MQTT=mqtts://broker:8883 headwater gateway
    """
    import uvloop

    from streams.gateway.run import run_gateway
    from streams.log import configure
    from streams.settings import load

    settings = load(config)
    configure(settings.log, "gateway")

    uvloop.run(run_gateway(settings))
