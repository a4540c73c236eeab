"""``headwater quarantine``: look at quarantined readings, put them back, or drop them."""

from __future__ import annotations

from typing import Annotated

import typer

quarantine = typer.Typer(
    help="Look at quarantined readings, put them back, or drop them.", no_args_is_help=True
)
Device = Annotated[str | None, typer.Option(help="Only these devices (a glob)")]
Reason = Annotated[str | None, typer.Option(help="Only this reason: clock-ahead, unverifiable")]
Since = Annotated[str | None, typer.Option(help="Quarantined since: 2h, 7d, 2026-01-31T12:00")]
Until = Annotated[str | None, typer.Option(help="Quarantined before; as --since")]
Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many, oldest first")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, show what would be done")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(quarantine, name="quarantine")


@quarantine.command("list")
def list_held(
    device: Device = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 1_000,
    all_states: Annotated[
        bool, typer.Option("--all", help="Also what was released, redriven or dropped")
    ] = False,
    json: Json = False,
) -> None:
    """Show quarantined readings, and how each stands.

    Example: headwater quarantine list --since 2h --reason clock-ahead
    """
    import asyncio

    import orjson

    from streams.recovery.commands import selection
    from streams.recovery.run import OPEN, find
    from streams.recovery.view import case_json, print_cases
    from streams.settings import load
    from streams.terminal import console
    from streams.topics import QUARANTINE

    chosen = selection(device, reason, since, until, limit)
    cases = asyncio.run(find(load(), QUARANTINE, chosen, None if all_states else OPEN))
    if json:
        print(orjson.dumps([case_json(case) for case in cases]).decode())
    else:
        print_cases(console(), QUARANTINE, cases)


@quarantine.command()
def release(
    device: Device = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 1_000,
    shift_ms: Annotated[
        int, typer.Option(help="Added to the times, such as -3600000 for a clock an hour ahead")
    ] = 0,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Put quarantined readings back into the stream, each once.

    On your word: the skew check of their first receipt no longer holds them. A time that is
    still ahead of now stays in quarantine unless --shift-ms corrects it.

    Example: headwater quarantine release --device pump-1 --shift-ms -3600000 --yes
    """
    import asyncio

    from streams.recovery.commands import report, selection, settle
    from streams.recovery.ledger import Action
    from streams.recovery.run import judge_of
    from streams.settings import load
    from streams.topics import QUARANTINE

    settings = load()
    judge = judge_of(settings)
    chosen = selection(device, reason, since, until, limit)
    outcome = asyncio.run(
        settle(
            settings,
            QUARANTINE,
            chosen,
            Action.RELEASE,
            lambda held: judge.release(held, shift_ms),
            shift_ms=shift_ms,
            yes=yes,
        )
    )
    report(outcome, as_json=json)


@quarantine.command()
def drop(
    device: Device = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 1_000,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Decide that quarantined readings stay out: they are no longer listed, nor released.

    Example: headwater quarantine drop --device test-rig-* --yes
    """
    import asyncio

    from streams.recovery.commands import report, selection, settle
    from streams.recovery.ledger import Action
    from streams.recovery.run import judge_of
    from streams.settings import load
    from streams.topics import QUARANTINE

    settings = load()
    chosen = selection(device, reason, since, until, limit)
    judge = judge_of(settings)
    outcome = asyncio.run(settle(settings, QUARANTINE, chosen, Action.DROP, judge.drop, yes=yes))
    report(outcome, as_json=json)
