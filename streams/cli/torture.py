"""``headwater torture``: replicas over a bad network, until something that must hold does not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(torture)


def torture(
    seed: Annotated[int, typer.Option(help="The first seed")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="How many, one after the other")] = 1,
    replicas: Annotated[int, typer.Option(min=2, max=16, help="A hub, and the rest spokes")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Events of each seed")] = 200,
    history: Annotated[
        Path | None, typer.Option(help="Write events, acknowledgements and final views here")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object for each seed")] = False,
) -> None:
    """Play simulated worlds of twins: edits, cuts, loss, crashes, restored backups, wrong clocks,
    compaction apart, other policies; then let all talk, and check that nothing is lost.

    Ends with 1 at the first seed that breaks an invariant, and prints how to play it again.

    Example: headwater torture --seed 1 --seeds 100 --replicas 4 --steps 200
    """
    import time
    from contextlib import ExitStack
    from dataclasses import asdict

    import orjson

    from crdt.torture.run import play

    began_s, edits, refused = time.monotonic(), 0, 0
    with ExitStack() as stack:
        out = stack.enter_context(history.open("wb")) if history else None
        for one in range(seed, seed + seeds):

            def told(event: dict[str, object], seed: int = one) -> None:
                if out is not None:
                    out.write(orjson.dumps({"seed": seed, **event}) + b"\n")

            found = play(one, replicas, steps, told)
            edits, refused = edits + found.edits, refused + found.refused
            if json:
                print(orjson.dumps(asdict(found)).decode())
            if found.violation:
                where = f"step {found.step}" if found.step else "the end"
                again = f"--seed {one} --replicas {replicas} --steps {steps}"
                if not json:
                    print(f"seed {one}, at {where}: {found.violation}")
                    print(f"again: headwater torture {again} --history out.jsonl")
                raise typer.Exit(1)
    if not json:
        took_s = time.monotonic() - began_s
        print(
            f"{seeds} seeds from {seed}, {replicas} replicas, {steps} steps each: nothing broken; "
            f"{edits} edits acknowledged, {refused} damaged messages refused, {took_s:.1f} s"
        )
