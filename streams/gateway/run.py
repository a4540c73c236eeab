"""The whole gateway process: readings, twins, health."""

from __future__ import annotations

import asyncio
import signal

from streams.gateway.process import Gateway
from streams.gateway.twin_bridge import TwinBridge
from streams.intake.coap import serve_coap
from streams.intake.http import serve_http
from streams.intake.reception import Reception
from streams.ops import ops_app, serve
from streams.settings import Settings


async def run_gateway(settings: Settings) -> None:
    """Carry readings and twins until SIGTERM or SIGINT; if one of the two fails, both end.

    :raises SettingsError: if mappings, address or login cannot be used.
    :raises TopicMismatchError: if Kafka's topics are not as the settings say.
    """
    gateway, bridge, stop = Gateway(settings), TwinBridge(settings), asyncio.Event()
    reception = Reception(settings.intake, lambda: gateway.requests, gateway.take)
    asked = asyncio.Event()

    def ready() -> tuple[bool, str]:
        readings, twins = gateway.ready(), bridge.ready()
        return readings if twins[0] else twins

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    async with serve(ops_app(ready), settings.ops.host, settings.ops.gateway_port):
        parts = [asyncio.create_task(gateway.run()), asyncio.create_task(bridge.run(stop))]
        stopping = asyncio.create_task(asked.wait())
        # Requests under way are answered before the gateway stops.
        async with serve_http(reception), serve_coap(reception):
            await asyncio.wait((*parts, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        gateway.stop()
        stop.set()
        await asyncio.gather(*parts)
