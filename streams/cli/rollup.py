"""``headwater rollup``: results of groups, from Kafka to Kafka."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(rollup)


def rollup() -> None:
    """Fold the results of devices into results of sites and tenants.

    Start more of them to share the load.

    Example: HEADWATER_ROLLUP__INSTANCE_ID=r1 headwater rollup
    """
    from streams.rollup import main
    from streams.settings import load

    main(load())
