"""``headwater twin``: look at device twins and change them, at an edge or in the cloud."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from streams.device_options import Api, Device, Edge, Tenant, print_json

twin = typer.Typer(help="Look at device twins and change them.", no_args_is_help=True)

Path = Annotated[str, typer.Argument(help="Path of the field")]
Elements = Annotated[list[str], typer.Argument(help="Elements; each is JSON or text")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(twin, name="twin")


@twin.command()
def get(
    device: Device,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Show a twin: every field, who won it and when.

    Example: headwater twin get pump-1 --edge http://127.0.0.1:8106
    """
    from streams.terminal import console
    from streams.twin_view import fields_table

    found = _ask("GET", device, edge, api, tenant)
    if json:
        print_json(found)
        return
    console().print(fields_table(found))
    if found.get("refused"):
        console().print("the hub refused: {reason}: {detail}".format(**found["refused"]))
    console().print(f"conflicts {len(found['conflicts'])}   digest {found['digest']}")


@twin.command()
def watch(
    device: Device,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    *,
    every_ms: Annotated[int, typer.Option(min=50, help="Between two looks, in ms")] = 1_000,
    changes: Annotated[int, typer.Option(min=0, help="End after so many; 0: never")] = 0,
    json: Json = False,
) -> None:
    """Follow a twin: what changes, and which conflicts show, until Ctrl-C.

    It looks once a second, and shows the last of what changes faster; headwater twin history has
    all.

    Example: headwater twin watch pump-1 --edge http://127.0.0.1:8106
    """
    import time
    from itertools import islice

    from streams.terminal import console, utc
    from streams.twin_view import conflict_lines, diff_lines
    from streams.twin_watch import watch as follow

    def look() -> Any:
        return _ask("GET", device, edge, api, tenant, or_empty=True)

    for news in islice(follow(look, lambda: time.sleep(every_ms / 1000)), changes or None):
        if json:
            print_json(news.as_json())
            continue
        now = utc(time.time_ns() // 1_000_000)
        for line in (*diff_lines(news.fields), *conflict_lines(news.conflicts)):
            console().print(f"[bold]{now}[/]  {line}")


@twin.command("set")
def set_fields(
    device: Device,
    fields: Annotated[list[str], typer.Argument(help="path=value; value is JSON or text")],
    *,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Change fields; null deletes, true sets a latch. An edge answers at once, the cloud with 202.

    Example: headwater twin set pump-1 desired.speed=40 tags.room='"hall 3"'
    """
    _change(device, dict(map(_assignment, fields)), edge, api, tenant, json=json)


@twin.command()
def increment(
    device: Device,
    path: Path,
    by: Annotated[int, typer.Option(help="How much; negative takes from it")] = 1,
    *,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Add to a counter.

    Example: headwater twin increment pump-1 reported.starts --by 2
    """
    asked = [{"op": "increment", "path": path, "by": by}]
    _change(device, asked, edge, api, tenant, json=json)


@twin.command()
def add(
    device: Device,
    path: Path,
    elements: Elements,
    *,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Add elements to a set.

    Example: headwater twin add pump-1 tags.roles spare backup
    """
    asked = [{"op": "add", "path": path, "elements": list(map(_value, elements))}]
    _change(device, asked, edge, api, tenant, json=json)


@twin.command()
def remove(
    device: Device,
    path: Path,
    elements: Elements,
    *,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Remove elements from a set; who adds one at the same time without knowing of it wins.

    Example: headwater twin remove pump-1 tags.roles spare
    """
    asked = [{"op": "remove", "path": path, "elements": list(map(_value, elements))}]
    _change(device, asked, edge, api, tenant, json=json)


@twin.command()
def release(
    device: Device,
    path: Path,
    *,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Release a latch. It stays set if somebody set it whom this side has not heard of.

    Example: headwater twin release pump-1 desired.stop
    """
    _change(device, [{"op": "release", "path": path}], edge, api, tenant, json=json)


@twin.command()
def conflicts(
    device: Device,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Show the conflict ledger of a twin: both writes, which was chosen, and why.

    Example: headwater twin conflicts pump-1
    """
    from streams.terminal import console
    from streams.twin_view import conflicts_table

    found = _ask("GET", device, edge, api, tenant)["conflicts"]
    if json:
        print_json(found)
        return
    console().print(conflicts_table(device, found) if found else f"{device}: no conflicts")


@twin.command("take-other")
def take_other(
    device: Device,
    path: Path,
    *,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Write what the newest conflict of a field did not choose, as an edit that has seen both.

    Example: headwater twin take-other pump-1 desired.limit
    """
    from streams.errors import ServiceError

    ledger = _ask("GET", device, edge, api, tenant)["conflicts"]
    found = [entry for entry in ledger if path in (entry["path"], entry["loser"]["path"])]
    if not found:
        raise ServiceError(f"{device}: no conflict of {path!r} is known; headwater twin conflicts")
    asked = [{"op": "take-other", "conflict": found[-1]["key"]}]
    _change(device, asked, edge, api, tenant, json=json)


@twin.command()
def history(
    device: Device,
    tenant: Tenant = "default",
    path: Annotated[str | None, typer.Option(help="Only this field, or a glob")] = None,
    json: Json = False,
) -> None:
    """Show what changed when, as far back as the topic twin.updates is kept.

    Example: headwater twin history pump-1 --path 'desired.*'
    """
    import asyncio

    from streams.settings import load
    from streams.terminal import console
    from streams.twin_history import history as read_history
    from streams.twin_view import history_lines

    found = asyncio.run(read_history(load(), tenant, device))
    if path is not None:
        found = found.of(path)
    if json:
        print_json([step.as_json() for step in found.steps])
        return
    lines = history_lines(found)
    for line in lines or [f"{device}: nothing is known"]:
        console().print(line)


@twin.command()
def compact(
    device: Device,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Begin a new epoch: the stored twin loses what was overwritten. It does so by itself in time.

    Example: headwater twin compact pump-1 --edge http://127.0.0.1:8106
    """
    from streams.terminal import console

    answer = _ask("POST", device, edge, api, tenant, below="/compact")
    if json:
        print_json(answer)
    elif "epoch" in answer:
        console().print(f"epoch {answer['epoch']}, {answer['stored_bytes']} bytes")
    else:
        console().print(_accepted(answer))


def _accepted(answer: dict[str, Any]) -> str:
    place = f"{answer['partition']}/{answer['offset']}"
    return f"accepted as twin.updates/{place}; it shows once the worker has folded it"


def _change(
    device: str,
    asked: Any,
    edge: str | None,
    api: str | None,
    tenant: str,
    *,
    json: bool,
) -> None:
    """Make an edit; show what it changed, or where it was accepted."""
    from streams.terminal import console
    from streams.twin_history import changes
    from streams.twin_view import diff_lines

    before = _ask("GET", device, edge, api, tenant, or_empty=True) if edge and not json else {}
    answer = _ask("PATCH", device, edge, api, tenant, body=asked)
    if json:
        print_json(answer)
    elif "fields" in answer:
        for line in diff_lines(changes(before, answer)) or ["nothing changed"]:
            console().print(line)
    else:
        console().print(_accepted(answer))


def _assignment(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r}: write path=value, such as desired.speed=40")
    return path, _value(value)


def _value(text: str) -> Any:
    """Return what JSON says, or the text where it is none."""
    import orjson

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _ask(
    method: str,
    device: str,
    edge: str | None,
    api: str | None,
    tenant: str,
    *,
    body: Any = None,
    or_empty: bool = False,
    below: str = "",
) -> Any:
    from urllib.parse import quote

    from streams.http_client import Place

    place = Place.of(edge, api, tenant)
    found = place.ask(method, f"/v1/devices/{quote(device, safe='')}/twin{below}", body=body)
    if found is None and not or_empty:
        raise place.unknown(f"{device!r} has no twin there yet")
    return {} if found is None else found
