"""The API process: HTTP on loopback, read models of twins and commands, edits into Kafka."""

from __future__ import annotations

import asyncio
import signal
import time

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from fastapi import HTTPException

from streams.adapters.twin_records import policies_of
from streams.api.command_http import add_commands
from streams.api.command_states import CommandStates
from streams.api.http import api_app
from streams.api.models import add_models
from streams.api.read_model import TwinStates
from streams.log import configure, get_logger
from streams.ops import serve
from streams.ports import Produce
from streams.settings import Settings

_log = get_logger(__name__)
_RETRY_S = 1.0
_WRITE_S = 10.0


class Api:
    """The API. :meth:`run` serves until asked to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        partitions = settings.topics.partitions
        self._states = TwinStates(settings.kafka, partitions)
        self._commands = CommandStates(settings.kafka, partitions, settings.commands.max_listed)
        self._producer: AIOKafkaProducer | None = None

    def ready(self) -> tuple[bool, str]:
        """Whether twins can be read and edited, and commands sent."""
        why = self._states.why_not_ready or self._commands.why_not_ready
        if not why and self._producer is None:
            why = "the producer is not connected to Kafka yet"
        return not why, why

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until *stop* is set.

        :raises OSError: if the port is taken.
        """
        settings = self._settings
        policies = policies_of(settings.twins)
        partitions = settings.topics.partitions
        app = api_app(self._states, self._write, self.ready, partitions, policies)
        add_commands(
            *(app, self._commands, self._states, self._write),
            partitions=partitions,
            settings=settings.commands,
        )
        add_models(app, settings.models)
        async with serve(app, settings.ops.host, settings.ops.api_port):
            stopping = asyncio.create_task(stop.wait())
            tasks = [
                asyncio.create_task(self._states.run(), name="twin states"),
                asyncio.create_task(self._commands.run(), name="command states"),
                asyncio.create_task(self._connect(), name="producer"),
            ]
            _log.info("api", port=settings.ops.api_port)
            try:
                done, _ = await asyncio.wait(
                    (stopping, *tasks), return_when=asyncio.FIRST_COMPLETED
                )
                for task in done & set(tasks):
                    task.result()  # ended on its own: a defect, which must end the process
            finally:
                for task in (stopping, *tasks):
                    task.cancel()
                await asyncio.gather(stopping, *tasks, return_exceptions=True)
                if self._producer is not None:
                    await self._producer.stop()

    async def _connect(self) -> None:
        """Connect the producer, for as long as it takes, then wait to be cancelled."""
        while self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._settings.kafka, acks="all", enable_idempotence=True
            )
            try:
                await producer.start()
            except (KafkaError, OSError) as error:
                _log.warning("kafka unreachable", error=repr(error))
                await producer.stop()
                await asyncio.sleep(_RETRY_S)
            else:
                self._producer = producer
        await asyncio.Event().wait()

    async def _write(self, record: Produce) -> tuple[int, int]:
        """Write one record; return where it is.

        :raises HTTPException: 503 if Kafka does not confirm it in time: it may still be written.
        """
        if self._producer is None:
            raise HTTPException(503, {"reason": "not-ready", "detail": self.ready()[1]})
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(_WRITE_S):
                future = await self._producer.send(
                    record.topic,
                    record.value,
                    key=record.key,
                    partition=record.partition,
                    headers=list(record.headers.items()),
                )
                found = await asyncio.shield(future)
        except (KafkaError, TimeoutError) as error:
            took_s = time.monotonic() - began_s
            detail = f"Kafka did not confirm the edit within {took_s:.0f} s: {error!r}"
            raise HTTPException(503, {"reason": "not-confirmed", "detail": detail}) from error
        return found.partition, found.offset


def main(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    configure(settings.log, "api")

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await Api(settings).run(stop)

    asyncio.run(run())
