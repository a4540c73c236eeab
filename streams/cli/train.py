"""``headwater train``: learn a detector over several metrics from the lake or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(train)


def train(
    metrics: Annotated[list[str], typer.Argument(help="Metrics of one device, or columns")],
    name: Annotated[str, typer.Option(help="Name of the model in the registry")],
    device: Annotated[str | None, typer.Option(help="Device in the lake")] = None,
    file: Annotated[Path | None, typer.Option(help="CSV or Parquet instead of the lake")] = None,
    kind: Annotated[
        str, typer.Option(help="isolation-forest, covariance, pca or one-class-svm")
    ] = "covariance",
    every: Annotated[str, typer.Option(help="Step of the lake's readings, such as 1min")] = "1min",
    since: Annotated[str | None, typer.Option(help="Of the lake: event times from here")] = None,
    until: Annotated[str | None, typer.Option(help="Of the lake: event times before")] = None,
    parts: Annotated[int, typer.Option(help="Parts of time it is judged in")] = 5,
    alarm_share: Annotated[float, typer.Option(help="Healthy rows that may alarm")] = 0.001,
    seed: Annotated[int, typer.Option(help="The same seed and rows give the same model")] = 1,
    report: Annotated[Path | None, typer.Option(help="HTML file to write")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the card as JSON")] = False,
) -> None:
    """Train a model, judge it in the order of time, and put it into the registry.

    The first version of a name is its champion, a later one the challenger.

    Example: headwater train vibration temperature --device press-7 --name press --report press.html

    Example: headwater train Current Pressure --file pump.csv --kind pca --name pump
    """
    import time
    from dataclasses import asdict

    import orjson
    from rich.console import Console
    from rich.progress import Progress

    from models.errors import ModelError
    from models.registry import Registry
    from models.report import html
    from models.training import Plan
    from models.training import train as learn
    from streams.errors import HeadwaterError
    from streams.recovery.held import parse_time
    from streams.settings import load
    from streams.training_data import from_file, from_lake

    if (device is None) == (file is None):
        raise HeadwaterError("give either --device, for the lake, or --file")
    now_ms = time.time_ns() // 1_000_000
    if file is not None:
        table = from_file(file, metrics)
    else:
        limits = {"since_ms": since, "until_ms": until}
        where: dict[str, Any] = {
            key: parse_time(at, now_ms) for key, at in limits.items() if at is not None
        }
        # "1min" is read as a time so long before now.
        table = from_lake(metrics, str(device), now_ms - parse_time(every, now_ms), **where)
    registry = Registry(load().models)
    plan = Plan(kind=kind, seed=seed, parts=parts, alarm_share=alarm_share)
    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True, disable=json) as progress:
            task = progress.add_task(f"{kind} of {len(table.rows):,} rows", total=1.0)
            trained = learn(
                plan,
                table.features,
                table.t_ms,
                table.rows,
                lambda share: progress.update(task, completed=share),
            )
        version = registry.add(name, plan, trained, table.t_ms, table.rows)
        card = registry.load(name, version).card
    except ModelError as error:
        raise HeadwaterError(str(error)) from error
    if report is not None:
        report.write_text(html(card, version, trained, table.labels))
    if json:
        print(orjson.dumps({"version": version, **asdict(card)}).decode())
        return
    over = [f"{part.over:.2%}" for part in card.parts]
    Console().print(
        f"{name} version {version}: {card.rows:,} rows, threshold {card.threshold:.4g}; over it, "
        f"part by part: {', '.join(over)}"
    )
