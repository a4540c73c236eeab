"""``headwater models``: versions, champion and challenger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

models = typer.Typer(help="Trained models: champion, challenger, versions.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="JSON")]
Name = Annotated[str, typer.Argument(help="Name of the model")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(models, name="models")


@models.command("list")
def list_models(json: Json = False) -> None:
    """Show all models.

    Example: headwater models list
    """
    from dataclasses import asdict

    import orjson
    from rich.console import Console
    from rich.table import Table

    entries = _do(lambda registry: registry.entries())
    if json:
        held = {name: asdict(entry) for name, entry in entries.items()}
        print(orjson.dumps(held, option=orjson.OPT_NON_STR_KEYS).decode())
        return
    table = Table("model", "versions", "champion", "challenger")
    for name, entry in entries.items():
        table.add_row(
            name, str(len(entry.versions)), str(entry.champion), str(entry.challenger or "")
        )
    Console().print(table)


@models.command()
def show(
    name: Name,
    version: Annotated[int | None, typer.Option(help="Default: the champion")] = None,
    json: Json = False,
) -> None:
    """Show the card of a version, after its files were checked.

    Example: headwater models show press --version 2
    """
    from dataclasses import asdict

    import orjson
    from rich.console import Console
    from rich.table import Table

    def read(registry: Any) -> Any:
        stored = registry.load(name, version)
        stored.model()
        stored.scorer()
        return stored.card

    card = _do(read)
    if json:
        print(orjson.dumps(asdict(card)).decode())
        return
    table = Table("", name)
    for key, value in asdict(card).items():
        if key != "parts":
            table.add_row(key, str(value))
    Console().print(table)


@models.command()
def compare(
    name: Name,
    file: Annotated[Path, typer.Argument(help="CSV or Parquet with the model's features")],
    json: Json = False,
) -> None:
    """Score rows with champion and challenger, and say how they differ.

    Example: headwater models compare press last-week.parquet
    """
    from dataclasses import asdict

    import orjson
    from rich.console import Console
    from rich.table import Table

    from models.registry import compare as judge
    from models.registry import drift
    from streams.errors import HeadwaterError
    from streams.training_data import from_file

    def play(registry: Any) -> dict[str, Any]:
        entry = registry.entry(name)
        if not entry.challenger:
            raise HeadwaterError(f"{name} has no challenger: headwater train, or models challenge")
        both = registry.load(name), registry.load(name, entry.challenger)
        rows = from_file(file, both[0].card.features).rows
        found = asdict(judge(*both, rows))
        return found | {"outside_training": drift(both[0].card, rows)}

    found = _do(play)
    if json:
        print(orjson.dumps(found).decode())
        return
    table = Table("", f"{name} on {file.name}")
    for key, value in found.items():
        table.add_row(key.replace("_", " "), str(value))
    Console().print(table)


@models.command()
def challenge(name: Name, version: Annotated[int, typer.Argument(help="Version")]) -> None:
    """Make a version the challenger.

    Example: headwater models challenge press 3
    """
    _do(lambda registry: registry.challenge(name, version))
    print(f"{name}: version {version} is the challenger")


@models.command()
def trial(name: Name, json: Json = False) -> None:
    """Show what the challenger said, in the worker, of the rows that the champion has scored.

    Example: headwater models trial press
    """
    from dataclasses import asdict

    import orjson
    from rich.console import Console
    from rich.table import Table

    from models.trials import objection

    found, rule = _trial(name)
    against = objection(found, rule)
    if json:
        print(orjson.dumps({**asdict(found), "objection": against}).decode())
        return
    table = Table("", f"{name}: {found.challenger} in the shadow of {found.champion}")
    for key in ("rows", "champion_over", "challenger_over", "both_over"):
        table.add_row(key.replace("_", " "), f"{getattr(found, key):,}")
    table.add_row("by the rule", f"not yet: {against}" if against else "may be promoted")
    Console().print(table)


@models.command()
def promote(
    name: Name,
    by_rule: Annotated[
        bool, typer.Option("--by-rule", help="Only if its trial meets the rule of [[scoring]]")
    ] = False,
) -> None:
    """Make the challenger the champion; workers take it without a restart.

    With --by-rule it ends with 1, and changes nothing, while the rule is not met.

    Example: headwater models promote press

    Example: headwater models promote press --by-rule
    """
    from rich.console import Console

    from models.trials import objection

    if by_rule:
        found, rule = _trial(name)
        if against := objection(found, rule):
            Console().print(f"{name}: version {found.challenger} was not promoted: {against}")
            raise typer.Exit(1)
    version = _do(lambda registry: registry.promote(name))
    print(f"{name}: version {version} is the champion")


@models.command()
def deploy(
    name: Name,
    devices: Annotated[list[str], typer.Argument(help="Devices whose edge is to have it")],
    version: Annotated[int | None, typer.Option(help="Default: the champion")] = None,
    api: Annotated[str | None, typer.Option(help="Default: the API of the settings")] = None,
    tenant: Annotated[str, typer.Option(help="Whose devices they are")] = "default",
) -> None:
    """Ask the edges of some devices, through their twins, for a version of a model.

    The edge fetches and checks it, and says in reported.models.NAME that it is in use.

    Example: headwater models deploy press press-7 press-8
    """
    from urllib.parse import quote

    import httpx

    from streams.errors import ServiceError
    from streams.settings import load

    ops = load().ops
    base = (api or f"http://{ops.host}:{ops.api_port}").rstrip("/")
    one = _do(lambda registry: registry.named(name, version))
    for device in devices:
        url = f"{base}/v1/devices/{quote(device, safe='')}/twin"
        body = {f"desired.models.{name}": one}
        try:
            answer = httpx.patch(url, params={"tenant": tenant}, json=body, timeout=15.0)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise ServiceError(f"{url}: {error}; is it running? (headwater api)") from error
        print(f"{device}: desired.models.{name} is version {one.split('/')[0]}")


@models.command()
def rollback(name: Name) -> None:
    """Make the champion before this one champion again.

    Example: headwater models rollback press
    """
    version = _do(lambda registry: registry.roll_back(name))
    print(f"{name}: version {version} is the champion")


def _trial(name: str) -> tuple[Any, Any]:
    """Return the trial of a model's challenger, over all partitions, and the rule for it."""
    import asyncio

    import orjson

    from models.trials import PromotionRule, Trial, total
    from streams.adapters.log_reader import read_all
    from streams.errors import HeadwaterError
    from streams.settings import load
    from streams.topics import MODEL_TRIALS

    settings = load()
    scored = next((one for one in settings.scoring if one.name == name), None)
    if scored is None:
        raise HeadwaterError(f"{name} is not scored by workers: add it under [[scoring]]")
    entry = _do(lambda registry: registry.entry(name))
    if not entry.challenger:
        raise HeadwaterError(f"{name} has no challenger: headwater train, or models challenge")

    async def newest() -> dict[bytes, Any]:
        held: dict[bytes, Any] = {}
        async for record in read_all(settings.kafka, [MODEL_TRIALS]):
            held[record.key] = Trial(**orjson.loads(record.value))
        return held

    trials = asyncio.run(newest()).values()
    rule = PromotionRule(scored.promote_rows, scored.promote_alarms, scored.promote_agrees)
    return total(trials, name, entry.champion, entry.challenger), rule


def _do(what: Any) -> Any:
    """Do something with the registry of the settings; its errors are ours."""
    from models.errors import ModelError
    from models.registry import Registry
    from streams.errors import HeadwaterError
    from streams.settings import load

    try:
        return what(Registry(load().models))
    except ModelError as error:
        raise HeadwaterError(str(error)) from error
