"""The gateway over mutual TLS with a password, on a mosquitto of the test's own."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion

from streams.services.mosquitto import install
from streams.services.ports import free_port, is_open
from tests.integration.gateway_child import (
    GatewayChild,
    gateway,
    reader,
    unique,
)
from tests.waiting import PATIENCE_S, eventually, eventually_async

PASSWORD = "correct horse"


@dataclass
class Issued:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate, key


def issue(name: str, by: Issued | None = None) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    local = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([local]), critical=False)
    )
    return Issued(builder.sign(by.key if by else key, hashes.SHA256()), key)


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    authority = issue("authority")
    ca, _ = authority.write(folder, "ca")
    certificate, key = issue("127.0.0.1", authority).write(folder, "server")
    issue("gateway", authority).write(folder, "client")
    port = free_port()
    passwords = folder / "passwords"
    tool = shutil.which("mosquitto_passwd", path=os.environ["PATH"] + ":/usr/bin")
    assert tool
    subprocess.run([tool, "-b", "-c", str(passwords), "gateway", PASSWORD], check=True)
    lines = [
        f"listener {port} 127.0.0.1",
        f"cafile {ca}",
        f"certfile {certificate}",
        f"keyfile {key}",
        "require_certificate true",
        "allow_anonymous false",
        f"password_file {passwords}",
        *(["user root"] if os.geteuid() == 0 else []),
    ]
    (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    with (folder / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([install(), "-c", str(folder / "mosquitto.conf")], stderr=log)
    try:
        eventually(lambda: is_open(f"127.0.0.1:{port}"))
        yield port
    finally:
        process.terminate()
        process.wait()


def settings(folder: Path, prefix: str, password: str = PASSWORD) -> str:
    (folder / "password").write_text(password + "\n")
    return (
        f'[broker]\nusername = "gateway"\npassword_file = "{folder}/password"\n'
        f'ca_file = "{folder}/ca.pem"\ncert_file = "{folder}/client.pem"\n'
        f'key_file = "{folder}/client.key"\n'
        f'[[mappings]]\ntopic = "{prefix}/{{device}}"\n'
    )


async def test_readings_pass_over_mutual_tls(kafka: str, tmp_path: Path) -> None:
    prefix, device = unique("t"), unique("dev")
    arrived = await reader(kafka)
    with (
        broker(tmp_path) as port,
        gateway(kafka, f"mqtts://127.0.0.1:{port}", tmp_path, settings(tmp_path, prefix)),
    ):
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.username_pw_set("gateway", PASSWORD)
        client.tls_set(
            str(tmp_path / "ca.pem"), str(tmp_path / "client.pem"), str(tmp_path / "client.key")
        )
        client.connect("127.0.0.1", port)
        client.loop_start()
        sent = [
            client.publish(f"{prefix}/{device}", f'{{"a": {n}, "pad": {"1" * 15}}}', qos=1)
            for n in range(2_000)
        ]
        for one in sent:
            one.wait_for_publish(PATIENCE_S)
        client.disconnect()
        client.loop_stop()

        async def found() -> bool:
            await arrived.read()
            return len(arrived.of(device)) >= 2 * 2_000

        await eventually_async(found)
    assert arrived.of(device)[::2] == [float(n) for n in range(2_000)]
    await arrived.consumer.stop()


def test_a_wrong_password_shows_in_readiness_and_never_in_the_log(
    kafka: str, tmp_path: Path
) -> None:
    with broker(tmp_path) as port:
        config = tmp_path / "headwater.toml"
        config.write_text(settings(tmp_path, unique("t"), password="wrong horse"))
        child = GatewayChild(kafka, f"mqtts://127.0.0.1:{port}", config).start(wait=False)
        try:
            eventually(lambda: "refused us" in child.ready()[1], every_s=0.01)
        finally:
            child.kill()
        assert "wrong horse" not in child.log.read_text()


@pytest.mark.parametrize("missing", ["password_file", "ca_file"])
def test_a_missing_file_ends_with_a_message_that_names_the_setting(
    kafka: str, tmp_path: Path, missing: str
) -> None:
    config = tmp_path / "headwater.toml"
    config.write_text(f'[broker]\nusername = "u"\n{missing} = "{tmp_path}/nowhere"\n')
    child = GatewayChild(kafka, "mqtts://127.0.0.1:1", config).start(wait=False)
    assert child.process is not None
    try:
        assert child.process.wait(PATIENCE_S) == 2
    finally:
        child.kill()
    assert f"broker.{missing}" in child.log.read_text()
