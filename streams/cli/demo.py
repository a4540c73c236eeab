"""``headwater demo``: the whole idea, seen working in three minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(demo)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running")] = False,
    scale: Annotated[
        float, typer.Option(min=0.02, max=1, help="Share of the recorded series")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the simulated fleet")] = 1,
    json: Annotated[bool, typer.Option("--json", help="The summary as JSON on stdout")] = False,
) -> None:
    """See the main job work on real servers: windows, anomalies, alerts, twins.

    Real series are replayed as machines, a small fleet is simulated with known faults, a link
    is cut while both sides change a twin, and the worker is killed with -9. At the end every
    reading must be accounted for: exit 0 only then.

    Example: headwater demo --scale 0.2
    """
    import orjson

    from streams.demo.story import run_demo
    from streams.demo.summary import render
    from streams.settings import load

    console = Console(stderr=json)
    state = load().state.absolute() / "demo"
    summary = run_demo(state, console, scale=scale, seed=seed, keep=keep)
    if json:
        print(orjson.dumps(summary.as_json()).decode())
    else:
        console.print(render(summary))
        _where_next(console, state, keep=keep)
    if not summary.holds:
        raise typer.Exit(1)


def _where_next(console: Console, state: Path, *, keep: bool) -> None:
    from streams.demo.scene import ENV_FILE, PIDS_FILE

    def tell(line: str) -> None:
        # To be copied: neither broken into lines nor coloured.
        console.print(line, soft_wrap=True, highlight=False)

    tell("[bold]Where to look next[/]")
    tell(f"  . {_shown(state / ENV_FILE)}   # this demo's settings, for the commands below")
    tell('  headwater lake query "SELECT device, count(*) AS n FROM readings GROUP BY device"')
    if keep:
        tell("  headwater inspect aggregates --device press-7")
        tell("  headwater alerts list")
        tell("  headwater twin get quarry-00")
        tell(f"  kill $(cat {_shown(state / PIDS_FILE)}); headwater services down   # ends it all")
    else:
        tell("  make demo KEEP=1   # leaves everything running to look around")
    tell(f"  logs of every process: {_shown(state / 'logs')}/")


def _shown(path: Path) -> str:
    """Return a path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
