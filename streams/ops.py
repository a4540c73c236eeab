"""Health, readiness and metrics of a process over HTTP, on loopback unless set otherwise."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import uvicorn
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette


def ops_app(ready: Callable[[], tuple[bool, str]]) -> FastAPI:
    """Return the app with ``/healthz``, ``/readyz`` and ``/metrics``.

    :param ready: returns whether the process can do its work now, and why not.
    """
    app = FastAPI(title="headwater ops", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz(response: Response) -> dict[str, str]:
        ok, why = ready()
        response.status_code = 200 if ok else 503
        return {"status": "ready" if ok else "not ready", "why": why}

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


@asynccontextmanager
async def serve(
    app: Starlette,
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    protocol: type[asyncio.Protocol] | None = None,
    max_connections: int | None = None,
) -> AsyncIterator[None]:
    """Serve *app* inside the running loop until the block ends.

    :param tls: speak https with it.
    :param protocol: in place of uvicorn's own.
    :param max_connections: beyond it connections get 503.
    :raises OSError: if the port is taken.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        http=protocol or "auto",
        limit_concurrency=max_connections,
        ssl_context_factory=None if tls is None else lambda *_: tls,
        # Who watches or waits would hold a process that is asked to stop.
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    # The process owns its signals; uvicorn must neither catch nor re-raise them.
    server.capture_signals = _no_signals  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve(), name=f"ops:{port}")
    while not server.started:
        if task.done():
            task.result()
            raise OSError(f"{host}:{port} could not be bound")
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        with suppress(asyncio.CancelledError):
            await task


@contextmanager
def _no_signals() -> Iterator[None]:
    yield
