"""The edge's HTTP surface on loopback: the same paths as the cloud's API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from fastapi import FastAPI, HTTPException, Request

from crdt.core.errors import EditError
from crdt.sqlite_file import LogError
from edge.latest import Latest
from edge.node import EdgeNode
from streams.adapters.twin_edits import parse_edit
from streams.adapters.twin_http import body_of, refusal, unknown
from streams.ops import ops_app


def not_stored(error: LogError) -> HTTPException:
    """Return the answer where the disk refused: 503."""
    return HTTPException(503, {"reason": "not-stored", "detail": str(error)})


class Path(Protocol):
    """The way of the readings, as far as HTTP shows it."""

    latest: Latest
    """The latest reading of every series."""

    @property
    def why_not_ready(self) -> str:
        """Why readings do not come in; empty if they do."""
        ...

    async def status(self) -> dict[str, Any]:
        """How lanes and uplink are."""
        ...

    async def filters(self, device: str) -> list[dict[str, Any]]:
        """How the series of a device are filtered."""
        ...


def edge_app(
    node: EdgeNode,
    link_state: Callable[[], str],
    identity: dict[str, str],
    path: Path | None = None,
) -> FastAPI:
    """Return the app.

    :param link_state: says why the link to the cloud is down, or nothing.
    :param identity: tenant and site, for the status.
    :param path: the way of the readings; None where there are only twins.
    """

    # Ready without the cloud: working offline is what an edge is for.
    def ready() -> tuple[bool, str]:
        why = path.why_not_ready if path else ""
        return not why, why or link_state()

    app = ops_app(ready)

    @app.get("/v1/status")
    async def status() -> dict[str, Any]:
        why = link_state()
        readings = await path.status() if path else {}
        return {**identity, **node.status(), "connected": not why, "why": why, **readings}

    @app.get("/v1/devices")
    async def devices() -> list[dict[str, Any]]:
        return [{"tenant": identity["tenant"], "device": name} for name in node.devices()]

    @app.get("/v1/devices/{device}/latest")
    async def latest(device: str) -> dict[str, Any]:
        found = path.latest.device(device) if path else None
        if found is None:
            raise HTTPException(
                404,
                {
                    "reason": "unknown-device",
                    "detail": f"no reading of {device[:128]!r} since the start of this edge",
                },
            )
        return {**identity, "device": device, "metrics": found}

    @app.get("/v1/devices/{device}/filters")
    async def filters(device: str) -> list[dict[str, Any]]:
        return await path.filters(device) if path else []

    @app.get("/v1/devices/{device}/twin")
    async def read(device: str) -> dict[str, Any]:
        found = node.view(device)
        if found is None:
            raise unknown(device)
        return {**identity, **found}

    @app.patch("/v1/devices/{device}/twin")
    async def edit(device: str, request: Request) -> dict[str, Any]:
        try:
            asked = parse_edit(await body_of(request), node.policies)
            node.edit(device, asked.sets, asked.deletes, asked.operations)
        except EditError as error:
            raise refusal(error) from error
        except LogError as error:
            raise not_stored(error) from error
        return {**identity, **(node.view(device) or {})}

    @app.post("/v1/devices/{device}/twin/compact")
    async def compact(device: str) -> dict[str, Any]:
        try:
            node.compact(device)
        except KeyError as error:
            raise unknown(device) from error
        except LogError as error:
            raise not_stored(error) from error
        return {**identity, **(node.view(device) or {})}

    return app
