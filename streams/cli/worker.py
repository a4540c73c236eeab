"""``headwater worker``: windows, detection and twins, from Kafka to Kafka."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(worker)


def worker() -> None:
    """Run a worker: windows, detection and twins.

    Start more of them to share the load; give each its own HEADWATER_WORKER__INSTANCE_ID so
    that a restarted one has its partitions back in seconds.

    Example: HEADWATER_WORKER__INSTANCE_ID=w1 headwater worker
    """
    from streams.settings import load
    from streams.worker import main

    main(load())
