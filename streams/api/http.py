"""The cloud's HTTP API: twins read from the read model, edits written to the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, HTTPException, Query, Request, Response

from crdt.core.errors import EditError
from crdt.core.policies import Policies
from streams.adapters.twin_edits import parse_edit
from streams.adapters.twin_http import body_of, refusal, unknown
from streams.adapters.twin_records import compact_record, edit_record
from streams.api.read_model import TwinStates
from streams.ops import ops_app
from streams.ports import Produce

Tenant = Annotated[str, Query(pattern=r"^[^/+#\x00]{1,128}$")]
Write = Callable[[Produce], Awaitable[tuple[int, int]]]
_MAX_DEVICE = 128


def api_app(
    states: TwinStates,
    write: Write,
    ready: Callable[[], tuple[bool, str]],
    partitions: int,
    policies: Policies,
) -> FastAPI:
    """Return the app.

    :param policies: kinds of the fields; an edit that does not fit them is refused.
    :param write: writes a record with acks=all and returns its partition and offset.
    """
    app = ops_app(ready)

    @app.get("/v1/devices")
    async def devices(tenant: Tenant | None = None) -> list[dict[str, Any]]:
        return states.devices(tenant)

    @app.get("/v1/devices/{device}/twin")
    async def read(device: str, tenant: Tenant = "default") -> Response:
        found = states.get(tenant, device)
        if found is None:
            raise unknown(device)
        return Response(found, media_type="application/json")

    @app.patch("/v1/devices/{device}/twin", status_code=202)
    async def edit(device: str, request: Request, tenant: Tenant = "default") -> dict[str, Any]:
        if len(device) > _MAX_DEVICE or not device.isprintable():
            raise HTTPException(422, {"reason": "bad-device", "detail": "at most 128 characters"})
        body = await body_of(request)
        try:
            parse_edit(body, policies)
            record = edit_record(tenant, device, orjson.loads(body), partitions)
        except EditError as error:
            raise refusal(error) from error
        partition, offset = await write(record)
        return {"accepted": True, "partition": partition, "offset": offset}

    @app.post("/v1/devices/{device}/twin/compact", status_code=202)
    async def compact(device: str, tenant: Tenant = "default") -> dict[str, Any]:
        if states.get(tenant, device) is None:
            raise unknown(device)
        partition, offset = await write(compact_record(tenant, device, partitions))
        return {"accepted": True, "partition": partition, "offset": offset}

    return app
