"""``headwater redrive``: what was held back, once more, under today's settings."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class From(StrEnum):
    """Where the records lie."""

    LATE = "late"
    REJECTED = "rejected"
    QUARANTINE = "quarantine"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(redrive)


def redrive(
    topic: Annotated[From, typer.Argument(help="Where the records lie")],
    device: Annotated[str | None, typer.Option(help="Only these devices (a glob)")] = None,
    reason: Annotated[str | None, typer.Option(help="Only this reason (a glob)")] = None,
    since: Annotated[str | None, typer.Option(help="Held since: 2h, 7d, 2026-01-31T12:00")] = None,
    until: Annotated[str | None, typer.Option(help="Held before; as --since")] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="At most so many, oldest first")
    ] = 1_000,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without, show what would be done")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object")] = False,
) -> None:
    """Take what was held back once more, under today's settings, each record once.

    rejected: the original bytes are decoded again, after a mapping or the metric catalogue was
    corrected. quarantine: judged again with today's devices.skew_ms. late: counted into their
    windows by a further revision, folded from all that the lake and Kafka hold of them.

    Example: headwater redrive rejected --reason unknown-topic --since 7d --yes
    """
    import asyncio

    from streams.adapters.config_log import now_in_force
    from streams.recovery.commands import count, report, selection, settle
    from streams.recovery.ledger import Action
    from streams.recovery.run import judge_of
    from streams.settings import load

    settings = asyncio.run(now_in_force(load()))
    chosen = selection(device, reason, since, until, limit)
    if topic is From.LATE:
        outcome = asyncio.run(count(settings, chosen, yes=yes))
    else:
        judge = judge_of(settings)
        outcome = asyncio.run(
            settle(settings, topic.value, chosen, Action.REDRIVE, judge.redrive, yes=yes)
        )
    report(outcome, as_json=json)
