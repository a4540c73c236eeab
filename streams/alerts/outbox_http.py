"""Why messages wait, over HTTP: the courier knows it, and no topic does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from fastapi import FastAPI

from streams.settings import Settings

PATH = "/v1/outbox"
_TIMEOUT_S = 5.0
About = Callable[[str], list[dict[str, Any]]]
"""From the id of an alert to why its messages wait."""


def alerts_of(entry: dict[str, Any]) -> set[str]:
    """Return the ids of the alerts that a record of the outbox is about."""
    group = entry.get("group")
    return {one["id"] for one in (entry["alert"], *(group["alerts"] if group else ()))}


def show_outbox(about: About) -> Callable[[FastAPI], None]:
    """Return what adds ``GET /v1/outbox?alert=ID`` to the app of a process."""

    def add(app: FastAPI) -> None:
        # In the loop, not in a thread: the courier works on the same messages.
        @app.get(PATH)
        async def outbox(alert: str) -> list[dict[str, Any]]:
            return about(alert)

    return add


async def ask_outbox(settings: Settings, alert: str) -> tuple[dict[str, dict[str, Any]], str]:
    """Ask the alerts process of the settings why messages about an alert wait.

    :returns: by the id of the message; and why nobody could be asked, empty if somebody was.
    """
    url = f"http://{settings.ops.host}:{settings.ops.alerts_port}{PATH}"
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
            answer = (await client.get(url, params={"alert": alert})).raise_for_status()
        return {one["id"]: one for one in answer.json()}, ""
    except (httpx.HTTPError, ValueError) as error:
        return {}, f"why they wait, the alerts process at {url} would know: {error}"
