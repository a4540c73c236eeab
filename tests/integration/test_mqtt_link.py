"""A link that cannot connect says why, once per reason."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from streams.adapters.mqtt_link import MqttLink
from streams.services.ports import free_port
from streams.settings import Mqtt
from tests.integration.test_gateway_tls import issue
from tests.waiting import eventually_async


def link_to(address: str, login: Mqtt) -> MqttLink:
    return MqttLink([address], login, "test-link", retry_s=(0.05, 0.1))


async def why(link: MqttLink, word: str) -> str:
    async def told() -> str:
        return link.why_not_ready if word in link.why_not_ready else ""

    link.start()
    try:
        return await eventually_async(told)
    finally:
        await link.stop()


async def test_a_broker_that_is_not_there_is_named() -> None:
    link = link_to(f"mqtt://127.0.0.1:{free_port()}", Mqtt())
    assert "cannot be reached" in await why(link, "refused")


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_broker_whose_certificate_no_one_vouches_for_is_refused(tmp_path: Path) -> None:
    cert, key = issue("127.0.0.1").write(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        link = link_to(f"mqtts://127.0.0.1:{port}", Mqtt())
        assert "self-signed" in await why(link, "certificate verify failed")
    finally:
        server.close()
        await server.wait_closed()
