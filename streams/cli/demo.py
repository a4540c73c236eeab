"""``headwater demo``: the whole idea, seen working in three minutes."""

from __future__ import annotations

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
    state = load().state / "demo"
    summary = run_demo(state, console, scale=scale, seed=seed, keep=keep)
    if json:
        print(orjson.dumps(summary.as_json()).decode())
    else:
        console.print(render(summary))
        _where_next(console, str(state), keep=keep)
    if not summary.holds:
        raise typer.Exit(1)


def _where_next(console: Console, state: str, *, keep: bool) -> None:
    here = f"HEADWATER_CONFIG={state}/headwater.toml HEADWATER_STATE={state}"
    query = '"SELECT device, count(*) FROM readings GROUP BY device"'
    console.print("[bold]Where to look next[/]")
    console.print(f"  HEADWATER_LAKE={state}/lake {here} headwater lake query {query}")
    console.print(f"  logs of every process: {state}/logs; the settings: {state}/headwater.toml")
    if not keep:
        console.print("  make demo KEEP=1 leaves everything running to look around")
        return
    console.print(f"  {here} headwater inspect aggregates --device press-7")
    console.print(f"  {here} headwater alerts list")
    console.print(f"  to end: kill $(cat {state}/pids); {here} headwater services down")
