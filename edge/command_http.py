"""Commands over the edge's HTTP port: for people who send them, and devices that carry them out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from crdt.core.commands.model import CommandError, State
from crdt.sqlite_file import LogError
from edge.commands import CommandDesk, shown
from edge.http import not_stored
from streams.adapters.command_http import MAX_WAIT_MS, command_refusal, unknown_command
from streams.adapters.command_records import parse_command
from streams.adapters.twin_http import body_of
from streams.settings import Commands

Wait = Annotated[int, Query(ge=0, le=MAX_WAIT_MS)]


class Told(BaseModel):
    """What a device says of a command that it was given."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["done", "failed"]
    reason: str = ""
    result: Any = None


def add_commands(app: FastAPI, desk: CommandDesk, site: str, settings: Commands) -> None:
    """Add the routes of commands."""
    base = "/v1/devices/{device}/commands"

    @app.post(base)
    async def issue(device: str, request: Request) -> dict[str, Any]:
        try:
            command = parse_command(await body_of(request), f"edge:{site}", settings, site=site)
            return shown(desk.issue(device, command))
        except CommandError as error:
            raise command_refusal(error) from error
        except LogError as error:
            raise not_stored(error) from error

    @app.get(base)
    async def listed(device: str) -> list[dict[str, Any]]:
        return desk.commands(device)

    @app.post(f"{base}/next", response_model=None)
    async def take(device: str, wait_ms: Wait = 0) -> Response | dict[str, Any]:
        try:
            held = await desk.next(device, wait_ms / 1000)
        except LogError as error:
            raise not_stored(error) from error
        return Response(status_code=204) if held is None else shown(held)

    @app.get(f"{base}/{{id_}}")
    async def read(device: str, id_: str) -> dict[str, Any]:
        found = desk.command(device, id_)
        if found is None:
            raise unknown_command(device, id_)
        return found

    @app.post(f"{base}/{{id_}}/report")
    async def report(device: str, id_: str, told: Told) -> dict[str, Any]:
        try:
            state = State(told.state)
            return shown(desk.finish(device, id_, state, told.reason, told.result))
        except KeyError as error:
            raise unknown_command(device, id_) from error
        except CommandError as error:
            raise command_refusal(error) from error
        except LogError as error:
            raise not_stored(error) from error

    @app.post(f"{base}/{{id_}}/cancel")
    async def cancel(device: str, id_: str) -> dict[str, Any]:
        try:
            return shown(desk.cancel(device, id_))
        except KeyError as error:
            raise unknown_command(device, id_) from error
        except LogError as error:
            raise not_stored(error) from error
