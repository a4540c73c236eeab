"""Readings over CoAP: 2.04 is in Kafka."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiocoap
from aiocoap import Code, Message

from streams.services.ports import free_port
from tests.integration.gateway_child import gateway, reader, unique
from tests.waiting import PATIENCE_S, eventually_async


async def test_what_got_changed_is_in_kafka(kafka: str, mqtt: str, tmp_path: Path) -> None:
    device, port = unique("dev"), free_port()
    arrived = await reader(kafka)
    client = await aiocoap.Context.create_client_context(transports=["udp6"])
    batch = b"[" + b",".join(b'{"m": %d}' % n for n in range(500)) + b"]"
    with gateway(kafka, mqtt, tmp_path, f"[intake]\ncoap_port = {port}\ntimeout_ms = 600_000\n"):
        for payload in (b'{"m": -1}', batch):
            uri = f"coap://127.0.0.1:{port}/v1/readings?device={device}"
            message = Message(code=Code.POST, uri=uri, payload=payload, content_format=50)
            async with asyncio.timeout(PATIENCE_S):
                assert (await client.request(message).response).code is Code.CHANGED

    async def found() -> bool:
        await arrived.read()
        return len(arrived.of(device)) >= 501

    await eventually_async(found)
    assert arrived.of(device) == [float(n) for n in range(-1, 500)]
    await client.shutdown()
    await arrived.consumer.stop()
