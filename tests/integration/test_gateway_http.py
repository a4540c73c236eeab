"""Readings over HTTP: 202 is in Kafka, and every other answer says why not."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import orjson
import pytest
from typer.testing import CliRunner

from streams.cli.main import app
from streams.pki import Pki
from streams.services.ports import free_port
from tests import web
from tests.conftest import Servers
from tests.integration.gateway_child import Arrived, GatewayChild, gateway, reader, unique
from tests.waiting import PATIENCE_S, eventually, eventually_async

NOW = datetime.now(UTC)


@pytest.fixture
async def arrived(kafka: str) -> AsyncIterator[Arrived]:
    found = await reader(kafka)
    yield found
    await found.consumer.stop()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def child(kafka: str, mqtt: str, tmp_path: Path, port: int) -> Iterator[GatewayChild]:
    text = (
        f"[intake]\nhttp_port = {port}\nmax_body_bytes = 100_000\nmax_requests = 4\n"
        "max_waiting_readings = 20\ntimeout_ms = 600_000\n"
        '[[mappings]]\ntopic = "f/{site}/{device}"\n'
    )
    with gateway(kafka, mqtt, tmp_path, text) as found:
        yield found


async def values(arrived: Arrived, device: str, count: int) -> list[float]:
    async def found() -> bool:
        await arrived.read()
        return len(arrived.of(device)) >= count

    await eventually_async(found)
    return arrived.of(device)


async def test_every_form_that_got_202_is_in_kafka(
    child: GatewayChild, port: int, arrived: Arrived
) -> None:
    device = unique("dev")
    url = f"http://127.0.0.1:{port}/v1/readings"
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        one = await client.post(url, params={"device": device}, json={"m": 1})
        assert (one.status_code, one.json()) == (202, {"readings": 1})
        batch = [{"device": device, "m": 2}, {"device": device, "m": 3, "n": 4}]
        assert (await client.post(url, json=batch)).json() == {"readings": 3}
        mapped = await client.post(url, params={"topic": f"f/s/{device}"}, content=b'{"m": 5}')
        assert mapped.is_success
        pack = orjson.dumps([{"bn": f"{device}/", "n": "m", "v": 6}, {"n": "m", "v": 7, "t": 1}])
        senml = {"content-type": "application/senml+json"}
        assert (await client.post(url, content=pack, headers=senml)).json() == {"readings": 2}
    assert await values(arrived, device, 7) == [1, 2, 3, 4, 5, 6, 7]
    eventually(lambda: child.metric("readings_total") >= 7)


def test_a_refusal_says_what_and_why(child: GatewayChild, port: int) -> None:
    url = f"http://127.0.0.1:{port}/v1/readings"
    cases = [
        (413, "payload-too-large", {"content": b" " * 100_001}),
        (415, "unknown-format", {"content": b"x", "headers": {"content-type": "image/png"}}),
        (415, "unknown-format", {"content": b"x", "headers": {"content-encoding": "br"}}),
        (422, "malformed-json", {"content": b"{", "params": {"device": "d"}}),
        (422, "bad-name", {"json": {"m": 1}}),
    ]
    for status, reason, request in cases:
        answer = web.post(url, **request)
        assert (answer.status_code, answer.json()["detail"]["reason"]) == (status, reason)
        assert len(answer.json()["detail"]["detail"]) > 10
    assert web.get(url).status_code == 405


async def test_while_kafka_does_not_confirm_requests_wait_and_beyond_the_bounds_are_refused(
    servers: Servers, child: GatewayChild, port: int, arrived: Arrived
) -> None:
    device, pid = unique("dev"), servers.pid("kafka")
    url = f"http://127.0.0.1:{port}/v1/readings?device={device}"
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        assert (await client.post(url, json={"m": 0})).status_code == 202
        os.kill(pid, signal.SIGSTOP)
        try:
            waiting = [asyncio.create_task(client.post(url, json={"m": 1}))]
            under_way = "headwater_intake_under_way_requests 1.0"
            ops = f"http://127.0.0.1:{child.port}/metrics"

            async def begun() -> bool:
                return under_way in (await client.get(ops)).text

            await eventually_async(begun)
            busy = await client.post(url, json=[{"m": 1}] * 20)
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
            assert "max_waiting_readings" in busy.text
            waiting += [asyncio.create_task(client.post(url, json={"m": n})) for n in (2, 3, 4)]
            under_way = "headwater_intake_under_way_requests 4.0"
            await eventually_async(begun)
            many = await client.post(url, json={"m": 5})
            assert (many.status_code, many.headers["retry-after"]) == (429, "1")
            assert not any(task.done() for task in waiting)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert [(await task).status_code for task in waiting] == [202] * 4
    assert sorted(await values(arrived, device, 5)) == [0, 1, 2, 3, 4]


async def test_what_got_202_is_in_kafka_however_the_gateway_ends(
    child: GatewayChild, port: int, arrived: Arrived
) -> None:
    device, told = unique("dev"), []
    url = f"http://127.0.0.1:{port}/v1/readings?device={device}"
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:

        async def send(lane: int) -> None:
            for number in range(1_000_000):
                value = 4 * number + lane
                try:
                    answer = await client.post(url, json={"m": value, "t_ms": value})
                except httpx.TransportError:
                    return
                if answer.status_code == 202:
                    told.append(float(value))

        for end in (child.kill, child.stop):
            sending = [asyncio.create_task(send(lane)) for lane in range(3)]
            before = len(told)

            async def enough(before: int = before) -> bool:
                return len(told) > before + 100

            await eventually_async(enough, every_s=0.01)
            await asyncio.to_thread(end)
            await asyncio.gather(*sending)
            await asyncio.to_thread(child.start)

    async def found() -> bool:
        await arrived.read()
        return set(told) <= set(arrived.of(device))

    await eventually_async(found)


async def test_a_token_sends_as_its_device_until_it_is_revoked(
    kafka: str, mqtt: str, tmp_path: Path, port: int, arrived: Arrived
) -> None:
    file, device = str(tmp_path / "tokens.json"), unique("dev")

    def tokens(*command: str) -> str:
        done = CliRunner().invoke(app, ["tokens", *command, "--file", file])
        assert done.exit_code == 0
        return done.stdout.strip()

    name = f"acme/north/{device}"
    token = tokens("issue", name)
    text = f'[intake]\nhttp_port = {port}\ntimeout_ms = 600_000\ntokens = "{file}"\n'
    url = f"http://127.0.0.1:{port}/v1/readings"
    mine = {"authorization": f"Bearer {token}"}
    with gateway(kafka, mqtt, tmp_path, text) as child:
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:

            async def post(headers: dict[str, str], **body: object) -> httpx.Response:
                return await client.post(url, json=body, headers=headers)

            assert (await post(mine, m=1)).status_code == 202
            other = await post(mine, m=1, device="pump-2")
            assert (other.status_code, other.json()["detail"]["reason"]) == (403, "wrong-device")
            for headers in ({}, {"authorization": "Bearer hwt_guess"}):
                answer = await post(headers, m=2)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
            assert f'"identity":"{name}"' in tokens("list", "--json")
            tokens("revoke", name)
            assert (await post(mine, m=3)).status_code == 401
        for why in (
            "the token is unknown",
            f"the token of {name} was revoked",
            f"{name} sends as itself, not for device",
        ):
            eventually(lambda why=why: why in child.log.read_text(), what=why)
        log = child.log.read_text()
    assert token not in log
    assert await values(arrived, device, 1) == [1]


async def test_a_certificate_sends_as_its_device_and_a_bad_one_is_told_in_the_log(
    kafka: str, mqtt: str, tmp_path: Path, port: int, arrived: Arrived
) -> None:
    device = unique("dev")
    pki, strange = Pki(tmp_path / "pki"), Pki(tmp_path / "strange")
    for each in (pki, strange):
        each.init(["127.0.0.1"], NOW)
    good = pki.certify_device("acme", "north", device, NOW, 1)
    revoked = pki.certify_device("acme", "north", "stolen", NOW, 1)
    pki.revoke("acme/north/stolen", NOW)
    expired = pki.certify_device("acme", "north", "old", datetime(2020, 1, 1, tzinfo=UTC), 1)
    unknown = strange.certify_device("acme", "north", device, NOW, 1)
    text = (
        f"[intake]\nhttp_port = {port}\ntimeout_ms = 600_000\n"
        f'cert_file = "{pki.folder}/broker.pem"\n'
        f'key_file = "{pki.folder}/broker.key"\nclient_ca_file = "{pki.folder}/ca.pem"\n'
        f'crl_file = "{pki.folder}/revoked.pem"\n'
    )

    def post(folder: Path | None, **body: object) -> httpx.Response:
        context = ssl.create_default_context(cafile=pki.folder / "ca.pem")
        if folder is not None:
            context.load_cert_chain(folder / "client.pem", folder / "client.key")
        with httpx.Client(verify=context, timeout=PATIENCE_S) as client:
            return client.post(f"https://127.0.0.1:{port}/v1/readings", json=body)

    with gateway(kafka, mqtt, tmp_path, text) as child:
        assert post(good, m=1).status_code == 202
        assert post(good, m=2, device="pump-2").status_code == 403
        for bad in (revoked, expired, unknown, None):
            with pytest.raises(httpx.TransportError):
                post(bad, m=3)
        for why in ("certificate revoked", "certificate has expired", "self-signed|local issuer"):
            eventually(lambda why=why: any(w in child.log.read_text() for w in why.split("|")))
    assert await values(arrived, device, 1) == [1]
