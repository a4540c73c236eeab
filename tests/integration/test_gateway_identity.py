"""A broker with the rules of the operations page: each publishes as itself, or not at all."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from streams.pki import Pki
from streams.services.mosquitto import install
from streams.services.ports import free_port, is_open
from tests.documents import blocks, titled
from tests.integration.gateway_child import gateway, reader, unique
from tests.waiting import eventually, eventually_async

NOW = datetime.now(UTC)
NOT_AUTHORIZED = 135


@contextmanager
def broker(folder: Path, pki: Pki) -> Iterator[int]:
    """mosquitto as the page says, with the folder of keys where it is here."""
    port, here = free_port(), str(pki.folder)
    told = titled("operations.md", "mosquitto.conf").splitlines()
    (folder / "acl").write_text(titled("operations.md", "acl"))
    lines = [
        f"listener {port} 127.0.0.1",
        *(line.replace(".headwater/pki", here) for line in told),
        "log_type all",
        *(["user root"] if os.geteuid() == 0 else []),
    ]
    (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    with (folder / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([install(), "-c", "mosquitto.conf"], stderr=log, cwd=folder)
    try:
        eventually(lambda: is_open(f"127.0.0.1:{port}"))
        yield port
    finally:
        process.terminate()
        process.wait()


class Device:
    """A client that shows a certificate, and what it heard of each publication."""

    def __init__(self, port: int, ca: Path, shown: Path | None) -> None:
        self.connected = self.ended = False
        self.codes: dict[int, int] = {}
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, reconnect_on_failure=False
        )
        context = ssl.create_default_context(cafile=ca)
        if shown is not None:
            context.load_cert_chain(shown / "client.pem", shown / "client.key")
        self.client.tls_set_context(context)
        self.client.on_connect = self._connected
        self.client.on_publish = self._published
        self.client.on_disconnect = self._ended
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _connected(self, *_: Any) -> None:
        self.connected = True

    def _ended(self, *_: Any) -> None:
        self.ended = True

    def _published(self, _c: Any, _d: Any, mid: int, code: Any, _p: Any) -> None:
        self.codes[mid] = code.value

    def publish(self, topic: str) -> int:
        mid = self.client.publish(topic, '{"m": 1}', qos=1).mid
        eventually(lambda: mid in self.codes)
        return self.codes[mid]

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def refused(port: int, ca: Path, shown: Path | None) -> None:
    """Try to connect. The handshake of TLS 1.3 can look well to the client for a moment."""
    try:
        device = Device(port, ca, shown)
    except OSError:  # ssl.SSLError is one
        return
    eventually(lambda: device.ended or device.connected)
    device.stop()
    assert not device.connected


async def test_each_publishes_as_itself_and_who_is_not_known_is_refused_with_a_line_in_the_log(
    kafka: str, tmp_path: Path
) -> None:
    tenant = unique("tenant")
    pki, strange = Pki(tmp_path / "pki"), Pki(tmp_path / "strange")
    for each in (pki, strange):
        each.init(["127.0.0.1"], NOW)
    made = pki.certify_gateway(NOW, 1)
    pump = pki.certify_device(tenant, "north", "pump-1", NOW, 1)
    site = pki.issue(tenant, "north", NOW).folder
    revoked = pki.certify_device(tenant, "north", "stolen", NOW, 1)
    pki.revoke(f"{tenant}/north/stolen", NOW)
    expired = pki.certify_device(tenant, "north", "old", datetime(2020, 1, 1, tzinfo=UTC), 1)
    unknown = strange.certify_device(tenant, "north", "pump-1", NOW, 1)
    mappings = next(b.code for b in blocks("operations.md") if "devices/{tenant}" in b.code)
    text = (
        f'[broker]\nca_file = "{made}/ca.pem"\ncert_file = "{made}/gateway.pem"\n'
        f'key_file = "{made}/gateway.key"\n{mappings}'
    )
    arrived = await reader(kafka)
    ca, log = pki.folder / "ca.pem", tmp_path / "mosquitto.log"
    with (
        broker(tmp_path, pki) as port,
        gateway(kafka, f"mqtts://127.0.0.1:{port}", tmp_path, text) as child,
    ):
        device, node = Device(port, ca, pump), Device(port, ca, site)
        assert device.publish(f"devices/{tenant}/north/pump-1") == 0
        for topic in (
            f"devices/{tenant}/north/pump-2",
            f"devices/{tenant}/south/pump-1",
            f"hw/v1/{tenant}/north/up",
            f"hw/v1/{tenant}/north/twin/up",
        ):
            assert device.publish(topic) == NOT_AUTHORIZED
        eventually(lambda: log.read_text().count("Denied PUBLISH") == 4)
        assert node.publish(f"hw/v1/{tenant}/north/up") == 0
        assert node.publish(f"hw/v1/{tenant}/south/up") == NOT_AUTHORIZED
        assert node.publish(f"devices/{tenant}/north/pump-1") == NOT_AUTHORIZED
        for tried, shown in enumerate((revoked, expired, unknown), 1):
            refused(port, ca, shown)
            told = "certificate verify failed"
            eventually(lambda n=tried, told=told: log.read_text().count(told) == n, what=str(shown))
        refused(port, ca, None)
        eventually(lambda: "peer did not return a certificate" in log.read_text())
        eventually(lambda: child.metric("rejected_messages_total", 'reason="truncated-frame"') == 1)

        async def found() -> bool:
            await arrived.read()
            return bool(arrived.of("pump-1"))

        await eventually_async(found)
        for one in (device, node):
            one.stop()
    await arrived.consumer.stop()
