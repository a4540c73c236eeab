"""``headwater sink``: from Kafka into InfluxDB and the lake."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(sink)


def sink() -> None:
    """Carry results from Kafka into InfluxDB and the lake.

    Example: HEADWATER_SINK__TARGETS='["lake"]' headwater sink
    """
    from streams.settings import load
    from streams.sink.process import main

    main(load())
