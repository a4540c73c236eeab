"""Window results as frames of ``aggregates``, for tests of what reads them."""

from __future__ import annotations

import numpy as np

from streams.adapters.results import encode
from streams.core.readings import Labels
from streams.core.results import WindowResults

MINUTE_MS = 60_000


def result(start, value, **more):
    """One result of a minute: start in minutes. ``count=0`` is a retraction."""
    return {"start": start, "value": value, **more}


def results_frame(*rows, window="1m", tenant="t"):
    def column(name, default):
        return [row.get(name, default) for row in rows]

    value = np.asarray([row["value"] for row in rows], np.float64)
    start_ms = np.asarray([row["start"] * MINUTE_MS for row in rows], np.int64)
    kafka_ms = [row.get("kafka_ms", (row["start"] + 1) * MINUTE_MS) for row in rows]
    return encode(
        WindowResults(
            tenant=Labels.constant(tenant, len(rows)),
            site=Labels.of(column("site", "s")),
            device=Labels.of(column("device", "d")),
            metric=Labels.of(column("metric", "m")),
            window=Labels.constant(window, len(rows)),
            source=Labels.of(column("source", "cloud")),
            reason=Labels.constant("closed", len(rows)),
            start_ms=start_ms,
            end_ms=start_ms + MINUTE_MS,
            rank=np.asarray(column("rank", 0), np.int32),
            count=np.asarray(column("count", 1), np.int64),
            sum=value,
            min=value,
            max=value,
            mean=value,
            sd=np.zeros(len(rows)),
            last_received_ms=np.asarray(kafka_ms, np.int64),
            kafka_ms=np.asarray(kafka_ms, np.int64),
            extra={
                name: np.asarray(column(name, 0.0), np.float64)
                for name in ("rate", "trend", "trend_last")
            },
        ),
        code="test",
        settings="test",
    )
