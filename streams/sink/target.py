"""What a sink's target must do, and what the carrier does for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aiokafka import TopicPartition


class Target(Protocol):
    """A place that results are carried to.

    ``flush`` either makes everything that was added durable or raises
    :class:`streams.errors.DeliveryError`; then it is called again later with the same content,
    so writing must be idempotent. Offsets are committed only after a flush.
    """

    name: str
    topics: Sequence[str]
    flush_ms: int

    async def open(self) -> None:
        """Connect; called once."""
        ...

    async def assigned(self, partition: TopicPartition) -> int | None:
        """Return the offset to read on from, or ``None`` for the committed one."""
        ...

    def add(self, partition: TopicPartition, records: Sequence[Any]) -> None:
        """Buffer records, in the order of their partition."""
        ...

    def rows(self) -> int:
        """Return how many rows are buffered."""
        ...

    async def flush(self) -> None:
        """Write the buffer; empty it when all of it is durable."""
        ...

    def forget(self) -> None:
        """Drop the buffer: its partitions are no longer ours and will be read again."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


Positions = Mapping[TopicPartition, int]
