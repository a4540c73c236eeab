"""A small receiver of webhooks: verifies, shows, and answers at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from rich.console import Console
from rich.markup import escape
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from streams.services.ports import HOST

Received = Callable[[str, int, dict[str, Any]], None]
"""Called with the message id, the time of receipt in ns, and the payload."""


def receiver_app(secret: str, received: Received) -> FastAPI:
    """Return an app that takes webhooks at ``/``; a bad signature is answered with 401."""
    app = FastAPI(title="headwater receiver", docs_url=None, redoc_url=None, openapi_url=None)
    verifier = Webhook(secret)

    @app.post("/")
    async def take(request: Request) -> Response:
        received_ns = time.time_ns()
        body = await request.body()
        try:
            verifier.verify(body, dict(request.headers))
        except WebhookVerificationError:
            return Response(status_code=401)
        received(request.headers["webhook-id"], received_ns, orjson.loads(body))
        return Response(status_code=204)

    return app


def serve_forever(secret_file: Path, port: int, *, as_json: bool) -> None:
    """Serve on loopback until Ctrl-C."""
    console = Console()

    def show(message: str, received_ns: int, payload: dict[str, Any]) -> None:
        if as_json:
            line = {"id": message, "received_ns": received_ns, "payload": payload}
            sys.stdout.write(orjson.dumps(line).decode() + "\n")
            sys.stdout.flush()
            return
        data = payload["data"]
        waited_ms = received_ns // 1_000_000 - data["hops"]["received_ms"]
        state = data.get("state") or data["reason"]  # a group has no state of its own
        colour = "green" if state in ("resolved", "retracted") else "red"
        console.print(
            f"[bold {colour}]{state:>9}[/] {escape(data['why'])} "
            f"[dim]({waited_ms} ms after the reading came in, {message})[/]",
            highlight=False,
        )

    app = receiver_app(secret_file.read_text().strip(), show)
    uvicorn.run(app, host=HOST, port=port, log_level="warning", access_log=False)
