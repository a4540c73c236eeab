"""Commands over the cloud's HTTP API: written to the log, read from the read model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Query, Request
from fastapi.responses import StreamingResponse

from crdt.core.commands.model import CommandError, check_name
from streams.adapters.command_http import command_refusal, unknown_command
from streams.adapters.command_records import CLOUD, cancel_record, parse_command, send_record
from streams.adapters.twin_http import body_of
from streams.api.command_states import CommandStates
from streams.api.read_model import TwinStates
from streams.ports import Produce
from streams.settings import Commands

Tenant = Annotated[str, Query(pattern=r"^[^/+#\x00]{1,128}$")]
Write = Callable[[Produce], Awaitable[tuple[int, int]]]
_MAX_DEVICE = 128


def add_commands(
    app: FastAPI,
    states: CommandStates,
    twins: TwinStates,
    write: Write,
    *,
    partitions: int,
    settings: Commands,
) -> None:
    """Add the routes of commands.

    :param twins: tell the site of a device where the sender does not.
    """
    base = "/v1/devices/{device}/commands"

    @app.post(base, status_code=202)
    async def send(device: str, request: Request, tenant: Tenant = "default") -> dict[str, Any]:
        try:
            check_name("device", device, _MAX_DEVICE)
            site = _site(twins.sites(tenant, device))
            command = parse_command(await body_of(request), CLOUD, settings, site=site)
        except CommandError as error:
            raise command_refusal(error) from error
        partition, offset = await write(send_record(tenant, device, command, partitions))
        return {"id": command.id, "site": command.site, "partition": partition, "offset": offset}

    @app.get(base)
    async def listed(device: str, tenant: Tenant = "default") -> list[dict[str, Any]]:
        return states.newest(tenant, device)

    @app.get(f"{base}/watch")
    async def watch(device: str, tenant: Tenant = "default") -> StreamingResponse:
        async def lines() -> AsyncIterator[bytes]:
            async for status in states.watch(tenant, device):
                yield orjson.dumps(status) + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @app.get(f"{base}/{{id_}}")
    async def read(device: str, id_: str, tenant: Tenant = "default") -> dict[str, Any]:
        found = states.statuses(tenant, device, id_)
        if not found:
            raise unknown_command(device, id_)
        return {**found[-1], "history": found}

    @app.post(f"{base}/{{id_}}/cancel", status_code=202)
    async def cancel(device: str, id_: str, tenant: Tenant = "default") -> dict[str, Any]:
        if not states.statuses(tenant, device, id_):
            raise unknown_command(device, id_)
        partition, offset = await write(cancel_record(tenant, device, id_, partitions))
        return {"id": id_, "partition": partition, "offset": offset}


def _site(sites: list[str]) -> str:
    """Return the only site of a device; nothing if there is none, or several."""
    return sites[0] if len(sites) == 1 else ""
