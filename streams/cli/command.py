"""``headwater command``: have devices do something once, and see what became of it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from streams.device_options import Api, Device, Edge, Tenant, print_json

command = typer.Typer(help="Send commands to devices and follow them.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The id of the command")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(command, name="command")


@command.command()
def send(
    device: Device,
    name: Annotated[str, typer.Argument(help="What to do, as the device calls it")],
    args: Annotated[str | None, typer.Argument(help="Arguments, JSON")] = None,
    *,
    ttl_ms: Annotated[
        int | None, typer.Option("--ttl-ms", min=1, help="How long it may still be started")
    ] = None,
    site: Annotated[str | None, typer.Option(help="Default: the site that syncs the twin")] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="To send it again without doing it twice")
    ] = None,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Send a command; print its id.

    Example: headwater command send pump-1 reboot '{"delay_s": 5}' --ttl-ms 60000
    """
    import orjson

    from streams.terminal import console

    body: dict[str, Any] = {"name": name}
    try:
        body["args"] = None if args is None else orjson.loads(args)
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"{args!r} is no JSON: {error}", param_hint="ARGS") from error
    given = {"ttl_ms": ttl_ms, "site": site, "id": id_}
    body |= {key: value for key, value in given.items() if value is not None}
    found = _ask("POST", device, "", edge, api, tenant, body)
    if json:
        print_json(found)
        return
    console().print(f"{found['id']}  to {device} by way of site {found['site']}")


@command.command("list")
def list_commands(
    device: Device,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Show the commands of a device, the newest last.

    Example: headwater command list pump-1
    """
    from streams.command_view import commands_table
    from streams.terminal import console

    found = _ask("GET", device, "", edge, api, tenant)
    if json:
        print_json(found)
        return
    console().print(commands_table(device, found) if found else f"{device}: no commands")


@command.command()
def show(
    device: Device,
    id_: Id,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Show one command, and in the cloud how it came there.

    Example: headwater command show pump-1 5f0c3a9be1d2746f
    """
    from streams.command_view import commands_table, status_line
    from streams.terminal import console

    found = _ask("GET", device, f"/{id_}", edge, api, tenant)
    if json:
        print_json(found)
        return
    if "history" not in found:
        console().print(commands_table(device, [found]))
    for status in found.get("history", ()):
        console().print(status_line(status))


@command.command()
def cancel(
    device: Device,
    id_: Id,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Take a command back. What a device has begun goes on; it is told.

    Example: headwater command cancel pump-1 5f0c3a9be1d2746f
    """
    from streams.terminal import console

    found = _ask("POST", device, f"/{id_}/cancel", edge, api, tenant)
    if json:
        print_json(found)
        return
    console().print(found.get("state") or f"asked for; headwater command show {device} {id_}")


@command.command()
def watch(
    device: Device,
    id_: Annotated[str | None, typer.Argument(help="Only this one, until it has ended")] = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Follow the commands of a device in the cloud, or one until it has ended.

    Ends with 1 if that one was not done.

    Example: headwater command watch pump-1 5f0c3a9be1d2746f
    """
    from urllib.parse import quote

    from streams.command_view import status_line
    from streams.http_client import Place
    from streams.terminal import console

    place = Place.of(None, api, tenant)
    for status in place.lines(f"/v1/devices/{quote(device, safe='')}/commands/watch"):
        if id_ is not None and status["id"] != id_:
            continue
        if json:
            print_json(status)
        else:
            console().print(status_line(status))
        if id_ is not None and status["ended"]:
            raise typer.Exit(0 if status["state"] == "done" else 1)


def _ask(
    method: str,
    device: str,
    below: str,
    edge: str | None,
    api: str | None,
    tenant: str,
    body: Any = None,
) -> Any:
    from urllib.parse import quote

    from streams.http_client import Place

    place = Place.of(edge, api, tenant)
    path = f"/v1/devices/{quote(device, safe='')}/commands{quote(below)}"
    found = place.ask(method, path, body=body)
    if found is None:
        raise place.unknown(f"{device!r} has no such command there")
    return found
