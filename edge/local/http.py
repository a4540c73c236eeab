"""Local alerts and windows over the edge's HTTP port."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from fastapi import FastAPI, HTTPException, Query, Response

from edge.local.work import LocalWork

State = Literal["firing", "resolved", "retracted"]
MAX_LISTED = 1_000


def add_local(app: FastAPI, work: LocalWork) -> None:
    """Add ``GET /v1/alerts`` and ``GET /v1/devices/{device}/windows``."""

    @app.get("/v1/alerts")
    async def alerts(
        state: State | None = None, limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100
    ) -> Response:
        return _json(work.alerts(state)[:limit])

    @app.get("/v1/devices/{device}/windows")
    async def windows(
        device: str, metric: str | None = None, window: str | None = None
    ) -> Response:
        found = work.recent.device(device, metric, window)
        if found is None:
            raise HTTPException(
                404,
                {
                    "reason": "unknown-device",
                    "detail": f"no window of {device[:128]!r} closed since the start of this edge",
                },
            )
        return _json(found)


def _json(content: list[dict[str, Any]]) -> Response:
    # orjson writes null where there is no number.
    return Response(orjson.dumps(content), media_type="application/json")
