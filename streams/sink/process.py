"""The sink process: a carrier per target, with health and metrics."""

from __future__ import annotations

import asyncio
import signal

import uvloop

from streams.extensions import SINKS, load
from streams.log import configure
from streams.ops import ops_app, serve
from streams.settings import Settings
from streams.sink.carrier import Carrier, run_all


def main(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; more processes share the partitions."""
    configure(settings.log, "sink")
    uvloop.run(_run(settings))


async def _run(settings: Settings) -> None:
    carriers = [Carrier(load(SINKS, name)(settings), settings) for name in settings.sink.targets]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def ready() -> tuple[bool, str]:
        down = [carrier.down_because for carrier in carriers if carrier.down_because]
        return not down, "; ".join(down)

    async with serve(ops_app(ready), settings.ops.host, settings.ops.sink_port):
        await run_all(carriers, stop)
