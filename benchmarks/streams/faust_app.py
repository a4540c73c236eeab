"""``python -m benchmarks.streams.faust_app KAFKA GROUP RECORDS DATADIR``: the job in plain Faust.

A windowed table as Faust's documentation does it, its own aiokafka driver, one result a record.
Prints ``first NS`` and ``done NS`` at the first and the last record, then ends.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

import faust

_SIZE = timedelta(minutes=1)
_EXPIRES = timedelta(hours=1)


class Reading(faust.Record, serializer="json"):
    t_ms: int
    boot: int
    seq: int
    temperature: float


def main(kafka: str, group: str, records: int, datadir: str) -> None:
    """Run until *records* were taken."""
    app = faust.App(
        group,
        broker=f"kafka://{kafka}",
        store="memory://",
        datadir=datadir,
        topic_partitions=4,
        topic_replication_factor=1,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
        topic_disable_leader=True,
    )
    readings = app.topic("readings", key_type=str, value_type=Reading, key_serializer="raw")
    results = app.topic(f"{group}-results")
    stats = app.Table(f"{group}-stats", default=lambda: [0, 0.0, None, None], partitions=4)
    # Faust's interface leaves relative_to out; its class has it.
    windows = stats.tumbling(_SIZE, expires=_EXPIRES).relative_to(  # type: ignore[attr-defined]
        lambda event: event.value.t_ms / 1000.0
    )
    seen = 0

    async def count(stream: Any) -> None:
        nonlocal seen
        async for key, reading in stream.items():
            if seen == 0:
                print("first", time.time_ns(), flush=True)
            number, total, low, high = windows[key].value()
            value = reading.temperature
            state = [
                number + 1,
                total + value,
                value if low is None else min(low, value),
                value if high is None else max(high, value),
            ]
            windows[key] = state
            await results.send(key=key, value=state)
            seen += 1
            if seen == records:
                print("done", time.time_ns(), flush=True)

    app.agent(readings, name="count")(count)
    faust.Worker(app, loglevel="WARN", redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
