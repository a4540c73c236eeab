"""What an alerts process says of messages that wait."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from streams.alerts.courier import Courier, Message
from streams.alerts.explaining import _waits
from streams.alerts.outbox_http import PATH, show_outbox
from streams.settings import Settings


def message(identity: str, *alerts: str, **values: Any) -> Message:
    entry: dict[str, Any] = {"alert": {"id": alerts[0]}}
    if len(alerts) > 1:
        entry["group"] = {"id": "grp", "alerts": [{"id": one} for one in alerts]}
    return Message(identity, 0, "hook", entry, 0, 0.0, 0.0, **values)


async def test_of_an_alert_every_message_says_what_failed_and_when_it_is_tried_again(
    tmp_path: Path,
) -> None:
    courier = Courier(Settings(state=tmp_path))
    at_s = time.monotonic() + 100
    for one in (
        message("m1", "a", failed=3, error="answered 503", next_s=at_s, is_first=True),
        message("m2", "a"),
        message("m3", "b", "a", is_first=True),
        message("m4", "b", "c", is_first=True),
    ):
        courier._waiting[one.id] = one
    app = FastAPI()
    show_outbox(courier.about)(app)
    begin_ms = time.time() * 1000
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as web:
        found = (await web.get(PATH, params={"alert": "a"})).json()
        assert (await web.get(PATH, params={"alert": "unknown"})).json() == []
        assert (await web.get(PATH)).status_code == 422
    assert [one["id"] for one in found] == ["m1", "m2", "m3"]
    assert (found[0]["attempts"], found[0]["last_error"]) == (3, "answered 503")
    assert begin_ms < found[0]["next_try_ms"] <= time.time() * 1000 + 100_001
    assert found[1]["next_try_ms"] is None
    assert found[2]["next_try_ms"] >= round(begin_ms)


def test_a_person_is_told_in_words() -> None:
    failed = {"attempts": 3, "last_error": "answered 503", "next_try_ms": 0}
    assert _waits(failed) == "3 failed: answered 503; next try 1970-01-01 00:00:00"
    behind = {"attempts": 0, "last_error": "answered 503", "next_try_ms": None}
    assert _waits(behind) == "answered 503; waits for the message before it"
    assert _waits(behind | {"last_error": ""}) == "waits for the message before it"
    assert _waits({}) == ""
