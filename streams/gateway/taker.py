"""Readings of HTTP and CoAP into Kafka: those of many requests go together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from streams.core.readings import Readings, concat_readings
from streams.errors import BusyError
from streams.gateway import meters
from streams.gateway.producer import Batch, OrderedProducer
from streams.gateway.records import frame_records


class Taker:
    """Gathers readings for a moment, sends them as frames, and says when Kafka has them.

    It is a :class:`streams.ports.Take`. Make it inside the event loop.
    """

    def __init__(
        self,
        producer: OrderedProducer,
        partitions: int,
        *,
        max_rows: int,
        max_waiting: int,
        linger_ms: int,
    ) -> None:
        """Make one.

        :param partitions: partition count of ``readings``.
        :param max_rows: readings of one frame.
        :param max_waiting: readings taken and not confirmed; beyond it none are taken.
        :param linger_ms: how long readings are gathered.
        """
        self._producer = producer
        self._partitions = partitions
        self._max_rows = max_rows
        self._max_waiting = max_waiting
        self._linger_s = linger_ms / 1000
        self._gathered: list[tuple[Readings, asyncio.Future[None]]] = []
        self._rows = 0
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()

    async def __call__(self, readings: Readings) -> None:
        """Return once Kafka has confirmed *readings*.

        :raises BusyError: if more than the bound waits already.
        """
        if self._waiting and self._waiting + len(readings) > self._max_waiting:
            raise BusyError(
                f"{self._waiting} readings wait for Kafka, and {self._max_waiting} may "
                "(intake.max_waiting_readings)"
            )
        confirmed = asyncio.get_running_loop().create_future()
        self._gathered.append((readings, confirmed))
        self._rows += len(readings)
        self._waiting += len(readings)
        self._arrived.set()
        if self._rows >= self._max_rows:
            self._full.set()
        await confirmed

    async def run(self) -> None:
        """Send what is gathered, until cancelled."""
        while True:
            await self._arrived.wait()
            if not self._full.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._linger_s):
                        await self._full.wait()
            gathered, self._gathered, self._rows = self._gathered, [], 0
            self._arrived.clear()
            self._full.clear()
            await self._send(gathered)

    async def _send(self, gathered: Sequence[tuple[Readings, asyncio.Future[None]]]) -> None:
        readings = concat_readings([part for part, _ in gathered])
        records = frame_records(readings, self._partitions, self._max_rows)

        def confirmed() -> None:
            self._waiting -= len(readings)
            meters.READINGS.inc(len(readings))
            meters.count_sites(readings)
            for _, future in gathered:
                if not future.done():  # its request has timed out
                    future.set_result(None)

        await self._producer.submit(Batch(records, confirmed))
