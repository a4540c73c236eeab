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

    from streams.log import configure
    from streams.settings import load

    settings = load(config)
    configure(settings.log, "gateway")

    async def main() -> None:
        import asyncio
        import signal

        from streams.gateway.process import Gateway
        from streams.ops import ops_app, serve

        process = Gateway(settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, process.stop)
        async with serve(ops_app(process.ready), settings.ops.host, settings.ops.gateway_port):
            await process.run()

    uvloop.run(main())
