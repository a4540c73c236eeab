"""A steady load: frames of many devices at a given rate, as a gateway writes them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer

from benchmarks.streams.broker import Record
from streams.topics import READINGS

_TICK_S = 0.002


@dataclass(slots=True)
class Load:
    """Records with *rows* readings each, sent evenly at *per_s* readings a second."""

    kafka: str
    records: Sequence[Record]
    rows: int
    per_s: float
    ended: threading.Event = field(default_factory=threading.Event)
    sent: int = 0
    """Records so far."""

    async def run(self) -> None:
        """Send until ended, or nothing is left."""
        async with AIOKafkaProducer(bootstrap_servers=self.kafka, linger_ms=0) as producer:
            started = time.perf_counter()
            while not self.ended.is_set() and self.sent < len(self.records):
                due = int((time.perf_counter() - started) * self.per_s / self.rows) + 1
                for partition, key, value, headers in self.records[self.sent : due]:
                    await producer.send(
                        READINGS, value, key=key, partition=partition, headers=headers
                    )
                self.sent = max(self.sent, min(due, len(self.records)))
                await asyncio.sleep(_TICK_S)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send from another thread for as long as the block lasts."""
        with ThreadPoolExecutor(1, "load") as pool:
            done = pool.submit(lambda: asyncio.run(self.run()))
            try:
                yield
            finally:
                self.ended.set()
            done.result()
