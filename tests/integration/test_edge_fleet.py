"""Edges whose broker does not let them in go on to all the others."""

from __future__ import annotations

import asyncio
import random

from edge.brokers import in_turn, pauses_s
from streams.adapters.mqtt_link import MqttLink
from streams.services.ports import HOST
from streams.settings import Settings
from tests.waiting import eventually_async

_EDGES = 12


class Door:
    """Where a broker would be: counts who knocks, and lets nobody in."""

    def __init__(self) -> None:
        self.knocks = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> str:
        """Return the address."""
        self._server = await asyncio.start_server(self._knocked, HOST, 0)
        return f"mqtt://{HOST}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def _knocked(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.knocks += 1
        writer.close()


async def test_edges_that_are_not_let_in_knock_at_every_broker() -> None:
    doors = [Door(), Door(), Door()]
    first, *others = [await door.open() for door in doors]
    retry = {"retry_min_ms": 100, "retry_max_ms": 200}
    settings = Settings(mqtt=first, edge={"brokers": others, **retry})
    links = []
    for number in range(_EDGES):
        rng = random.Random(number)
        retry_s = pauses_s(settings, rng)
        link = MqttLink(in_turn(settings, rng), settings.broker, f"e{number}", retry_s=retry_s)
        links.append(link)
        link.start()

    async def all_went_round() -> bool:
        return all(door.knocks >= 2 * _EDGES for door in doors)

    try:
        await eventually_async(all_went_round)
    finally:
        await asyncio.gather(*(link.stop() for link in links))
        for door in doors:
            await door.close()
