"""``headwater config``: check, show, compare and apply the settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console

if TYPE_CHECKING:
    from streams.settings.applied import Change, Document

config = typer.Typer(help="Check, show, compare and apply the settings.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(config, name="config")


@config.command()
def check(
    path: Annotated[Path | None, typer.Argument(help="Default: headwater.toml")] = None,
) -> None:
    """Load the settings and name every offence with its line.

    Example: headwater config check deploy/headwater.toml
    """
    from rich.markup import escape

    from streams.agents.readings import make_readings
    from streams.alerts.channel import channels_of
    from streams.extensions import GROUPS, installed
    from streams.intake.mapping import TopicMap
    from streams.settings import config_path, load
    from streams.settings.doubts import doubts

    settings = load(path)
    TopicMap(settings.mappings)
    # Loads what the settings name of other packages, and lets it judge its options.
    make_readings(settings)(0, settings.topics.partitions)
    channels_of(settings.model_copy(update={"webhooks": []}))
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[green]✓[/] {path or config_path()} is valid")
    for doubt in doubts(settings):
        console.print(f"[yellow]![/] {escape(doubt)}")
    for group in GROUPS:
        found = ", ".join(
            one.name if one.is_ours else f"{one.name} ({one.package} {one.version})"
            for one in installed(group)
        )
        console.print(f"  {group.removeprefix('headwater.'):<12} {found or '-'}")


@config.command()
def show(
    json: Annotated[bool, typer.Option("--json", help="One JSON object")] = False,
    origin: Annotated[bool, typer.Option("--origin", help="Where each value is from")] = False,
) -> None:
    """Print the settings: file, environment and defaults together.

    Example: headwater config show --origin
    """
    from streams.settings import load
    from streams.settings.origins import origins

    if origin:
        rows = origins(load())
        if json:
            print(orjson.dumps({path: [value, where] for path, value, where in rows}).decode())
            return
        for path, value, where in rows:
            print(f"{path} = {orjson.dumps(value).decode()}  # {where}")
        return
    text = load().model_dump_json(indent=None if json else 2)
    if json:
        print(text)
    else:
        Console().print_json(text)


@config.command()
def diff(json: Annotated[bool, typer.Option("--json", help="A JSON list")] = False) -> None:
    """Compare the file with what running processes use; exit 1 if something differs.

    Only what `headwater config apply` would change: mappings, metrics, windows, types, tags, rules,
    routes, inhibitions and maintenance.

    Example: headwater config diff
    """
    import asyncio
    from dataclasses import asdict

    from streams.adapters.config_log import Documents
    from streams.settings import load
    from streams.settings.applied import changes, document_of, following

    settings = load()
    now = asyncio.run(Documents().refresh(settings.kafka))
    wanted = document_of(settings)
    found = changes(now.sections, wanted.sections) if now else []
    if json:
        print(orjson.dumps([asdict(change) for change in found]).decode())
    else:
        after = following(settings, now) if now else None
        _show(found, now.id if now else "nothing yet: no worker has started", after)
    if found:
        raise typer.Exit(1)


@config.command()
def apply(
    yes: Annotated[bool, typer.Option("--yes", help="Do it")] = False,
    backfill: Annotated[
        bool, typer.Option("--backfill", help="Tell windows that are added from the beginning, too")
    ] = False,
    rebuild: Annotated[
        bool,
        typer.Option(help="Tell a changed window from the beginning; no: headwater config rebuild"),
    ] = True,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for windows that are open at the change, too")
    ] = False,
) -> None:
    """Change what readings become, and what alerts are made of them, to what the file says.

    These are mappings, metrics, windows, types, tags, rules, routes, inhibitions and maintenance.

    Workers change at one record of each partition; a window that is added counts from its first
    whole one. One whose definition changes goes on as its next generation, such as minute@2, and is
    rebuilt from the lake and Kafka. Without --yes it shows what it would do.

    Example: headwater config apply --yes
    """
    import asyncio

    from streams.adapters.config_log import Documents, mark, publish
    from streams.errors import SettingsError
    from streams.intake.mapping import TopicMap
    from streams.recovery.rebuild_command import rebuild_windows
    from streams.settings import load
    from streams.settings.applied import changes, following

    settings = load()
    TopicMap(settings.mappings)
    now = asyncio.run(Documents().refresh(settings.kafka))
    if now is None:
        raise SettingsError("no worker has started yet, and it will read the file by itself")
    following_one = following(settings, now)
    found = changes(now.sections, following_one.sections)
    _show(found, now.id, following_one)
    if not yes:
        if found:
            Console().print("nothing was changed; to do it: headwater config apply --yes")
        return
    if found:
        asyncio.run(publish(settings.kafka, following_one))
        now = following_one
    if now.revision:
        # Again, too, should an earlier one have ended between the two.
        asyncio.run(mark(settings.kafka, now, settings.topics.partitions))
    Console().print(f"[green]✓[/] in force: {now.id}", highlight=False)
    windows = {change.name: change.what for change in found if change.section == "windows"}
    wanted = [name for name, what in windows.items() if what == "changed" and rebuild]
    wanted += [name for name, what in windows.items() if what == "added" and backfill]
    if wanted:
        rebuild_windows(settings, wanted, follow=follow)


@config.command("rebuild")
def rebuild_again(
    windows: Annotated[
        list[str] | None,
        typer.Argument(help="Names of windows that were changed or added; default: all changed"),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only from then on, in log time: 2h, 7d, 2026-01-31T12:00")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Until the windows open at the change are closed")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="A JSON list")] = False,
) -> None:
    """Tell windows that were changed or added from before workers began with them.

    Folded by the same engine from the lake, and from Kafka where it lags. It can be repeated at any
    time: results have the same bits, and a later run adds what was corrected or closed since.

    Example: headwater config rebuild minute --follow
    """
    from streams.recovery.held import parse_time
    from streams.recovery.rebuild_command import rebuild_windows
    from streams.recovery.run import now_ms
    from streams.settings import load

    since_ms = 0 if since is None else parse_time(since, now_ms())
    rebuild_windows(load(), windows or [], since_ms=since_ms, follow=follow, as_json=json)


def _show(found: Sequence[Change], now: str, after: Document | None) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"in force: {now}")
    signs = {"added": "[green]+[/]", "removed": "[red]-[/]", "changed": "[yellow]~[/]"}
    for change in found:
        console.print(f"{signs[change.what]} {change.section}: {change.name}")
        before, told = change.before, change.after
        if change.what == "changed" and isinstance(before, dict):
            for key in sorted(k for k in told if told[k] != before.get(k)):
                console.print(f"    {key}: {before.get(key)} -> {told[key]}", markup=False)
        if change.section == "windows" and told and after:
            name = after.name_of(change.name)
            if name != change.name:
                console.print(f"    in results it is {name}")
    if not found:
        console.print("the file says the same")
