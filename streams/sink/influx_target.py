"""The InfluxDB target: the current result of every window, idempotent by series and window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition

from streams.adapters.influx import Influx, lines, write_or_split
from streams.adapters.rejected import rejected_record
from streams.adapters.results import decode_windows
from streams.errors import DecodeError
from streams.log import get_logger
from streams.ports import Produce
from streams.settings import Settings
from streams.sink.ranks import Key, Ranks
from streams.topics import AGGREGATES

_log = get_logger(__name__)


class InfluxTarget:
    """Writes ``aggregates`` to InfluxDB; keeps the greatest rank of every window."""

    name = "influx"
    topics: Sequence[str] = (AGGREGATES,)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.flush_ms = settings.sink.flush_ms
        self._influx = Influx(settings)
        self._ranks = Ranks(settings.sink.max_buffered_rows)
        self._waiting: dict[Key, tuple[int, str]] = {}
        self._refused: list[Produce] = []

    async def open(self) -> None:
        """Connect the producer of refused points."""
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka, acks="all", enable_idempotence=True
        )
        await self._producer.start()

    async def assigned(self, partition: TopicPartition) -> int | None:
        """Go on at the committed offset."""
        return None

    def add(self, partition: TopicPartition, records: Sequence[Any]) -> None:
        """Buffer the greatest rank of each window."""
        for record in records:
            source = f"kafka:{record.topic}/{record.partition}/{record.offset}"
            try:
                results = decode_windows(record.value or b"")
            except DecodeError as error:
                self._refuse(record.value or b"", error, source, record.timestamp)
                continue
            keys = zip(
                results.tenant.to_list(),
                results.site.to_list(),
                results.device.to_list(),
                results.metric.to_list(),
                results.window.to_list(),
                results.source.to_list(),
                map(str, results.start_ms.tolist()),
                strict=True,
            )
            ranks = results.rank.tolist()
            for key, rank, line in zip(keys, ranks, lines(results), strict=True):
                if rank >= self._waiting.get(key, (rank,))[0]:
                    self._waiting[key] = (rank, line)

    def rows(self) -> int:
        """Return how many windows wait."""
        return len(self._waiting) + len(self._refused)

    async def flush(self) -> None:
        """Write what waits, but nothing over a higher rank."""
        await self._learn_unknown()
        batch = {k: r for k, r in self._waiting.items() if self._ranks.may_write(k, r[0])}
        size = self._settings.sink.batch_rows
        points = [line for _, line in batch.values()]
        for first in range(0, len(points), size):
            for line, why in await write_or_split(self._influx, points[first : first + size]):
                self._refuse(line.encode(), DecodeError("influx-refused", why), "influx", 0)
        for key, (rank, _) in batch.items():
            self._ranks.learn(key, rank)
        for produce in self._refused:
            await self._producer.send_and_wait(
                produce.topic, produce.value, headers=list(produce.headers.items())
            )
        self.forget()

    def forget(self) -> None:
        """Drop the buffer."""
        self._waiting.clear()
        self._refused.clear()

    async def close(self) -> None:
        """Disconnect."""
        await self._producer.stop()
        self._influx.close()

    async def _learn_unknown(self) -> None:
        """Ask InfluxDB for higher ranks of windows that this process has not written itself."""
        unknown = [(k, rank) for k, (rank, _) in self._waiting.items() if k not in self._ranks]
        if not unknown:
            return
        starts = [int(key[-1]) for key, _ in unknown]
        lowest = min(rank for _, rank in unknown)
        for *tags, start_ms, rank in await self._influx.ranks_above(
            lowest, min(starts), max(starts)
        ):
            self._ranks.learn((*tags, str(start_ms)), rank)

    def _refuse(self, value: bytes, error: DecodeError, source: str, at_ms: int) -> None:
        _log.warning("cannot be stored", source=source, reason=error.reason, detail=error.detail)
        limit = self._settings.gateway.max_rejected_bytes
        self._refused.append(
            rejected_record(value, error, source=source, received_ms=at_ms, max_bytes=limit)
        )
