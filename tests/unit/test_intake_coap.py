"""CoAP on loopback, without Kafka: bounds, identities, observation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiocoap
import pytest
from aiocoap import Code, Message

from streams.core.readings import Readings
from streams.errors import BusyError
from streams.intake.coap import serve_coap
from streams.intake.coap_fields import FieldsResource
from streams.intake.identities import Identity, Token, hash_of
from streams.intake.mapping import TopicMap
from streams.intake.reception import Reception
from streams.intake.requests import RequestDecoder
from streams.intake.token_file import write_tokens
from streams.services.ports import free_port
from streams.settings import Intake
from tests.waiting import PATIENCE_S

JSON, SENML, SENML_CBOR, CSS, DEFLATED_JSON, UNKNOWN = 50, 110, 112, 20000, 11050, 9999


class Spool:
    def __init__(self) -> None:
        self.taken: list[Readings] = []
        self.open = asyncio.Event()
        self.open.set()
        self.full = False
        self.asked = asyncio.Event()

    async def __call__(self, readings: Readings) -> None:
        if self.full:
            raise BusyError("the spool is full", 7)
        self.asked.set()
        await self.open.wait()
        self.taken.append(readings)

    def values(self) -> list[float]:
        return [value for one in self.taken for value in one.value.tolist()]


@pytest.fixture
async def client() -> AsyncIterator[aiocoap.Context]:
    context = await aiocoap.Context.create_client_context(transports=["udp6"])
    yield context
    await context.shutdown()


def reception(spool: Spool, **limits: object) -> Reception:
    settings = Intake(coap_port=free_port(), **{"max_body_bytes": 5_000, **limits})
    decoder = RequestDecoder(TopicMap([]), {}, 1_000, settings.max_body_bytes)
    return Reception(settings, lambda: decoder, spool)


async def post(
    client: aiocoap.Context, desk: Reception, payload: bytes, query: str = "", form: int = JSON
) -> Message:
    uri = f"coap://127.0.0.1:{desk.limits.coap_port}/v1/readings{query}"
    message = Message(code=Code.POST, uri=uri, payload=payload, content_format=form)
    async with asyncio.timeout(PATIENCE_S):
        return await client.request(message).response


async def test_what_is_durable_is_changed_small_or_in_blocks(client: aiocoap.Context) -> None:
    spool = Spool()
    desk = reception(spool)
    batch = b"[" + b",".join(b'{"device": "pump-1", "m": %d}' % n for n in range(100)) + b"]"
    async with serve_coap(desk):
        assert (await post(client, desk, b'{"m": -1}', "?device=pump-1")).code is Code.CHANGED
        assert (await post(client, desk, batch)).code is Code.CHANGED
        pack = b'[{"bn": "pump-1/", "n": "m", "v": 100}]'
        assert (await post(client, desk, pack, form=SENML)).code is Code.CHANGED
        cbor = b"\x81\xa3\x21\x67pump-1/\x00\x61m\x02\x18\x65"
        assert (await post(client, desk, cbor, form=SENML_CBOR)).code is Code.CHANGED
        assert spool.values() == [float(n) for n in range(-1, 102)]


async def test_there_is_no_answer_before_it_is_durable(client: aiocoap.Context) -> None:
    spool = Spool()
    desk = reception(spool)
    spool.open.clear()
    async with serve_coap(desk):
        asked = asyncio.create_task(post(client, desk, b'{"m": 1}', "?device=d"))
        async with asyncio.timeout(PATIENCE_S):
            await spool.asked.wait()
        assert not asked.done()
        spool.open.set()
        assert (await asked).code is Code.CHANGED


async def test_refusals_have_the_codes_of_their_kind(client: aiocoap.Context) -> None:
    spool = Spool()
    desk = reception(spool, max_transfers=2)
    async with serve_coap(desk):
        large = await post(client, desk, b" " * 6_000, "?device=d")
        assert large.code is Code.REQUEST_ENTITY_TOO_LARGE
        for form in (CSS, DEFLATED_JSON, UNKNOWN):
            other = await post(client, desk, b"x", "?device=d", form)
            assert other.code is Code.UNSUPPORTED_CONTENT_FORMAT
        bad = await post(client, desk, b"{", "?device=d")
        assert bad.code is Code.UNPROCESSABLE_ENTITY
        assert bad.payload.startswith(b"malformed-json: ")
        spool.full = True
        busy = await post(client, desk, b'{"m": 1}', "?device=d")
        assert (busy.code, busy.opt.max_age) == (Code.SERVICE_UNAVAILABLE, 7)
        assert spool.taken == []


async def test_transfers_that_are_never_completed_are_bounded(client: aiocoap.Context) -> None:
    desk = reception(Spool(), max_transfers=2)

    def first_block(query: str) -> Message:
        uri = f"coap://127.0.0.1:{desk.limits.coap_port}/v1/readings?device={query}"
        message = Message(code=Code.POST, uri=uri, payload=b" " * 1_024)
        message.opt.block1 = aiocoap.optiontypes.BlockOption.BlockwiseTuple(0, True, 6)
        return message

    async with serve_coap(desk):
        codes = []
        for name in ("a", "b", "c"):
            asked = client.request(first_block(name), handle_blockwise=False)
            codes.append((await asked.response).code)
    assert codes == [Code.CONTINUE, Code.CONTINUE, Code.SERVICE_UNAVAILABLE]


async def test_a_token_sends_as_its_device_alone(client: aiocoap.Context, tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    write_tokens(path, [Token(hash_of("hwt_1"), Identity("t", "s", "d"), 2**60)])
    spool = Spool()
    desk = reception(spool, tokens=path)
    async with serve_coap(desk):
        assert (await post(client, desk, b'{"m": 1}', "?token=hwt_1")).code is Code.CHANGED
        assert (await post(client, desk, b'{"m": 1}', "?token=guess")).code is Code.UNAUTHORIZED
        assert (await post(client, desk, b'{"m": 1}')).code is Code.UNAUTHORIZED
        other = await post(client, desk, b'{"m": 1}', "?token=hwt_1&device=e")
        assert other.code is Code.FORBIDDEN
    (taken,) = spool.taken
    assert (taken.tenant[0], taken.site[0], taken.device[0]) == ("t", "s", "d")


@pytest.fixture
def fields() -> Iterator[tuple[dict[tuple[str, str], bytes], FieldsResource]]:
    values = {("pump-1", "desired.limit"): b"65"}
    yield values, FieldsResource(lambda device, path: values.get((device, path)), 1)


async def test_who_observes_a_field_hears_each_change_until_it_leaves(
    client: aiocoap.Context, fields: tuple[dict[tuple[str, str], bytes], FieldsResource]
) -> None:
    values, resource = fields
    desk = reception(Spool())
    base = f"coap://127.0.0.1:{desk.limits.coap_port}/v1/devices/pump-1/twin"
    async with serve_coap(desk, {("v1", "devices"): resource}):
        asked = client.request(Message(code=Code.GET, uri=f"{base}/desired/limit", observe=0))
        assert (await asked.response).payload == b"65"
        told = aiter(asked.observation)
        for value in (b"66", b"67"):
            values["pump-1", "desired.limit"] = value
            resource.changed("pump-1", ["desired.limit", "desired.other"])
            resource.changed("pump-2", ["desired.limit"])
            async with asyncio.timeout(PATIENCE_S):
                assert (await anext(told)).payload == value
        # One observer is all there may be: a second is answered, and not told again.
        second = client.request(Message(code=Code.GET, uri=f"{base}/desired/limit", observe=0))
        answer = await second.response
        assert (answer.payload, answer.opt.observe) == (b"67", None)
        missing = client.request(Message(code=Code.GET, uri=f"{base}/desired/none"))
        assert (await missing.response).code is Code.NOT_FOUND
        asked.observation.cancel()
