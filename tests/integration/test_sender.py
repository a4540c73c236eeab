"""One attempt at receivers that misbehave, over real sockets."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
import threading
import time
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate
from itertools import cycle

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks.webhooks import Webhook as Signer
from standardwebhooks.webhooks import WebhookVerificationError

from streams.alerts.secrets import new_secret
from streams.alerts.sender import Sender
from streams.errors import SettingsError
from streams.services.ports import HOST
from streams.settings import Webhook
from tests.waiting import PATIENCE_S


@asynccontextmanager
async def receiver(answer, *, tls=None):
    """A server that reads a request and lets *answer* write; yields its port and the requests."""
    requests = []

    async def serve(reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                headers = {name.lower(): value for name, value in headers.items()}
                body = await reader.readexactly(int(headers["content-length"]))
                requests.append((headers, body))
                await answer(writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1], requests


def says(head, body=b""):
    async def answer(writer):
        writer.write(f"HTTP/1.1 {head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    return answer


@asynccontextmanager
async def sender(tmp_path, port, *, scheme="http", host=HOST, timeout_ms=60_000, **more):
    secret = tmp_path / "secret"
    if not secret.exists():
        secret.write_text(new_secret())
    hook = {"allow_private": True, "timeout_ms": timeout_ms, **more}
    made = Sender(
        Webhook(name="hook", url=f"{scheme}://{host}:{port}/", secret_file=secret, **hook)
    )
    await made.open()
    yield made
    await made.close()


async def attempt(tmp_path, answer, **more):
    async with receiver(answer) as (port, _), sender(tmp_path, port, **more) as hook:
        return await hook.send("msg_1", {"data": 1})


async def test_a_redirect_to_loopback_is_a_failure_and_is_not_followed(tmp_path):
    async with receiver(says("200 OK")) as (port, followed):
        head = f"307 Temporary Redirect\r\nlocation: http://{HOST}:{port}/"
        outcome = await attempt(tmp_path, says(head))
    assert (outcome.delivered, outcome.reason) == (False, "the receiver answered 307")
    assert followed == []


@pytest.mark.parametrize("off_s", [-7_200, 7_200])
async def test_a_clock_that_is_wrong_is_said_where_a_signature_is_refused(tmp_path, off_s):
    theirs_s = time.time() + off_s
    head = (
        f"401 Unauthorized\r\ndate: {formatdate(theirs_s, usegmt=True)}"
        f"\r\nretry-after: {formatdate(theirs_s + 90, usegmt=True)}"
    )
    outcome = await attempt(tmp_path, says(head))
    assert ("ahead of" if off_s > 0 else "behind") in outcome.reason
    assert "receivers refuse signatures: set the one that is wrong" in outcome.reason
    # A date to wait for is one of the clock that it comes from.
    assert outcome.retry_after_s == 90.0


async def test_a_name_server_that_hangs_delays_no_other_endpoint(tmp_path, monkeypatch):
    real, over = socket.getaddrinfo, threading.Event()

    def slow(host, *args, **more):
        if host == "hangs.example.org":
            over.wait(PATIENCE_S)
        return real(host if host == HOST else HOST, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    async with (
        receiver(says("204 No Content")) as (port, requests),
        sender(tmp_path, port, host="hangs.example.org", timeout_ms=60_000) as hanging,
        sender(tmp_path, port) as prompt,
    ):
        waiting = [asyncio.create_task(hanging.send(f"msg_{i}", {})) for i in range(40)]
        while not over.is_set():
            outcome = await prompt.send("msg_prompt", {})
            assert outcome.delivered
            assert [headers["webhook-id"] for headers, _ in requests] == ["msg_prompt"]
            over.set()
        assert all(one.delivered for one in await asyncio.gather(*waiting))


@pytest.mark.parametrize("host", ["a" * 64 + ".example.org", "no-such-host.invalid"])
async def test_a_name_that_cannot_be_resolved_is_a_failure(tmp_path, host):
    async with sender(tmp_path, 1, host=host) as hook:
        outcome = await hook.send("msg_1", {})
    assert not outcome.delivered
    assert f"{host} cannot be resolved" in outcome.reason


@pytest.mark.parametrize(
    ("head", "delivered", "gone", "asks"),
    [
        ("204 No Content", True, False, None),
        ("302 Found\r\nlocation: http://127.0.0.1:1/", False, False, None),
        ("410 Gone", False, True, None),
        ("429 Too Many\r\nretry-after: 7", False, False, 7.0),
        ("500 Oops", False, False, None),
    ],
)
async def test_what_an_answer_means(tmp_path, head, delivered, gone, asks):
    outcome = await attempt(tmp_path, says(head))
    assert (outcome.delivered, outcome.gone, outcome.retry_after_s) == (delivered, gone, asks)


async def test_ten_megabytes_of_answer_are_not_read(tmp_path):
    written = []

    async def flood(writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10485760\r\n\r\n")
        for _ in range(160):
            writer.write(b"x" * 65_536)
            await writer.drain()
            written.append(65_536)

    assert (await attempt(tmp_path, flood)).delivered
    assert sum(written) < 10_485_760


async def test_one_that_answers_a_byte_now_and_then_has_an_end(tmp_path):
    async def drip(writer):
        for byte in cycle(b"HTTP/1.1 200 OK"):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    outcome = await attempt(tmp_path, drip, timeout_ms=300)
    assert outcome.reason == "no answer within 300 ms"


async def test_one_that_never_answers_has_an_end(tmp_path):
    async def hang(writer):
        await asyncio.sleep(60)

    outcome = await attempt(tmp_path, hang, timeout_ms=300)
    assert outcome.reason == "no answer within 300 ms"


async def test_one_that_speaks_no_tls_is_a_failure(tmp_path):
    over = asyncio.Event()

    async def greet(reader, writer):
        await reader.read(65_536)
        writer.write(b"220 smtp.example.org\r\n")
        with suppress(ConnectionError):  # However it hangs up.
            await reader.read()
        writer.close()
        over.set()

    server = await asyncio.start_server(greet, HOST, 0)
    async with server, sender(tmp_path, server.sockets[0].getsockname()[1], scheme="https") as hook:
        outcome = await hook.send("msg_1", {})
        await asyncio.wait_for(over.wait(), PATIENCE_S)
    assert outcome.reason.startswith("ConnectError: ")
    assert "SSL" in outcome.reason


async def test_one_that_nobody_listens_at_is_a_failure(tmp_path):
    async with sender(tmp_path, 1) as hook:
        outcome = await hook.send("msg_1", {})
    assert not outcome.delivered
    assert "ConnectError" in outcome.reason


async def test_a_certificate_that_nobody_vouches_for_is_a_failure(tmp_path):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*self_signed(tmp_path))
    async with (
        receiver(says("204 No Content"), tls=tls) as (port, requests),
        sender(tmp_path, port, scheme="https") as hook,
    ):
        outcome = await hook.send("msg_1", {})
    assert "certificate verify failed" in outcome.reason
    assert requests == []


async def test_a_private_address_gets_no_byte(tmp_path):
    async with (
        receiver(says("204 No Content")) as (port, requests),
        sender(tmp_path, port, scheme="https", allow_private=False) as hook,
    ):
        outcome = await hook.send("msg_1", {})
    assert "is not a public address" in outcome.reason
    assert requests == []


async def test_keys_are_changed_while_messages_go_out(tmp_path):
    old, new = new_secret(), new_secret()
    path = tmp_path / "secret"
    path.write_text(old)

    def verified(headers, body):
        found = []
        for name, secret in (("old", old), ("new", new)):
            try:
                Signer(secret).verify(body, headers)
                found.append(name)
            except WebhookVerificationError:
                pass
        return found

    async with receiver(says("204 No Content")) as (port, requests), sender(tmp_path, port) as hook:
        for text in (old, f"{new}\n{old}\n", "nonsense", f"{new}\n"):
            path.write_text(text)
            assert (await hook.send("msg_1", {"data": 1})).delivered
    assert [verified(*request) for request in requests] == [
        ["old"],
        ["old", "new"],
        ["old", "new"],
        ["new"],
    ]


async def test_a_secret_that_changes_twice_at_one_time_of_the_file_is_read_again(tmp_path):
    path, new = tmp_path / "secret", new_secret()
    async with receiver(says("204 No Content")) as (port, requests), sender(tmp_path, port) as hook:
        path.write_text("")  # As whoever writes it anew begins.
        assert (await hook.send("msg_1", {"data": 1})).delivered
        began = path.stat()
        path.write_text(new)
        os.utime(path, ns=(began.st_atime_ns, began.st_mtime_ns))
        assert (await hook.send("msg_2", {"data": 1})).delivered
    headers, body = requests[-1]
    Signer(new).verify(body, headers)


async def test_no_secret_is_in_a_message_of_an_error(tmp_path, capfd):
    path = tmp_path / "secret"
    secret = new_secret()
    path.write_text(secret)
    async with sender(tmp_path, 1) as hook:
        path.write_text(f"{secret}!")
        outcome = await hook.send("msg_1", {})
    with pytest.raises(SettingsError) as error:
        Sender(Webhook(name="h", url="https://example.org/", secret_file=path))
    said = "".join([outcome.reason, str(error.value), *capfd.readouterr()])
    assert "holds no signing secret" in said
    assert secret.removeprefix("whsec_") not in said


def self_signed(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    now = datetime.datetime.now(tz=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths
