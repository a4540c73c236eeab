"""Webhooks of a site: what is told, in which order, after which crash, and what is given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from standardwebhooks.webhooks import Webhook as Signer

from crdt.sqlite_file import LogError
from edge.local.courier import Message, SiteCourier, messages_of
from edge.local.journal import Journal
from streams.alerts.secrets import new_secret
from streams.ops import serve
from streams.services.ports import HOST, free_port
from streams.settings import Alerts, Edge, EdgeLocal, Settings, Webhook
from tests.waiting import PATIENCE_S, eventually_async


class Receiver:
    """A receiver on loopback, which verifies, and answers as it is told to."""

    def __init__(self, secret: str) -> None:
        self._signer = Signer(secret)
        self.status: Callable[[dict[str, Any]], int] = lambda _: 204
        self.tried = 0
        self.got: list[tuple[str, dict[str, Any]]] = []

    async def take(self, request: Request) -> Response:
        found = self._signer.verify(await request.body(), dict(request.headers))
        self.tried += 1
        status = self.status(found["data"])
        if status == 204:
            self.got.append((request.headers["webhook-id"], found["data"]))
        return Response(status_code=status)

    def told(self) -> list[tuple[str, str]]:
        return [(data["id"], data["state"]) for _, data in self.got]


@asynccontextmanager
async def receiver(folder: Path) -> AsyncIterator[tuple[Receiver, Webhook]]:
    secret = new_secret()
    (folder / "secret").write_text(secret)
    found, port, app = Receiver(secret), free_port(), FastAPI()
    app.add_api_route("/", found.take, methods=["POST"])
    hook = {"name": "pager", "url": f"http://{HOST}:{port}/", "allow_private": True}
    hook |= {"timeout_ms": int(1_000 * PATIENCE_S)}
    async with serve(app, HOST, port):
        yield found, Webhook(**hook, secret_file=folder / "secret", tenants=["acme"])


class Outbox:
    """The journal's part, in memory; it fails while it is told to."""

    def __init__(self) -> None:
        self.finished: list[str] = []
        self.fails = False

    async def finish(self, messages: Sequence[str]) -> None:
        if self.fails:
            raise LogError("no disk")
        self.finished += messages


def settings(*hooks: Webhook, max_messages: int = 100, retry_ms: int = 5) -> Settings:
    local = EdgeLocal(max_messages=max_messages)
    return Settings(
        edge=Edge(tenant="acme", site="north", webhooks=hooks, local=local),
        alerts=Alerts(retry_min_ms=retry_ms // 5, retry_max_ms=retry_ms, breaker_failures=3),
    )


def alert(number: int, state: str = "firing") -> dict[str, Any]:
    sample = dict.fromkeys(("t_ms", "received_ms", "kafka_ms", "log_ms"), 1)
    sample |= dict.fromkeys(("value", "score", "expected", "spread"))
    told = {"told_by_edge": ["pager"]}
    return {"id": f"alt_{number}", "state": state, "tenant": "acme", "sample": sample, **told}


def messages(*alerts: dict[str, Any], queued_ms: int | None = None) -> list[Message]:
    now_ms = time.time_ns() // 1_000_000 if queued_ms is None else queued_ms
    return [one for found in alerts for one in messages_of(found, ["pager"], now_ms)]


def sync(probe: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    async def asked() -> Any:
        await asyncio.sleep(0)
        return probe()

    return asked


async def test_an_endpoint_that_fails_gets_each_state_in_order_once_it_is_back(
    tmp_path: Path,
) -> None:
    outbox = Outbox()
    async with receiver(tmp_path) as (hook, webhook):
        hook.status = lambda _: 503
        courier = SiteCourier(settings(webhook), messages(alert(1)), outbox.finish)
        async with courier.running():
            courier.take(messages(alert(1, "resolved"), alert(2)))
            await eventually_async(sync(lambda: hook.tried >= 5))
            (status,) = courier.status()
            assert (status["waiting"], status["delivered"]) == (3, 0)
            assert status["trouble"] == "the receiver answered 503"
            hook.status = lambda _: 204
            await eventually_async(sync(lambda: len(outbox.finished) == 3))
    told = hook.told()
    assert sorted(told) == [("alt_1", "firing"), ("alt_1", "resolved"), ("alt_2", "firing")]
    assert told.index(("alt_1", "firing")) < told.index(("alt_1", "resolved"))
    assert sorted(outbox.finished) == sorted(identity for identity, _ in hook.got)
    # What is between edge and cloud stays there.
    assert all("told_by_edge" not in data for _, data in hook.got)
    assert courier.status() == [{"name": "pager", "waiting": 0, "delivered": 3, "trouble": ""}]


async def test_a_message_that_the_receiver_never_takes_does_not_hold_up_other_alerts(
    tmp_path: Path,
) -> None:
    outbox = Outbox()
    async with receiver(tmp_path) as (hook, webhook):
        hook.status = lambda data: 400 if data["id"] == "alt_1" else 204
        courier = SiteCourier(settings(webhook), [], outbox.finish)
        async with courier.running():
            courier.take(messages(alert(1), alert(2), alert(3)))
            await eventually_async(sync(lambda: len(hook.told()) == 2))
    assert sorted(hook.told()) == [("alt_2", "firing"), ("alt_3", "firing")]


async def test_what_is_too_old_gone_unknown_or_too_much_is_given_up_and_leaves_the_disk(
    tmp_path: Path,
) -> None:
    outbox = Outbox()
    async with receiver(tmp_path) as (hook, webhook):
        hook.status = lambda _: 500
        # Queued in 1970, if the clock is right: it has an hour, and the next try would be later.
        old = messages(alert(1), queued_ms=1)
        courier = SiteCourier(settings(webhook, retry_ms=50 * 3_600_000), old, outbox.finish)
        async with courier.running():
            await eventually_async(sync(lambda: outbox.finished == [old[0].id]))
            assert hook.tried == 1
            hook.status = lambda _: 410
            some = messages(alert(2), alert(3))
            courier.take(some)
            await eventually_async(sync(lambda: len(outbox.finished) == 3))
            assert hook.tried == 2
        several = messages(*(alert(n) for n in range(10, 15)))
        unknown = messages_of(alert(9), ["nobody"], 1)
        again = Outbox()
        courier = SiteCourier(settings(webhook, max_messages=2), [*unknown, *several], again.finish)
        hook.status = lambda _: 204
        async with courier.running():
            await eventually_async(sync(lambda: len(again.finished) == 6))
        assert hook.told() == [("alt_13", "firing"), ("alt_14", "firing")]


async def test_a_disk_that_fails_is_asked_again_to_forget_what_was_delivered(
    tmp_path: Path,
) -> None:
    outbox = Outbox()
    outbox.fails = True
    async with receiver(tmp_path) as (hook, webhook):
        courier = SiteCourier(settings(webhook), [], outbox.finish)
        async with courier.running():
            courier.take(messages(alert(1)))
            await eventually_async(sync(lambda: len(hook.got) == 1))
            outbox.fails = False
            await eventually_async(sync(lambda: len(outbox.finished) == 1))
    assert len(hook.got) == 1


async def test_a_secret_that_is_none_and_a_chart_are_named_at_the_start(tmp_path: Path) -> None:
    from streams.errors import SettingsError

    hook = {"name": "pager", "url": "https://e.org/", "secret_file": tmp_path / "none"}
    with pytest.raises(SettingsError, match="webhook pager: "):
        SiteCourier(settings(Webhook(**hook)), [], Outbox().finish)
    with pytest.raises(ValueError, match="not at an edge"):
        Edge(webhooks=[Webhook(**hook, chart=True)])
    with pytest.raises(ValueError, match="the name 'pager' is used twice"):
        Edge(webhooks=[Webhook(**hook), Webhook(**hook)])


def test_messages_are_in_the_journal_with_their_alert_until_they_are_finished(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path / "a.db", 2)
    told = [*messages(alert(1), queued_ms=7), *messages(alert(2), queued_ms=8)]
    journal.record([alert(1), alert(2)], [], {}, told)
    journal.record([alert(1)], [], {}, told[:1])
    journal.finished([told[0].id])
    journal.close()
    again = Journal(tmp_path / "a.db", 2)
    assert again.messages() == told[1:]
    again.close()
