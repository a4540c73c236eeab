"""``quix_app.py KAFKA GROUP RECORDS STATE EMIT``: the job in Quix Streams.

Windows as its documentation does them. EMIT is ``final`` (results when a window closes) or
``current`` (a result a record). Runs in an environment of its own (``peers.py``). Prints
``first NS`` and ``done NS``, then flushes, commits and ends.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Max, Min, Sum

_SIZE_MS = 60_000
_GRACE_MS = {"final": 10_000, "current": 3_600_000}


def main(kafka: str, group: str, records: int, state: str, emit: str) -> None:
    """Run until *records* were taken."""
    app = Application(
        broker_address=kafka,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=state,
        loglevel="WARNING",
    )
    readings = app.topic(
        "readings",
        value_deserializer="json",
        timestamp_extractor=lambda value, _headers, _timestamp, _kind: value["t_ms"],
    )
    results = app.topic(f"{group}-results", value_serializer="json")
    seen = 0

    def count(value: dict[str, Any]) -> None:
        nonlocal seen
        if seen == 0:
            print("first", time.time_ns(), flush=True)
        seen += 1
        if seen == records:
            print("done", time.time_ns(), flush=True)
            app.stop()

    frame = app.dataframe(readings).update(count)
    windows = frame.tumbling_window(_SIZE_MS, grace_ms=_GRACE_MS[emit], on_late=lambda *_: False)
    stats = windows.agg(
        count=Count(), sum=Sum("temperature"), min=Min("temperature"), max=Max("temperature")
    )
    (stats.final() if emit == "final" else stats.current()).to_topic(results)
    app.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
