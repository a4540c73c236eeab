"""Edges with certificates that do not count, or are of somebody else: refused, and they say so."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from streams.adapters.mqtt_link import MqttLink
from streams.pki import Pki
from streams.services.ports import free_port
from streams.settings import Mqtt
from tests.integration.edge_child import edge_node
from tests.integration.gateway_child import gateway, reader, unique
from tests.integration.test_edge_readings import all_arrived, rows
from tests.integration.test_gateway_identity import broker
from tests.waiting import PATIENCE_S, eventually, eventually_async

NOW = datetime.now(UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    found = Pki(tmp_path_factory.mktemp("pki"))
    found.init(["127.0.0.1"], NOW)
    found.issue("acme", "revoked", NOW)
    found.revoke("acme/revoked", NOW)
    return found


@pytest.fixture(scope="module")
def port(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a broker with the rules of the operations page."""
    with broker(tmp_path_factory.mktemp("broker"), pki) as found:
        yield found


def shown(folder: Path, ca: Path) -> Mqtt:
    return Mqtt(ca_file=ca, cert_file=folder / "client.pem", key_file=folder / "client.key")


def link_of(port: int, login: Mqtt) -> MqttLink:
    place = [f"mqtts://127.0.0.1:{port}"]
    return MqttLink(place, login, unique("edge"), retry_s=(0.05, 0.1), subscribe=("hw/v1/x/ack",))


async def trouble(link: MqttLink, *words: str) -> None:
    """Wait until the link says all the words, in its state."""

    async def told() -> bool:
        return all(word in link.trouble for word in words)

    try:
        await eventually_async(told)
    except AssertionError as error:
        raise AssertionError(link.trouble) from error


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("whose", "words"),
    [
        ("expired", ("refused our certificate", "has expired", "acme/expired", "valid until 2020")),
        ("revoked", ("refused our certificate", "was revoked", "acme/revoked", "pki rotate")),
        ("strange", ("refused our certificate", "another CA", "acme/strange", "pki issue")),
        ("nobody", ("refused our certificate", "there is none", "broker.cert_file")),
        ("mistrust", ("certificate verify failed", "broker.ca_file")),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_said_with_what_to_do(
    pki: Pki, port: int, tmp_path: Path, whose: str, words: tuple[str, ...]
) -> None:
    ca = pki.folder / "ca.pem"
    strange = Pki(tmp_path / "strange")
    strange.init(["127.0.0.1"], NOW)
    logins = {
        "expired": lambda: shown(pki.issue("acme", "expired", LONG_AGO, days=1).folder, ca),
        "revoked": lambda: shown(pki.folder / "sites" / "acme" / "revoked", ca),
        "strange": lambda: shown(strange.issue("acme", "strange", NOW).folder, ca),
        "nobody": lambda: Mqtt(ca_file=ca),
        "mistrust": lambda: Mqtt(ca_file=strange.folder / "ca.pem"),
    }
    link = link_of(port, logins[whose]())
    link.start()
    try:
        await trouble(link, *words)
        assert not link.connected
    finally:
        await link.stop()


async def test_a_devices_certificate_does_not_speak_for_its_site(pki: Pki, port: int) -> None:
    device = pki.certify_device("acme", "east", "pump-1", NOW, 1)
    link = link_of(port, shown(device, pki.folder / "ca.pem"))
    link.start()
    try:
        await eventually_async(lambda: _connected(link))
        assert link.publish("hw/v1/acme/east/up", b"x") is not None
        await trouble(link, "hw/v1/acme/east/up", "Not authorized", "acme/east/pump-1")
        assert link.publish("devices/acme/east/pump-1", b"x") is not None
        await eventually_async(lambda: _well(link))
    finally:
        await link.stop()


async def _connected(link: MqttLink) -> bool:
    return link.connected


async def _well(link: MqttLink) -> bool:
    return not link.trouble


async def test_with_another_sites_certificate_readings_wait_and_go_up_with_the_right_one(
    kafka: str, pki: Pki, port: int, tmp_path: Path
) -> None:
    tenant, device, http = unique("t"), unique("dev"), free_port()
    north, south = (pki.issue(tenant, site, NOW).folder for site in ("north", "south"))
    mine, theirs = (pki.certify_device(tenant, s, device, NOW, 1) for s in ("north", "south"))
    made, ca = pki.certify_gateway(NOW, 1), pki.folder / "ca.pem"
    arrived = await reader(kafka)

    def login(folder: Path) -> str:
        return (
            f'[broker]\nca_file = "{ca}"\ncert_file = "{folder}/client.pem"\n'
            f'key_file = "{folder}/client.key"\n'
            f'[edge.intake]\ncert_file = "{pki.folder}/broker.pem"\n'
            f'key_file = "{pki.folder}/broker.key"\nclient_ca_file = "{ca}"\n'
        )

    def post(folder: Path) -> int:
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(folder / "client.pem", folder / "client.key")
        body = [{k: v for k, v in row.items() if k != "device"} for row in rows(device, 0, 20)]
        url = f"https://127.0.0.1:{http}/v1/readings"
        with httpx.Client(verify=context, timeout=PATIENCE_S) as client:
            return client.post(url, json=body).status_code

    text = (
        f'[broker]\nca_file = "{ca}"\ncert_file = "{made}/gateway.pem"\n'
        f'key_file = "{made}/gateway.key"\n'
    )
    address = f"mqtts://127.0.0.1:{port}"
    env = {
        "HEADWATER_EDGE__TENANT": tenant,
        "HEADWATER_EDGE__INTAKE__HTTP_PORT": str(http),
        "HEADWATER_EDGE__UPLINK__ANSWER_MIN_MS": "500",
    }
    with (
        gateway(kafka, address, tmp_path, text),
        edge_node(address, tmp_path, "north", login(south), **env) as edge,
    ):
        assert post(theirs) == 403
        assert post(mine) == 202
        why = f"hw/v1/{tenant}/north/up: Not authorized"
        eventually(lambda: why in edge.status()["uplink"]["why"])
        sender = f'"sender": "{tenant}/south/{device}"'
        for told in ("publication refused", f"names '{tenant}/south'", sender):
            eventually(lambda told=told: told in edge.log.read_text(), what=told)
        assert edge.waiting() == 20
        assert edge.status()["given_up"] == {}
        edge.stop()
        edge.config = login(north)
        edge.start()
        await all_arrived(arrived, device, 20)
        eventually(lambda: edge.waiting() == 0)
        eventually(lambda: not edge.status()["uplink"]["why"])
    await arrived.consumer.stop()
