"""``headwater torture``: replicas over a bad network, until something that must hold does not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_MOST_REPLICAS = 16


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(torture)


def torture(
    seed: Annotated[int, typer.Option(help="The first seed")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="How many")] = 1,
    replicas: Annotated[
        str, typer.Option(help="A hub, and the rest spokes; 3-5: seeds take 3, 4 and 5 in turn")
    ] = "3-5",
    steps: Annotated[int, typer.Option(min=1, help="Events of each seed")] = 200,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that play")] = 1,
    history: Annotated[
        Path | None,
        typer.Option(help="Write events, acknowledgements and final views here; with one job"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object for each seed")] = False,
) -> None:
    """Play simulated worlds of twins: edits, cuts, loss, crashes, restored backups, wrong clocks,
    compaction apart, other policies; then let all talk, and check that nothing is lost.

    Ends with 1 at the first seed that breaks an invariant, and prints how to play it again.

    Example: headwater torture --seeds 10000 --replicas 3-5 --steps 200 --jobs 2
    """
    import time
    from contextlib import ExitStack
    from dataclasses import asdict

    import orjson
    from rich.console import Console
    from rich.progress import track

    from crdt.torture.run import play_all, replicas_of
    from streams.errors import HeadwaterError

    numbers = _replicas(replicas)
    if history is not None and jobs > 1:
        raise HeadwaterError(f"--history with --jobs {jobs}: expected one job, which keeps order")
    began_s, edits, refused = time.monotonic(), 0, 0
    with ExitStack() as stack:
        out = stack.enter_context(history.open("wb")) if history else None

        def told(event: dict[str, object]) -> None:
            if out is not None:
                out.write(orjson.dumps(event) + b"\n")

        outcomes = play_all(
            range(seed, seed + seeds), numbers, steps, jobs, told if history else None
        )
        bar = Console(stderr=True)
        shown = track(outcomes, "seeds", seeds, console=bar, transient=True, disable=json)
        for found in shown:
            edits, refused = edits + found.edits, refused + found.refused
            if json:
                print(orjson.dumps(asdict(found)).decode())
            if found.violation:
                where = f"step {found.step}" if found.step else "the end"
                number = replicas_of(found.seed, numbers)
                again = f"--seed {found.seed} --replicas {number} --steps {steps}"
                if not json:
                    print(f"seed {found.seed}, at {where}: {found.violation}")
                    print(f"again: headwater torture {again} --history out.jsonl")
                raise typer.Exit(1)
    if not json:
        took_s = time.monotonic() - began_s
        print(
            f"{seeds} seeds from {seed}, {replicas} replicas, {steps} steps each: nothing broken; "
            f"{edits} edits acknowledged, {refused} damaged messages refused, {took_s:.1f} s"
        )


def _replicas(text: str) -> range:
    """Return the numbers of replicas that a text such as ``4`` or ``3-5`` means."""
    from streams.errors import HeadwaterError

    least, _, most = text.partition("-")
    if least.isdecimal() and (most or least).isdecimal():
        found = range(int(least), int(most or least) + 1)
        if found and found[0] >= 2 and found[-1] <= _MOST_REPLICAS:
            return found
    raise HeadwaterError(
        f"--replicas {text}: expected a number such as 4, or two such as 3-5, of 2 to "
        f"{_MOST_REPLICAS}"
    )
